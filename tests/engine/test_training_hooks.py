"""The hooks of a training: log lines, scalars, checkpoint files, and the end of augmentation."""

import logging
import re

import pytest
import torch
from support.toy import make_loader
from support.trainers import StopAt, assert_same, make_trainer, weights

from pcdet.engine.checkpoint import read_checkpoint
from pcdet.engine.hooks import Checkpoint, EndAugmentation, Evaluate, Hook, Logging
from pcdet.engine.runtime import seed_process
from pcdet.engine.trainer import Interrupted
from pcdet.registry import ConfigError


def test_evaluating_in_between_does_not_change_the_training():
    straight, evaluated, calls = make_trainer(epochs=3), make_trainer(epochs=3), []

    def evaluate(epoch):
        calls.append(epoch)
        evaluated.model.eval()
        torch.rand(100)

    evaluated.hooks = [Evaluate(evaluate, 1)]
    straight.run()
    seed_process(0)
    evaluated = make_trainer([Evaluate(evaluate, 1)], epochs=3)
    evaluated.run()
    assert calls == [1, 2]  # the last epoch is left to the final evaluation
    assert_same(weights(straight), weights(evaluated))


def test_augmentation_ends_before_the_workers_of_the_last_epochs_start(tmp_path):
    seen = []

    class Watch(Hook):
        def before_epoch(self, trainer):
            seen.append(trainer.loader.dataset.disabled)

    make_trainer([EndAugmentation(["gt_sampling"], 2), Watch()], epochs=4, loader=make_loader(4)).run()
    assert seen == [None, None, ["gt_sampling"], ["gt_sampling"]]
    with pytest.raises(ConfigError, match="merge_all_iters_to_one_epoch"):
        make_trainer([EndAugmentation(["gt_sampling"], 2)], merged=True).run()


class Writer:
    def __init__(self):
        self.scalars = []

    def add_scalar(self, *scalar):
        self.scalars.append(scalar)

    def flush(self):
        pass


def test_log_lines_and_scalars_have_openpcdets_form(caplog):
    writer = Writer()
    with caplog.at_level(logging.INFO, "pcdet"):
        make_trainer([Logging(logging.getLogger("pcdet"), writer, interval=3)]).run()
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Train:")]
    assert len(lines) == 6  # iterations 1, 4, 5, 6, 7, 10
    number = r"\d+\.\d+"
    for line in lines:
        assert re.fullmatch(
            rf"Train: +\d/2 \( *\d+%\) \[ *\d/5 \( *\d+%\)\]  Loss: [\d.]+ \([\d.]+\)  LR: \d\.\d{{3}}e-\d\d  "
            rf"Time cost: [\d:]+/[\d:]+ \[[\d:]+/[\d:]+\]  Acc_iter \d+ +Data time: {number}\({number}\)  "
            rf"Forward time: {number}\({number}\)  Batch time: {number}\({number}\)",
            line,
        ), line
    assert {key for key, *_ in writer.scalars} == {
        "train/loss",
        "meta_data/learning_rate",
        "train/rpn_loss",
        "train/pos",
    }
    assert [it for key, _, it in writer.scalars if key == "train/loss"] == list(range(1, 11))


def test_a_progress_bar_can_take_the_place_of_the_lines(caplog, capsys):
    with caplog.at_level(logging.INFO, "pcdet"):
        make_trainer([Logging(logging.getLogger("pcdet"), progress_bar=True)]).run()
    assert "Train:" not in caplog.text and "10/10" in capsys.readouterr().err


def test_epoch_files_come_at_the_interval_and_after_the_last_and_old_ones_go(tmp_path):
    make_trainer([Checkpoint(tmp_path, interval=2, max_num=2)], epochs=7, loader=make_loader(4)).run()
    kept = ["checkpoint_epoch_6.pth", "checkpoint_epoch_7.pth"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [n for name in kept for n in (name, f"{name}.sha256")]


def test_a_training_that_begins_earlier_than_latest_model_puts_it_aside_and_one_that_goes_on_from_it_does_not(
    tmp_path, caplog
):
    with pytest.raises(Interrupted):
        make_trainer([Checkpoint(tmp_path), StopAt(7)], epochs=2).run()
    for start, aside in (("latest_model.pth", False), ("checkpoint_epoch_1.pth", True)):
        trainer = make_trainer(epochs=2)
        trainer.load_state_dict(read_checkpoint(tmp_path / start))
        Checkpoint(tmp_path).before_train(trainer)
        assert (tmp_path / "latest_model-old1.pth").is_file() == aside
        assert (tmp_path / "latest_model.pth").is_file() != aside
    assert "stands at epoch 1, iteration 7, later than the epoch 1, iteration 5" in caplog.text


def test_latest_model_is_written_by_the_clock(tmp_path):
    make_trainer([Checkpoint(tmp_path, interval=9, time_interval=0)], epochs=1).run()
    assert sorted(p.name for p in tmp_path.glob("*.pth")) == ["checkpoint_epoch_1.pth", "latest_model.pth"]
    assert read_checkpoint(tmp_path / "latest_model.pth")["it"] == 5
