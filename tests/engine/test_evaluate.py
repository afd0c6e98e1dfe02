"""Evaluation of one set of weights, and of a folder of checkpoints."""

import errno
import logging
import pickle
import time

import numpy as np
import pytest
import torch
from support.toy import ToyDataset, ToyModel, make_loader
from torch.utils.data import DataLoader

from pcdet.engine.checkpoint import checkpoint_state, save_checkpoint
from pcdet.engine.checkpoint_evaluation import evaluated_epochs, forget_evaluations, mark_evaluated, repeat_eval_ckpt
from pcdet.engine.evaluate import EvalSettings, eval_one_epoch
from pcdet.engine.precision import Precision
from pcdet.registry import ConfigError
from pcdet.utils.checkpoint_reader import CheckpointError, read_checkpoint
from pcdet.utils.safe_files import WriteError
from pcdet.utils.weights import MisfitError

SETTINGS = EvalSettings(class_names=["Car"], recall_thresholds=[0.3], progress=False)


def test_every_frame_is_in_the_result_once_and_in_order(tmp_path, caplog):
    loader = make_loader(5)  # shuffled, and its last batch would be dropped
    with caplog.at_level(logging.INFO, "pcdet"):
        result = eval_one_epoch(ToyModel(), loader, SETTINGS, epoch_id=7, result_dir=tmp_path)
    annos = pickle.loads((tmp_path / "result.pkl").read_bytes())
    assert [anno["frame_id"] for anno in annos] == [f"{i:06d}" for i in range(5)]
    assert result == {
        "recall/roi_0.3": 0.0,
        "recall/rcnn_0.3": 0.5,
        "Car_3d/moderate_R40": pytest.approx(np.mean([anno["score"][0] for anno in annos])),
    }
    assert [r.getMessage().split(":")[0] for r in caplog.records] == [
        "*************** EPOCH 7 EVALUATION *****************",
        "*************** Performance of EPOCH 7 *****************",
        "Generate label finished(sec_per_example",
        "recall_roi_0.3",
        "recall_rcnn_0.3",
        "Average predicted number of objects(5 samples)",
        "Car AP",
        f"Result is saved to {tmp_path}",
        "****************Evaluation done.*****************",
    ]
    assert "recall_rcnn_0.3: 0.500000" in caplog.text and "(5 samples): 1.000" in caplog.text


def test_training_mode_is_given_back(tmp_path):
    model = ToyModel().train()
    eval_one_epoch(model, make_loader(2), SETTINGS, epoch_id=1, result_dir=tmp_path)
    assert model.training


def test_text_files_times_and_mixed_precision_on_request(tmp_path, caplog):
    settings = EvalSettings(
        class_names=["Car"], save_to_file=True, infer_time=True, precision=Precision("cpu", torch.bfloat16)
    )
    with caplog.at_level(logging.INFO, "pcdet"):
        eval_one_epoch(ToyModel(), make_loader(4), settings, epoch_id=1, result_dir=tmp_path)
    assert len(list((tmp_path / "final_result/data").glob("*.txt"))) == 4
    assert "ms a batch, 2 batches" in caplog.text


def test_seconds_per_example_do_not_depend_on_infer_time(tmp_path, caplog):
    class Slow(ToyModel):
        def forward(self, batch_dict):
            time.sleep(0.05)
            return super().forward(batch_dict)

    settings = EvalSettings(class_names=["Car"], infer_time=True, progress=False)
    with caplog.at_level(logging.INFO, "pcdet"):
        eval_one_epoch(Slow(), make_loader(8, batch_size=2), settings, epoch_id=1, result_dir=tmp_path)
    seconds = float(caplog.text.split("sec_per_example: ")[1].split()[0])
    assert 0.025 <= seconds < 0.2


def test_a_split_without_labels_is_said_to_be_one(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(ToyDataset, "evaluation", lambda *args, **kwargs: (None, {}))
    with caplog.at_level(logging.INFO, "pcdet"):
        result = eval_one_epoch(ToyModel(), make_loader(2), SETTINGS, epoch_id=1, result_dir=tmp_path)
    assert set(result) == {"recall/roi_0.3", "recall/rcnn_0.3"} and "The split has no labels" in caplog.text


def test_an_empty_data_set_gives_an_empty_result(tmp_path, caplog):
    dataset = ToyDataset(0)
    loader = DataLoader(dataset, batch_size=2, sampler=[], collate_fn=dataset.collate)
    assert eval_one_epoch(ToyModel(), loader, SETTINGS, epoch_id=1, result_dir=tmp_path) == {}
    assert pickle.loads((tmp_path / "result.pkl").read_bytes()) == []
    assert "no samples" in caplog.text


def test_settings_come_from_a_model_file():
    cfg = {"CLASS_NAMES": ["Car"], "MODEL": {"POST_PROCESSING": {"RECALL_THRESH_LIST": [0.5], "EVAL_METRIC": "own"}}}
    settings = EvalSettings.from_cfg(cfg, save_to_file=True)
    assert (settings.recall_thresholds, settings.eval_metric, settings.save_to_file) == ([0.5], "own", True)
    assert EvalSettings.from_cfg({"CLASS_NAMES": ["Car"], "MODEL": {}}).eval_metric == "kitti"


class Writer(list):
    def add_scalar(self, *scalar):
        self.append(scalar)


def folder_with_epochs(path, *epochs):
    path.mkdir(exist_ok=True)
    for epoch in epochs:
        save_checkpoint(checkpoint_state(epoch=epoch), path / f"checkpoint_epoch_{epoch}")
    save_checkpoint({}, path / "latest_model")


def test_all_checkpoints_are_evaluated_once_in_order_of_epochs(tmp_path, caplog):
    folder_with_epochs(tmp_path / "ckpt", 10, 9, 1)
    calls, writer = [], Writer()

    def evaluate(ckpt, epoch, result_dir):
        calls.append((ckpt.name, epoch, result_dir.relative_to(tmp_path).as_posix()))
        return {"ap": float(epoch)}

    def run():
        return repeat_eval_ckpt(
            read_checkpoint, evaluate, tmp_path / "ckpt", tmp_path / "eval", split="val", start_epoch=2, tb_log=writer
        )

    assert run() == {9: {"ap": 9.0}, 10: {"ap": 10.0}}
    assert calls == [
        ("checkpoint_epoch_9.pth", 9, "eval/epoch_9/val"),
        ("checkpoint_epoch_10.pth", 10, "eval/epoch_10/val"),
    ]
    assert writer == [("ap", 9.0, 9), ("ap", 10.0, 10)]
    assert (tmp_path / "eval/eval_list_val.txt").read_text() == "9\n10\n"
    with caplog.at_level(logging.INFO, "pcdet"):
        started = time.monotonic()
        assert run() == {}  # OpenPCDet would wait for ever here
    assert time.monotonic() - started < 5
    assert "Nothing left to evaluate: all 2 checkpoints" in caplog.text and "delete that file" in caplog.text


def test_an_empty_folder_says_what_is_missing(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "pcdet"):
        assert repeat_eval_ckpt(read_checkpoint, None, tmp_path, tmp_path / "eval", split="val", start_epoch=3) == {}
    assert "Nothing to evaluate: no checkpoint_epoch_<N>.pth with N >= 3" in caplog.text


def test_waiting_finds_a_late_checkpoint_and_ends(tmp_path, caplog):
    folder_with_epochs(tmp_path / "ckpt", 1)
    sleeps = []

    def evaluate(ckpt, epoch, result_dir):
        if epoch == 1:
            folder_with_epochs(tmp_path / "ckpt", 2)
        sleeps.append(epoch)
        return {}

    started = time.monotonic()
    with caplog.at_level(logging.INFO, "pcdet"):
        repeat_eval_ckpt(
            read_checkpoint,
            evaluate,
            tmp_path / "ckpt",
            tmp_path / "eval",
            split="val",
            max_waiting_mins=0.005,
            wait_seconds=0.1,
        )
    assert sleeps == [1, 2] and 0.3 <= time.monotonic() - started < 5
    assert "for next check (progress: 0.0 / 0.005 minutes)" in caplog.text


def test_evaluated_epochs_are_read_as_openpcdet_writes_them(tmp_path):
    (tmp_path / "eval_list_val.txt").write_text("80\n79.0\n")
    mark_evaluated(tmp_path, "val", 3)
    assert evaluated_epochs(tmp_path / "eval_list_val.txt") == {80, 79, 3}
    assert evaluated_epochs(tmp_path / "none.txt") == set()


@pytest.mark.parametrize("text", ["80\nx1\n", "inf", "nan", "\x00"])
def test_a_list_of_epochs_that_holds_something_else_is_named(tmp_path, text):
    (tmp_path / "eval_list_val.txt").write_text(text)
    with pytest.raises(ConfigError, match="eval_list_val.txt must hold the number of an epoch a line .* or delete it"):
        evaluated_epochs(tmp_path / "eval_list_val.txt")


def test_epochs_that_are_trained_anew_are_evaluated_anew_and_lists_of_other_folders_stay(tmp_path):
    own, other = tmp_path / "eval_with_train", tmp_path / "eval_with_train/of_a_running_test"
    for folder, split in ((own, "val"), (own, "test"), (other, "val")):
        for epoch in (1, 2, 3):
            mark_evaluated(folder, split, epoch)
    forget_evaluations(own, 2)
    assert [(own / f"eval_list_{split}.txt").read_text() for split in ("val", "test")] == ["1\n2\n"] * 2
    assert (other / "eval_list_val.txt").read_text() == "1\n2\n3\n"
    forget_evaluations(tmp_path / "none", 0)


def test_a_list_that_cannot_be_written_is_named_and_stays_as_it_was(tmp_path, monkeypatch):
    (tmp_path / "eval_list_val.txt").write_text("79")  # without a line's end

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pcdet.utils.safe_files.os.fsync", full)
        with pytest.raises(WriteError, match="eval_list_val.txt cannot be written: No space left on device; make room"):
            mark_evaluated(tmp_path, "val", 80)
    assert (tmp_path / "eval_list_val.txt").read_text() == "79"
    mark_evaluated(tmp_path, "val", 80)
    assert (tmp_path / "eval_list_val.txt").read_text() == "79\n80\n"


def test_a_checkpoint_that_is_deleted_before_it_is_read_is_skipped_but_no_other_missing_file(tmp_path, caplog):
    folder_with_epochs(tmp_path / "ckpt", 1, 2)

    def load(ckpt):
        if ckpt.stem.endswith("1"):
            ckpt.unlink()
        read_checkpoint(ckpt)

    done = repeat_eval_ckpt(load, lambda *_: {}, tmp_path / "ckpt", tmp_path / "eval", split="val")
    assert (
        list(done) == [2]
        and "epoch 1 is skipped" in caplog.text
        and "checkpoint_epoch_1.pth was deleted" in caplog.text
    )

    def lacks_other(ckpt):
        raise FileNotFoundError("pretrained.pth does not exist")

    with pytest.raises(FileNotFoundError, match="pretrained.pth"):
        repeat_eval_ckpt(lacks_other, None, tmp_path / "ckpt", tmp_path / "other", split="val")


def test_a_damaged_checkpoint_keeps_no_other_from_being_evaluated_and_is_told_at_the_end(tmp_path):
    folder_with_epochs(tmp_path / "ckpt", 1, 2, 3)
    (tmp_path / "ckpt/checkpoint_epoch_2.pth").write_bytes(b"cut short")
    done = []

    def evaluate(ckpt, epoch, result_dir):
        done.append(epoch)
        return {}

    with pytest.raises(CheckpointError, match="(?s)^1 of 3 checkpoints were not evaluated:.*checkpoint_epoch_2.pth"):
        repeat_eval_ckpt(read_checkpoint, evaluate, tmp_path / "ckpt", tmp_path / "eval", split="val")
    assert done == [1, 3] and evaluated_epochs(tmp_path / "eval/eval_list_val.txt") == {1, 3}


def test_weights_that_do_not_fit_end_the_evaluation_at_once(tmp_path):
    folder_with_epochs(tmp_path / "ckpt", 1, 2)
    calls = []

    def load(ckpt):
        calls.append(int(ckpt.stem[-1]))
        raise MisfitError("not for this model")

    with pytest.raises(MisfitError):
        repeat_eval_ckpt(load, None, tmp_path / "ckpt", tmp_path / "eval", split="val")
    assert calls == [1]


def test_checkpoints_of_later_epochs_than_the_trainings_are_not_its_results(tmp_path):
    folder_with_epochs(tmp_path / "ckpt", 4, 5, 10)
    results = repeat_eval_ckpt(
        read_checkpoint, lambda *_: {}, tmp_path / "ckpt", tmp_path / "eval", split="val", start_epoch=5, last_epoch=5
    )
    assert list(results) == [5]


def test_a_result_file_is_whole_or_the_old_one(tmp_path, monkeypatch):
    eval_one_epoch(ToyModel(), make_loader(2), SETTINGS, epoch_id=1, result_dir=tmp_path)
    before = (tmp_path / "result.pkl").read_bytes()

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("pcdet.utils.safe_files.os.fsync", full)
    with pytest.raises(WriteError, match="result.pkl cannot be written: No space left on device; make room"):
        eval_one_epoch(ToyModel(), make_loader(2), SETTINGS, epoch_id=1, result_dir=tmp_path)
    assert (tmp_path / "result.pkl").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["result.pkl"]


def test_results_name_no_module_that_numpy_1_lacks(tmp_path):
    eval_one_epoch(ToyModel(), make_loader(2), SETTINGS, epoch_id=1, result_dir=tmp_path)
    content = (tmp_path / "result.pkl").read_bytes()
    assert b"numpy._core" not in content and b"numpy.core.multiarray" in content
