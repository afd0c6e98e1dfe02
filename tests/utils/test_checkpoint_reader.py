import collections
import hashlib
import io
import random
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from pcdet.utils.checkpoint_reader import CheckpointError, read_checkpoint

LEGACY = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def training_state():
    """What trainings store: weights, moments, schedule, generators, numbers of numpy."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    shared = torch.arange(12.0)
    return {
        "epoch": 3,
        "model_state": model.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "scheduler_state": {key: value for key, value in scheduler.state_dict().items() if key[0] != "_"},
        "rng_state": {"torch": torch.get_rng_state(), "python": random.Random(0).getstate()},
        "parameter": model[0].weight,
        "views": [shared, shared[2:5], shared.view(3, 4).t()],
        "types": [
            torch.zeros(2, dtype=d) for d in (torch.float16, torch.bfloat16, torch.bool, torch.uint8, torch.int64)
        ],
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 7),
        "plain": [torch.Size([1, 2]), torch.device("cpu"), torch.float32, {1, 2}, 1 + 2j, None, 10**20],
    }


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and found.stride() == expected.stride()
        assert found.requires_grad == expected.requires_grad and torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        assert getattr(found, "_metadata", None) == getattr(expected, "_metadata", None)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


@LEGACY
def test_what_torch_loads_of_a_training_is_read_alike(tmp_path, legacy):
    path = tmp_path / "a.pth"
    torch.save(training_state(), path, _use_new_zipfile_serialization=not legacy)
    found = read_checkpoint(path)
    assert_same(found, torch.load(path, weights_only=True))
    whole, part, turned = found["views"]
    whole[3] = 99
    assert part[1] == 99 and turned[3, 0] == 99  # they share memory, as they did
    assert isinstance(found["scheduler_state"]["milestones"], collections.Counter)


@LEGACY
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_numbers_and_arrays_of_numpy_1_and_2_are_plain_ones(tmp_path, legacy, core):
    state = {"lr": np.float64(0.5), "array": np.arange(6, dtype=np.float32).reshape(2, 3), np.str_("key"): np.int64(3)}
    path = tmp_path / "a.pth"
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    if core not in path.read_bytes():
        rename_in_pickle(path, b"numpy._core", core, legacy)
    found = read_checkpoint(path)
    assert type(found["lr"]) is np.float64 and found["lr"] == 0.5
    assert found["array"].dtype == np.float32 and found["array"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert type(found["key"]) is np.int64 and found["key"] == 3


def rename_in_pickle(path, old, new, legacy):
    """Other names in the pickle of a file, and sums that fit."""
    if legacy:
        path.write_bytes(path.read_bytes().replace(old, new))
        return
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content.replace(old, new) if name.endswith("data.pkl") else content)


def test_every_damaged_bit_of_a_record_is_found(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"model_state": {"weight": torch.arange(64.0)}}, path)
    whole = path.read_bytes()
    wanted = read_checkpoint(path)["model_state"]["weight"]
    choose = random.Random(0)
    found = 0
    for _ in range(300):
        damaged, at = bytearray(whole), choose.randrange(len(whole))
        damaged[at] ^= 1 << choose.randrange(8)
        path.write_bytes(damaged)
        try:
            state = read_checkpoint(path)
        except CheckpointError as error:
            assert "a.pth" in str(error)
            found += 1
        else:  # padding, times and the like: nothing that is read
            assert list(state) == ["model_state"] and torch.equal(state["model_state"]["weight"], wanted)
    assert found > 100


def test_every_damaged_legacy_file_is_an_error_that_names_it_or_another_dictionary(tmp_path):
    stream = io.BytesIO()
    torch.save({"a": torch.ones(4), "b": torch.ones(3, 2)}, stream, _use_new_zipfile_serialization=False)
    whole, path, choose = stream.getvalue(), tmp_path / "old.pth", random.Random(0)
    for trial in range(300):
        damaged = bytearray(whole)
        if trial % 3:
            for _ in range(choose.randint(1, 3)):
                damaged[choose.randrange(len(damaged))] = choose.randrange(256)
        else:
            del damaged[choose.randrange(len(damaged)) :]
        path.write_bytes(damaged)
        try:
            assert isinstance(read_checkpoint(path), dict)
        except CheckpointError as error:
            assert "old.pth" in str(error)


def test_a_checkpoint_is_checked_against_the_sum_beside_it(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"epoch": 1}, path)
    beside = tmp_path / "a.pth.sha256"
    beside.write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  a.pth\n")
    assert read_checkpoint(path) == {"epoch": 1}
    torch.save({"epoch": 2}, path)
    with pytest.raises(
        CheckpointError, match=r"checkpoint .*a.pth .* is damaged: its SHA-256 is .* use another copy, or"
    ):
        read_checkpoint(path)
    beside.unlink()
    assert read_checkpoint(path) == {"epoch": 2}


def test_an_archive_written_without_sums_is_read(tmp_path):
    computed = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(3)}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(computed)
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        assert not any(entry.CRC for entry in archive.infolist())
    assert torch.equal(read_checkpoint(tmp_path / "a.pth")["a"], torch.ones(3))


@pytest.mark.parametrize(
    "value",
    [
        torch.eye(3).to_sparse(),
        torch.zeros(3, device="meta"),
        torch.ones(1).expand(1000),
        torch.zeros(2, dtype=torch.complex64),
        torch.float8_e4m3fn,
    ],
    ids=["sparse", "meta", "expanded", "complex", "float8"],
)
@pytest.mark.filterwarnings("ignore")  # of torch, about what it writes
def test_tensors_that_no_detector_holds_are_refused(tmp_path, value):
    torch.save({"model_state": {"a": value}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="a.pth"):
        read_checkpoint(tmp_path / "a.pth")
