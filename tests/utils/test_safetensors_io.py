"""Weights as safetensors: to the bit, with their facts, and damage named."""

import errno

import pytest
import torch

from pcdet.utils.checkpoint_reader import CheckpointError, read_checkpoint
from pcdet.utils.safe_files import sum_path, verify
from pcdet.utils.safetensors_io import write_safetensors

SHARED = torch.arange(6.0)


def bits(tensor):
    return tensor.contiguous().flatten().view(torch.uint8).tolist() if tensor.dim() else tensor.item()


def test_weights_of_every_kind_come_back_to_the_bit(tmp_path):
    weights = {
        "tied_a": SHARED, "tied_b": SHARED, "part": SHARED[1:3], "turned": torch.randn(3, 4).t(),
        "channels_last": torch.randn(1, 2, 3, 3).to(memory_format=torch.channels_last),
        "num_batches_tracked": torch.tensor(7), "global_step": torch.tensor([2**40]), "none": torch.zeros(0, 3),
        "nan": torch.tensor([float("nan"), -0.0]), "half": torch.randn(3).bfloat16(), "mask": torch.tensor([True]),
    }  # fmt: skip
    path = write_safetensors(tmp_path / "a.safetensors", weights, {"version": "pcdet+1", "epoch": 80, "config": None})
    assert verify(path)
    state = read_checkpoint(path)
    assert (state["epoch"], state["version"]) == (80, "pcdet+1") and "config" not in state
    assert state["model_state"].keys() == weights.keys()
    for name, value in weights.items():
        found = state["model_state"][name]
        assert (found.dtype, found.shape, bits(found)) == (value.dtype, value.shape, bits(value)), name


@pytest.mark.parametrize("cut", [0, 5, 60])
@pytest.mark.parametrize("with_sum", [True, False])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, cut, with_sum):
    path = write_safetensors(tmp_path / "a.safetensors", {"w": torch.ones(20)}, {})
    path.write_bytes(path.read_bytes()[:cut])
    if not with_sum:
        sum_path(path).unlink()
    with pytest.raises(CheckpointError, match=f"a.safetensors .{cut} bytes. (is damaged|cannot be read)"):
        read_checkpoint(path)


def test_a_file_that_the_system_cannot_read_is_an_error_that_names_it(tmp_path, monkeypatch):
    path = write_safetensors(tmp_path / "a.safetensors", {"w": torch.ones(2)}, {})
    sum_path(path).unlink()

    def refuse(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("safetensors.safe_open", refuse)
    with pytest.raises(CheckpointError, match="checkpoint .*a.safetensors .* cannot be read: .*Input/output error"):
        read_checkpoint(path)


def test_another_ending_is_refused_since_readers_go_by_it(tmp_path):
    with pytest.raises(ValueError, match="a.bin must end in .safetensors"):
        write_safetensors(tmp_path / "a.bin", {}, {})
    with pytest.raises(FileNotFoundError, match="none.safetensors"):
        read_checkpoint(tmp_path / "none.safetensors")
