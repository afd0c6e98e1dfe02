import logging
import os
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from easydict import EasyDict

from pcdet.api import place
from pcdet.cli import session as session_module
from pcdet.cli import train
from pcdet.cli.ending import how_to_go_on, naming_allow_partial, run
from pcdet.cli.flags import common_parser
from pcdet.cli.folders import output_folder
from pcdet.cli.session import Session, log_precision, read_config
from pcdet.cli.training_hooks import keep_best, training_hooks
from pcdet.engine.optim import OptimizationConfig
from pcdet.engine.precision import Precision
from pcdet.engine.run_record import RunRecord
from pcdet.registry import ConfigError
from pcdet.utils.cpu_features import Processor
from pcdet.utils.folder_lock import FolderLock
from pcdet.utils.safe_files import WriteError
from pcdet.utils.weights import MisfitError


def test_a_data_sets_file_given_for_a_models_is_told_by_what_it_lacks(tools):
    args = Namespace(cfg_file=str(tools / "cfgs/dataset_configs/kitti_dataset.yaml"), set_cfgs=None)
    with pytest.raises(ConfigError, match="CLASS_NAMES: missing; a model file such as") as caught:
        read_config(args, ("CLASS_NAMES", "DATA_CONFIG", "MODEL", "OPTIMIZATION"))
    assert len(caught.value.problems) == 4


def test_a_run_keeps_its_configuration_and_can_be_repeated_from_that_copy(tmp_path):
    (tmp_path / "mine.yaml").write_text("A: 1\n")
    out = tmp_path / "out"
    out.mkdir()
    session = SimpleNamespace(
        dist=SimpleNamespace(is_main=True), output_dir=out, logger=None, start_log=lambda file: None
    )
    for cfg_file in (tmp_path / "mine.yaml", out / "mine.yaml"):
        session.args = Namespace(cfg_file=str(cfg_file))
        train.start(session)
        assert (out / "mine.yaml").read_text() == "A: 1\n" and (out / "ckpt").is_dir()


@pytest.mark.parametrize("allowed", [False, True])
def test_a_misfit_ends_with_the_flag_that_takes_what_fits_unless_it_was_given(allowed):
    with pytest.raises(MisfitError) as caught, naming_allow_partial(allowed):
        raise MisfitError("a.pth is not for this Detector")
    said = "a.pth is not for this Detector"
    assert str(caught.value) == (said if allowed else f"{said}\n--allow_partial takes what fits")


@pytest.fixture
def started(tmp_path, monkeypatch):
    """The session of some flags and an ``OPTIMIZATION`` block, on a CPU with the instruction sets named."""

    def start(*flags, sets, **optimization):
        monkeypatch.setattr("pcdet.engine.precision.read_processor", lambda: Processor("a CPU", sets))
        monkeypatch.setattr(session_module, "cfg", EasyDict(ROOT_DIR=tmp_path, EXP_GROUP_PATH="group", TAG="tag"))
        args = common_parser("").parse_args(["--cfg_file", "x.yaml", "--device", "cpu", "--threads", "1", *flags])
        block = {"num_epochs": 1, "batch_size_per_gpu": 1, "optimizer": "adam", "lr": 0.1, **optimization}
        return session_module._start_process(args, OptimizationConfig(**block), tmp_path)

    return start


@pytest.mark.parametrize(
    ("flags", "optimization"), [(["--use_amp"], {}), ([], {"use_amp": True}), (["--use_amp"], {"use_amp": True})]
)
def test_mixed_precision_is_asked_for_by_flag_or_file_and_follows_the_processor(started, flags, optimization):
    plain = started(*flags, sets=("AVX2",), **optimization).precision
    assert (plain.name, plain.layout) == ("float32", "contiguous")
    bf16 = started(*flags, sets=("AVX2", "AVX512_BF16"), **optimization).precision
    assert (bf16.name, bf16.layout) == ("bfloat16", "channels_last")
    insisted = started(*flags, "--amp_dtype", "bf16", sets=("AVX2",), **optimization).precision
    assert (insisted.name, insisted.layout, insisted.slow) == ("bfloat16", "channels_last", True)


def test_a_session_places_models_in_the_layout_of_its_precision_or_of_its_flag(started):
    def is_last(*flags, sets):
        weight = started(*flags, sets=sets).place(torch.nn.Conv2d(4, 4, 3)).weight
        return weight.is_contiguous(memory_format=torch.channels_last)

    assert not is_last(sets=("AVX512_BF16",))
    assert not is_last("--use_amp", sets=("AVX2",))
    assert is_last("--use_amp", sets=("AVX512_BF16",))
    assert is_last("--channels_last", sets=("AVX2",))


@pytest.mark.parametrize(("slow", "level"), [(False, "INFO"), (True, "WARNING")])
def test_precision_is_told_in_one_line_and_warned_of_where_it_is_only_emulated(caplog, slow, level):
    with caplog.at_level(logging.INFO):
        log_precision(Precision(reason="so", slow=slow), logging.getLogger("any"))
    assert [(r.levelname, r.message) for r in caplog.records] == [(level, "precision float32, contiguous maps: so")]


@pytest.mark.parametrize(
    "kd, without_kd, output_dir, expected",
    [
        (True, True, None, "root/output/group/file/tag/plain"),
        (True, False, None, "root/output/group/file/tag"),
        (False, True, None, "root/output/group/file/tag"),
        (True, True, "given", "given"),
    ],
)
def test_only_a_control_of_a_distillation_without_a_given_folder_has_the_folder_plain(
    kd, without_kd, output_dir, expected
):
    cfg = EasyDict(ROOT_DIR="root", EXP_GROUP_PATH="group", TAG="file", **({"KD": {"LOSSES": []}} if kd else {}))
    args = Namespace(extra_tag="tag", output_dir=output_dir)
    assert output_folder(args, cfg, without_kd) == Path(expected)


@pytest.mark.parametrize(
    "older, flags, files, named",
    [
        ({"model_state": {}}, {}, [], True),
        ({"model_state": {}, "kd_state": {}}, {}, [], False),  # the distilled student, which belongs there
        ({"model_state": {}}, {}, ["plain/ckpt/latest_model.pth"], False),
        ({"model_state": {}}, {"ckpt": "given.pth"}, [], False),
        (None, {}, [], False),
    ],
)
def test_a_control_that_lies_where_it_used_to_is_named_unless_the_run_goes_on_elsewhere(
    tmp_path, caplog, older, flags, files, named
):
    for name in ("ckpt", "plain/ckpt"):
        (tmp_path / name).mkdir(parents=True)
    if older is not None:
        torch.save({"epoch": 4, **older}, tmp_path / "ckpt/checkpoint_epoch_4.pth")
    for name in files:
        (tmp_path / name).touch()
    args = Namespace(**{"cfg_file": "f.yaml", "ckpt": None, "output_dir": None, **flags})
    session = SimpleNamespace(args=args, output_dir=tmp_path / "plain", logger=logging.getLogger("control"))
    with caplog.at_level(logging.INFO):
        train.tell_of_kd(session)
    assert f"train.py trains the student alone, in {tmp_path / 'plain'}" in caplog.text
    assert (f"{tmp_path / 'ckpt/checkpoint_epoch_4.pth'} is of a training without a teacher" in caplog.text) is named
    assert (f"give --output_dir {tmp_path}," in caplog.text) is named


@pytest.fixture
def said_at_the_end(monkeypatch):
    """What a command ends with, by its body."""
    monkeypatch.setattr("faulthandler.enable", lambda: None)  # needs a real standard error

    def end(body):
        with pytest.raises(SystemExit) as stop:
            run(body)
        return stop.value.code

    return end


def test_a_folder_that_is_held_is_told_in_one_line_with_its_holder(said_at_the_end, tmp_path):
    with FolderLock(tmp_path / "out", advice=""):
        text = said_at_the_end(lambda: FolderLock(tmp_path / "out", advice="wait for it"))
    assert text.startswith(f"FolderInUseError: {tmp_path / 'out'} is written to by process {os.getpid()} on ")
    assert text.endswith("; wait for it") and "\n" not in text


def test_what_cannot_be_written_is_told_in_one_line(said_at_the_end):
    def main():
        raise WriteError("a.pth cannot be written: No space left on device")

    assert said_at_the_end(main) == "WriteError: a.pth cannot be written: No space left on device"


def test_a_device_that_the_ops_are_not_built_for_is_told_in_one_line(said_at_the_end):
    text = said_at_the_end(lambda: place(torch.nn.Linear(1, 1), torch.device("xpu", 0)))
    assert text.startswith("NoKernelError: the model runs on xpu:0, ") and "\n" not in text


def hooks_of(tmp_path, *flags):
    """The hooks of a training with some flags, and the class that makes its record's stand-in best."""
    args = train.parse_args(["--cfg_file", "x.yaml", *flags])
    session = SimpleNamespace(
        args=args, cfg=EasyDict(), dist=SimpleNamespace(is_main=True), output_dir=tmp_path,
        logger=logging.getLogger("control"),
    )  # fmt: skip
    best = keep_best(session, RunRecord(tmp_path / "run.json", {}), object())  # no METRICS: KITTI's
    evaluation = SimpleNamespace(of_current_weights=None, mark=None, evaluated=None, best=best)
    return training_hooks(session, SimpleNamespace(it=0), None, evaluation), best


def test_checkpoints_are_saved_before_any_other_hook_acts(tmp_path):
    found, best = hooks_of(tmp_path)
    assert [type(hook).__name__ for hook in found] == ["Checkpoint", "Logging", "RecordTimes", "Evaluate"]
    assert best is None


@pytest.mark.parametrize("flags", [["--eval_interval", "1"], ["--best_metric", "ap"]])
def test_the_best_is_kept_where_training_evaluates_on_the_way_or_a_metric_is_named(tmp_path, flags):
    found, best = hooks_of(tmp_path, *flags)
    assert found[-1].best is best and best.path == tmp_path / "ckpt/checkpoint_best.pth"


def test_a_seed_that_no_generator_takes_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr("faulthandler.enable", lambda: None)  # needs a real standard error
    with pytest.raises(SystemExit) as stop:
        train.main(["--cfg_file", "x.yaml", "--seed", "-1"])
    assert stop.value.code == "ConfigError: --seed must be a whole number from 0 to 4294967295, got '-1'"


def session_in(folder):
    """A session of one process that writes to a folder."""
    return Session(
        Namespace(), {}, None, SimpleNamespace(is_main=True, rank=0, distributed=False), "cpu", None, 1, folder
    )


def test_a_run_removes_what_killed_ones_left_in_its_folder_but_not_where_another_run_writes(tmp_path):
    name, other = "a.partial-1-0a1b2c3d", tmp_path / "eval/epoch_1/val/default"
    own = [tmp_path, tmp_path / "ckpt", tmp_path / "eval/eval_with_train/epoch_1/val"]
    for folder in (*own, other):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    session = session_in(tmp_path)
    with FolderLock(other, advice=""), session.hold(tmp_path, "wait"):
        assert sorted(session.removed) == sorted(folder / name for folder in own)
    assert (other / name).exists()


def test_a_log_that_cannot_be_opened_is_named_with_the_reason(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="file cannot be written: .*; make room, or give --output_dir"):
        session_in(tmp_path).start_log(tmp_path / "file" / "train.log")


def test_a_configuration_that_cannot_be_copied_is_named_and_the_old_copy_stays(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("A: 1\n")
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.yaml").write_text("A: 0\n")
    session = SimpleNamespace(
        output_dir=out, logger=None, start_log=lambda file: None, args=Namespace(cfg_file=str(tmp_path / "mine.yaml"))
    )

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pcdet.utils.safe_files.os.fsync", full)
    with pytest.raises(WriteError, match="out/mine.yaml cannot be written: No space left on device; make room"):
        train.start(session)
    assert (out / "mine.yaml").read_text() == "A: 0\n"


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--ckpt", "a.pth"], "the same command without --ckpt"),
        (["--ckpt=a.pth"], "the same command without --ckpt"),
        (["--ckpt_save_interval", "2"], "the same command"),
    ],
)
def test_a_stopped_training_says_which_command_goes_on(flags, said):
    assert how_to_go_on(["train.py", *flags]) == said
