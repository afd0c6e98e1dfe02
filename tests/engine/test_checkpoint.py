"""Checkpoint files: what is in them, what reads them, and what happens to damaged ones."""

import contextlib
import errno
import logging
import os
import pickle

import numpy as np
import pytest
import torch
from support.toy import OPTIMIZATION, ToyDistiller, ToyModel
from support.trainers import StopAt, make_trainer
from torch import nn

from pcdet.engine.checkpoint import checkpoint_state, load_checkpoint, save_checkpoint
from pcdet.engine.hooks import Checkpoint, Hook
from pcdet.engine.optim import build_optimizer, build_scheduler
from pcdet.models.kd.training_state import OtherLossesError, check_kind
from pcdet.utils import safe_files
from pcdet.utils.checkpoint_reader import CheckpointError, read_checkpoint
from pcdet.utils.safe_files import WriteError


def trained(model, steps=2, node=OPTIMIZATION):
    """The model with its optimizer after a few steps."""
    optimizer = build_optimizer(model, node)
    scheduler = build_scheduler(optimizer, 10, 2, -1, node)
    for it in range(steps):
        scheduler.step(it)
        optimizer.zero_grad()
        model({"points": torch.ones(3, 4) * it + torch.arange(3)[:, None]})[0]["loss"].backward()
        optimizer.step()
    return model, optimizer, scheduler


def test_a_checkpoint_has_openpcdets_keys_and_loads_with_weights_only(tmp_path):
    model, optimizer, scheduler = trained(ToyModel())
    path = save_checkpoint(checkpoint_state(model, optimizer, 3, 30, scheduler=scheduler, seed=5), tmp_path / "a")
    assert path == tmp_path / "a.pth" and sorted(os.listdir(tmp_path)) == ["a.pth", "a.pth.sha256"]
    state = torch.load(path, weights_only=True)
    assert {"epoch", "it", "model_state", "optimizer_state", "version"} <= set(state)
    assert (state["epoch"], state["it"], state["seed"]) == (3, 30, 5)
    assert state["version"].startswith("pcdet+")
    assert state["model_state"].keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", ["adam_onecycle", "adam_cosineanneal", "adam", "sgd"])
def test_the_optimizer_goes_on_as_if_nothing_had_happened(tmp_path, name):
    node = {**OPTIMIZATION, "OPTIMIZER": name}
    torch.manual_seed(0)
    model, optimizer, _ = trained(ToyModel(), node=node)
    path = save_checkpoint(checkpoint_state(model, optimizer, 0, 2), tmp_path / "a")
    other = ToyModel()
    other_optimizer = build_optimizer(other, node)
    assert load_checkpoint(path, other, other_optimizer) == (0, 2)
    for m, o in ((model, optimizer), (other, other_optimizer)):
        torch.manual_seed(1)
        build_scheduler(o, 10, 2, -1, node).step(2)
        o.zero_grad()
        m({"points": torch.randn(3, 4)})[0]["loss"].backward()
        o.step()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_distillers_checkpoint_is_a_plain_detectors_with_kd_state_beside_it(tmp_path):
    distiller, optimizer, _ = trained(ToyDistiller())
    path = save_checkpoint(checkpoint_state(distiller, optimizer, 1, 2), tmp_path / "a")
    plain = ToyModel()
    load_checkpoint(path, plain)
    assert torch.equal(plain.head.weight, distiller.student.head.weight)
    state = read_checkpoint(path)
    assert set(state["kd_state"]) == {"adapter.weight", "adapter.bias"}
    again = ToyDistiller()
    load_checkpoint(state, again, build_optimizer(again, OPTIMIZATION))
    assert torch.equal(again.adapter.weight, distiller.adapter.weight)


@pytest.mark.parametrize("adapter", [True, False])
def test_a_control_does_not_go_on_from_a_distillation_nor_the_other_way_round(adapter):
    """Without adapters the tensors of both are the same, and only ``kd_state``, though empty, tells them apart."""
    distiller, optimizer, _ = trained(ToyDistiller(adapter))
    distilled = checkpoint_state(distiller, optimizer, 1, 2)
    assert bool(distilled["kd_state"]) == adapter
    with pytest.raises(CheckpointError) as caught:
        check_kind(distilled, "kd.pth", distilled=False)
    said = str(caught.value)
    assert said.startswith("kd.pth is of a distillation, this is a training without a teacher, which cannot go on from")
    assert "--extra_tag or --output_dir" in said and "--pretrained_model" in said

    control, optimizer, _ = trained(ToyModel())
    again, state = ToyDistiller(adapter), checkpoint_state(control, optimizer, 1, 2)
    with pytest.raises(CheckpointError, match="^a.pth is of a training without a teacher, this is a distillation, "):
        load_checkpoint(state, again, build_optimizer(again, OPTIMIZATION), name="a.pth")


def test_a_distillation_with_other_losses_says_so_and_keeps_what_they_owned():
    distiller, optimizer, _ = trained(ToyDistiller())
    state = checkpoint_state(distiller, optimizer, 1, 2)
    other = ToyDistiller(adapter=False)
    with pytest.raises(OtherLossesError, match="^a.pth was distilled with other losses") as caught:
        load_checkpoint(state, other, build_optimizer(other, OPTIMIZATION), name="a.pth")
    assert set(caught.value.kd_state) == {"adapter.weight", "adapter.bias"}
    state["model_state"].pop("head.weight")  # then it is no matter of losses
    with pytest.raises(CheckpointError, match="^a.pth does not fit the model"):
        load_checkpoint(state, other, build_optimizer(other, OPTIMIZATION), name="a.pth")


def test_going_on_with_another_teacher_is_warned_of(caplog):
    teacher, other, logger = ToyModel(), ToyModel(), logging.getLogger("toy")
    distiller, optimizer, _ = trained(ToyDistiller(teacher=teacher))
    state = checkpoint_state(distiller, optimizer, 1, 2)
    teacher.norm.running_mean += 1  # a teacher in training mode: no other weights
    for wanted, given in ((0, teacher), (1, other)):
        again = ToyDistiller(teacher=given)
        load_checkpoint(state, again, build_optimizer(again, OPTIMIZATION), name="a.pth", logger=logger)
        warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert len(warned) == wanted
    assert warned[0].startswith("a.pth was distilled from a teacher with other weights")
    state.pop("teacher_fingerprint")  # as older files are
    load_checkpoint(state, again, build_optimizer(again, OPTIMIZATION), logger=logger)
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1


def openpcdet_style(model, optimizer):
    """A state as OpenPCDet leaves it: numpy scalars in the groups, no decay in Adam itself, none of our keys."""
    state = {"epoch": 2, "it": 20, "model_state": model.state_dict(), "optimizer_state": optimizer.state_dict()}
    for group in state["optimizer_state"]["param_groups"]:
        group.update(lr=np.float64(0.5), betas=(np.float64(0.9), 0.99), weight_decay=0)
    return {**state, "version": "pcdet+0.6.0"}


@pytest.mark.parametrize("legacy", [False, True])
def test_openpcdets_checkpoints_with_numpy_scalars_are_read(tmp_path, legacy):
    model, optimizer, _ = trained(ToyModel())
    torch.save(openpcdet_style(model, optimizer), tmp_path / "old.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "old.pth", weights_only=True)
    state = read_checkpoint(tmp_path / "old.pth")
    assert state["optimizer_state"]["param_groups"][0]["lr"] == 0.5
    other = ToyModel()
    other_optimizer = build_optimizer(other, OPTIMIZATION)
    assert load_checkpoint(state, other, other_optimizer) == (2, 20)
    assert other_optimizer.param_groups[0]["weight_decay"] == OPTIMIZATION["WEIGHT_DECAY"]
    assert type(other_optimizer.param_groups[0]["lr"]) is float


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"model_state": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="evil.pth"):
        read_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("cut", [0, 10, 500])
def test_a_damaged_checkpoint_is_an_error_that_names_it(tmp_path, cut):
    whole = save_checkpoint(checkpoint_state(ToyModel()), tmp_path / "whole").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[:cut])
    with pytest.raises(CheckpointError, match=rf"cut.pth \({cut} bytes\) cannot be read"):
        read_checkpoint(tmp_path / "cut.pth")


def test_files_that_are_no_checkpoints_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.pth"):
        read_checkpoint(tmp_path / "none.pth")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="must hold a dictionary, got list"):
        read_checkpoint(tmp_path / "list.pth")
    torch.save({"epoch": 1}, tmp_path / "empty.pth")
    with pytest.raises(CheckpointError, match="has no model_state; it holds epoch"):
        load_checkpoint(tmp_path / "empty.pth", ToyModel())


def test_a_state_that_does_not_fit_is_an_error(tmp_path):
    model, optimizer, _ = trained(ToyModel())
    state = checkpoint_state(model, optimizer, 0, 2)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        load_checkpoint(state, nn.Linear(2, 2), name="x.pth")
    with pytest.raises(CheckpointError, match="x.pth has no optimizer_state"):
        load_checkpoint(checkpoint_state(model), model, optimizer, name="x.pth")
    with pytest.raises(CheckpointError, match=r"groups of \[4, 2\] tensors, the model has \[6\]"):
        load_checkpoint(state, model, build_optimizer(model, {**OPTIMIZATION, "OPTIMIZER": "adam"}), name="x.pth")


@pytest.mark.parametrize(
    "key, value",
    [
        ("optimizer_state", {}),
        ("optimizer_state", [1, 2]),
        ("optimizer_state", {"state": [], "param_groups": []}),
        ("optimizer_state", {"state": {0: 5}, "param_groups": []}),
        ("optimizer_state", {"state": {}, "param_groups": None}),
        ("optimizer_state", {"state": {}, "param_groups": [{"lr": 1}]}),
        ("epoch", "best"),
        ("it", -1),
        ("iters_per_epoch", "many"),
        ("seed", "x"),
        ("model_state", [torch.ones(1)]),
        ("model_state", {"linear.weight": "none"}),
        ("scheduler_state", {"other": 1}),
        ("scheduler_state", {"last_iter": "x"}),
        ("rng_state", {"python": 1}),
        ("rng_state", [1]),
    ],
)
def test_a_foreign_or_damaged_entry_is_named_with_its_file(key, value):
    trainer = make_trainer()
    with pytest.raises(CheckpointError, match=f"^x.pth: {key} (must be|cannot be taken over)"):
        trainer.load_state_dict({**trainer.state_dict(), key: value}, "x.pth")


class FailsAt:
    """A stream on which the disk is full after so many bytes."""

    def __init__(self, stream, limit):
        self.stream, self.limit = stream, limit

    def write(self, data):
        self.limit -= len(data)
        if self.limit < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.stream.write(data)

    def __getattr__(self, name):
        return getattr(self.stream, name)


@pytest.fixture
def disk_full_after(monkeypatch):
    """Makes every file that is written whole fail after so many bytes; None: room again."""
    replacing = safe_files.replacing
    room = {"bytes": None}

    @contextlib.contextmanager
    def limited(path, **options):
        with replacing(path, **options) as stream:
            yield stream if room["bytes"] is None else FailsAt(stream, room["bytes"])

    monkeypatch.setattr(safe_files, "replacing", limited)
    return lambda limit: room.update(bytes=limit)


@pytest.mark.parametrize("limit", [0, 100, 3000])
def test_a_full_disk_is_told_and_leaves_the_file_that_was_there(tmp_path, disk_full_after, limit):
    before = save_checkpoint(checkpoint_state(ToyModel(), epoch=1), tmp_path / "a").read_bytes()
    disk_full_after(limit)
    with pytest.raises(WriteError, match="a.pth cannot be written: No space left on device; what was there before is"):
        save_checkpoint(checkpoint_state(ToyModel(), epoch=2), tmp_path / "a")
    assert (tmp_path / "a.pth").read_bytes() == before and read_checkpoint(tmp_path / "a.pth")["epoch"] == 1
    assert sorted(os.listdir(tmp_path)) == ["a.pth", "a.pth.sha256"]


def test_a_training_on_a_full_disk_goes_on_and_its_end_or_its_interrupt_is_an_error(tmp_path, disk_full_after, caplog):
    class Room(Hook):
        """Fills the disk after the first epoch."""

        def before_epoch(self, trainer):
            disk_full_after(100 if trainer.epoch == 1 else None)

    make_trainer([Checkpoint(tmp_path), Room()], epochs=3).run()
    assert [n for n in (1, 2, 3) if (tmp_path / f"checkpoint_epoch_{n}.pth").is_file()] == [1, 3]
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warned) == 1 and "checkpoint_epoch_2.pth cannot be written: No space" in warned[0]
    disk_full_after(100)
    with pytest.raises(WriteError, match="checkpoint_epoch_1.pth cannot be written"):
        make_trainer([Checkpoint(tmp_path / "end")], epochs=1).run()
    with pytest.raises(WriteError, match="latest_model.pth cannot be written"):
        make_trainer([Checkpoint(tmp_path / "stopped"), StopAt(2)], epochs=1).run()


def test_an_optimizers_absence_is_told_before_the_kind_of_training():
    """As of weights that were exported: they are of no training at all."""
    again = ToyDistiller()
    with pytest.raises(CheckpointError, match="^w.safetensors has no optimizer_state, .* use --pretrained_model"):
        load_checkpoint({"model_state": {}}, again, build_optimizer(again, OPTIMIZATION), name="w.safetensors")
