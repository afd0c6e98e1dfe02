"""The training loop: order of events, resuming to the bit, stopping on request, mixed precision and distillers."""

import logging
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch
from support.toy import ToyDistiller, ToyModel, make_loader
from support.trainers import StopAt, assert_same, make_trainer, weights

from pcdet.engine.checkpoint import read_checkpoint
from pcdet.engine.hooks import Checkpoint, Hook
from pcdet.engine.loaders import remaining
from pcdet.engine.precision import Precision
from pcdet.engine.trainer import Interrupted, to_floats
from pcdet.registry import ConfigError
from pcdet.utils.cpu_features import Processor


class Events(Hook):
    def __init__(self):
        self.seen = []

    def before_train(self, trainer):
        self.seen.append("train")

    def before_epoch(self, trainer):
        self.seen.append(f"epoch {trainer.epoch}")

    def after_iteration(self, trainer):
        self.seen.append(trainer.it)

    def after_epoch(self, trainer):
        self.seen.append(f"done {trainer.epoch}")

    def after_train(self, trainer):
        self.seen.append("end")


def test_hooks_see_every_event_in_order():
    events = Events()
    make_trainer([events], loader=make_loader(4)).run()
    assert events.seen == ["train", "epoch 0", 1, 2, "done 1", "epoch 1", 3, 4, "done 2", "end"]


def test_training_lowers_the_loss_and_counts_global_steps():
    trainer = make_trainer(epochs=8)
    trainer.run()
    assert trainer.last.loss < 0.5 and trainer.it == 40 and trainer.epoch == 8
    assert trainer.model.global_step.item() == 40
    assert trainer.last.tb_dict.keys() == {"rpn_loss", "pos"} and trainer.last.grad_norm > 0


@pytest.mark.parametrize("optimizer", ["adam_onecycle", "sgd"])
@pytest.mark.parametrize("stop_at, workers", [(3, 0), (5, 0), (7, 1)])
def test_a_killed_and_resumed_training_ends_with_the_same_weights_to_the_bit(tmp_path, optimizer, stop_at, workers):
    straight = make_trainer(epochs=2, optimizer=optimizer)
    straight.run()
    killed = make_trainer(
        [Checkpoint(tmp_path), StopAt(stop_at)], optimizer=optimizer, loader=make_loader(10, workers=workers)
    )
    with pytest.raises(Interrupted, match="SIGTERM"):
        killed.run()
    state = read_checkpoint(tmp_path / "latest_model.pth")
    assert (state["epoch"], state["it"]) == (stop_at // 5 if stop_at % 5 else 0, stop_at)
    resumed = make_trainer(seed=99, optimizer=optimizer, loader=make_loader(10, workers=workers))
    resumed.load_state_dict(state)
    resumed.run()
    assert_same(weights(straight), weights(resumed))


def test_a_resume_at_an_epochs_end_is_exact_too(tmp_path):
    straight = make_trainer([Checkpoint(tmp_path)], epochs=3)
    straight.run()
    resumed = make_trainer(epochs=3, seed=5)
    resumed.load_state_dict(read_checkpoint(tmp_path / "checkpoint_epoch_1.pth"))
    resumed.run()
    assert_same(weights(straight), weights(resumed))


@pytest.mark.parametrize("stop_at", [None, 4, 5])
def test_merged_epochs_use_one_pass_of_the_loader_and_resume_exactly(tmp_path, stop_at):
    seen = []

    class Frames(ToyModel):
        def forward(self, batch_dict):
            seen.extend(batch_dict["frame_id"])
            return super().forward(batch_dict)

    hooks = [Checkpoint(tmp_path)] + ([StopAt(stop_at)] if stop_at else [])
    trainer = make_trainer(hooks, model=Frames, loader=make_loader(20), merged=True)
    assert trainer.iters_per_epoch == 5
    if stop_at:
        with pytest.raises(Interrupted):
            trainer.run()
        trainer = make_trainer(model=Frames, loader=make_loader(20), merged=True, seed=3)
        trainer.load_state_dict(read_checkpoint(tmp_path / "latest_model.pth"))
    trainer.run()
    assert sorted(seen) == [f"{i:06d}" for i in range(20)]
    straight = make_trainer(model=Frames, loader=make_loader(20), merged=True)
    straight.run()
    assert_same(weights(straight), weights(trainer))


def test_a_changed_epoch_length_starts_the_epoch_over_and_says_so(tmp_path, caplog):
    killed = make_trainer([Checkpoint(tmp_path), StopAt(7)])
    with pytest.raises(Interrupted):
        killed.run()
    resumed = make_trainer(loader=make_loader(6))
    with caplog.at_level(logging.WARNING, "pcdet"):
        resumed.load_state_dict(read_checkpoint(tmp_path / "latest_model.pth"), "latest_model.pth")
    assert "stands at iteration 7 of epochs of 5 iterations; epochs now have 3, so epoch 2 starts" in caplog.text
    assert (resumed.epoch, resumed.it) == (1, 3)


def test_a_signal_ends_the_iteration_saves_and_gives_the_handlers_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    trainer = make_trainer([Checkpoint(tmp_path), StopAt(2)])
    with pytest.raises(Interrupted) as stop:
        trainer.run()
    assert stop.value.signal_number == signal.SIGTERM and trainer.it == 2
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_control_c_saves_and_a_second_one_does_not_wait(tmp_path):
    class Impatient(Hook):
        def after_iteration(self, trainer):
            if trainer.it == 3:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)

    with pytest.raises(Interrupted, match="SIGINT"):
        make_trainer([Impatient(), Checkpoint(tmp_path)]).run()
    assert read_checkpoint(tmp_path / "latest_model.pth")["it"] == 3


def test_an_error_after_a_stop_request_still_saves_but_other_errors_pass_through(tmp_path):
    class Fails(Hook):
        def __init__(self, stop):
            self.stop = stop

        def before_epoch(self, trainer):
            if self.stop:
                trainer.request_stop()
            raise RuntimeError("a worker died")

    with pytest.raises(Interrupted):
        make_trainer([Checkpoint(tmp_path / "a"), Fails(stop=True)]).run()
    assert (tmp_path / "a/latest_model.pth").is_file()
    with pytest.raises(RuntimeError, match="a worker died"):
        make_trainer([Checkpoint(tmp_path / "b"), Fails(stop=False)]).run()
    assert not (tmp_path / "b/latest_model.pth").is_file()


def test_training_works_outside_the_main_thread():
    trainer = make_trainer(epochs=1)
    thread = threading.Thread(target=trainer.run)
    thread.start()
    thread.join()
    assert trainer.epoch == 1


def test_a_batch_that_the_model_cannot_take_is_named_by_its_frames():
    """A batch norm that gets one value a channel, as of a cloud with a single voxel."""
    trainer = make_trainer()
    batch = {"points": np.zeros((1, 4)), "frame_id": np.array(["000007"]), "batch_size": 1}
    message = r"Expected more than 1 value per channel .*\(epoch 1, iteration 0, frames: 000007\)"
    with pytest.raises(ValueError, match=message):
        trainer.train_step(batch)


def test_mixed_precision_on_a_cpu_with_bf16_is_bfloat16_and_still_trains():
    seen = []

    class Watched(ToyModel):
        def forward(self, batch_dict):
            seen.append(self.linear(batch_dict["points"].float()).dtype)
            return super().forward(batch_dict)

    processor = Processor("any", ("AVX512_BF16",))
    precision = Precision.choose(torch.device("cpu"), True, processor=processor)
    trainer = make_trainer(model=Watched, epochs=8, precision=precision)
    trainer.run()
    assert set(seen) == {torch.bfloat16} and trainer.last.loss < 0.7
    assert not trainer.scaler.is_enabled()
    assert trainer.model.linear.weight.dtype == torch.float32


@pytest.mark.gpu
def test_fp16_scaler_state_survives_a_resume(tmp_path, gpu):
    precision = Precision.choose(gpu, True, loss_scale=2.0**10)
    trainer = make_trainer([Checkpoint(tmp_path)], model=lambda: ToyModel().to(gpu), precision=precision)
    trainer.device = gpu
    trainer.run()
    trainer.scaler.update(512.0)
    state = trainer.state_dict()
    other = make_trainer(model=lambda: ToyModel().to(gpu), precision=precision)
    other.load_state_dict(state)
    assert other.scaler.get_scale() == 512.0


def test_a_distiller_is_told_the_epoch_and_saved_as_its_student(tmp_path):
    trainer = make_trainer([Checkpoint(tmp_path)], model=ToyDistiller)
    trainer.run()
    distiller = trainer.model
    assert distiller.epochs_seen == [(0, 2), (1, 2)]
    assert distiller.student.global_step.item() == 10
    state = read_checkpoint(tmp_path / "checkpoint_epoch_2.pth")
    assert state["model_state"].keys() == ToyModel().state_dict().keys()


def test_an_epoch_without_iterations_is_an_error():
    with pytest.raises(ConfigError, match="an epoch has no iteration"):
        make_trainer(loader=make_loader(1)).run()


def test_remaining_batches_are_not_loaded_to_be_skipped():
    loader = make_loader(10)
    read = []
    loader.dataset.__class__ = type("Watched", (type(loader.dataset),), {
        "__getitem__": lambda self, i: read.append(i) or super(type(self), self).__getitem__(i)})  # fmt: skip
    rest = list(remaining(loader, 3))
    assert len(rest) == 2 and len(read) == 4
    assert list(remaining([1, 2, 3], 2)) == [3]
    assert remaining(loader, 0) is loader


def test_scalars_become_floats_and_the_rest_is_left_out():
    values = {"b": torch.tensor([2.0]), "a": 1, "c": torch.ones(2), "d": "text", "e": True, "f": torch.tensor(3)}
    assert to_floats(values) == {"b": 2.0, "a": 1.0, "f": 3.0}
    assert list(to_floats(values)) == ["b", "a", "f"]
