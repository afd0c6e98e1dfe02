"""The training loop: order of events, resuming to the bit, stopping on request, and losses that are not finite."""

import logging
import os
import re
import signal
import threading
import time

import numpy as np
import pytest
import torch
from toy import OPTIMIZATION, ToyDistiller, ToyModel, make_loader

from pcdet.engine.checkpoint import read_checkpoint
from pcdet.engine.hooks import Checkpoint, EndAugmentation, Evaluate, Hook, Logging
from pcdet.engine.loaders import remaining
from pcdet.engine.optim import build_optimizer, build_scheduler
from pcdet.engine.precision import Precision
from pcdet.engine.runtime import seed_process
from pcdet.engine.trainer import Interrupted, NonFiniteError, Trainer, TrainSettings, to_floats
from pcdet.registry import ConfigError
from pcdet.utils.cpu_features import Processor


def make_trainer(hooks=(), *, epochs=2, seed=0, model=None, loader=None, merged=False, optimizer="adam_onecycle", **kw):
    seed_process(seed)
    model = (model or ToyModel)()
    loader = make_loader(10) if loader is None else loader
    node = {**OPTIMIZATION, "NUM_EPOCHS": epochs, "OPTIMIZER": optimizer}
    settings = TrainSettings(epochs=epochs, merged=merged, seed=seed, **kw)
    optimizer = build_optimizer(model, node)
    scheduler = build_scheduler(optimizer, settings.iters_per_epoch(loader), epochs, -1, node)
    return Trainer(model, loader, optimizer, scheduler, hooks, settings=settings)


class StopAt(Hook):
    def __init__(self, iteration):
        self.iteration = iteration

    def after_iteration(self, trainer):
        if trainer.it == self.iteration:
            os.kill(os.getpid(), signal.SIGTERM)


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


def weights(trainer):
    return {k: v.clone() for k, v in trainer.model.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


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


def test_a_loss_that_is_not_finite_names_frames_and_term_and_saves_nothing(tmp_path):
    loader = make_loader(10, bad_frame=6)
    with pytest.raises(NonFiniteError, match=r"the loss is nan at epoch 1, .*rpn_loss=nan; frames: .*000006"):
        make_trainer([Checkpoint(tmp_path)], loader=loader).run()
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_the_model_cannot_take_is_named_by_its_frames():
    """A batch norm that gets one value a channel, as of a cloud with a single voxel."""
    trainer = make_trainer()
    batch = {"points": np.zeros((1, 4)), "frame_id": np.array(["000007"]), "batch_size": 1}
    message = r"Expected more than 1 value per channel .*\(epoch 1, iteration 0, frames: 000007\)"
    with pytest.raises(ValueError, match=message):
        trainer.train_step(batch)


def test_a_gradient_that_is_not_finite_is_caught_before_it_reaches_the_weights():
    class Steep(ToyModel):
        def forward(self, batch_dict):
            ret, tb, disp = super().forward(batch_dict)
            return {"loss": ret["loss"] + torch.sqrt(self.head.bias.sum() * 0)}, tb, disp

    trainer = make_trainer(model=Steep)
    before = weights(trainer)
    with pytest.raises(NonFiniteError, match="the gradient norm is nan"):
        trainer.run()
    assert torch.equal(before["linear.weight"], trainer.model.linear.weight)


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
def test_fp16_scaler_state_survives_a_resume(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device = torch.device("cuda")
    precision = Precision.choose(device, True, loss_scale=2.0**10)
    trainer = make_trainer([Checkpoint(tmp_path)], model=lambda: ToyModel().to(device), precision=precision)
    trainer.device = device
    trainer.run()
    trainer.scaler.update(512.0)
    state = trainer.state_dict()
    other = make_trainer(model=lambda: ToyModel().to(device), precision=precision)
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


def gradients_of_a_step(kind, limit, factors):
    """(gradients in the optimizer's order, by name; the logged norm) of a step that multiplies those of the loss.

    ``factors``: prefix of a parameter's name -> factor on its gradient.
    """

    def build():
        model = kind()
        for name, p in model.named_parameters():
            factor = next(value for prefix, value in factors.items() if name.startswith(prefix))
            p.register_hook(lambda gradient, factor=factor: gradient * factor)
        return model

    trainer = make_trainer(model=build, grad_norm_clip=limit)
    trainer.train_step(next(iter(trainer.loader)))
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    ordered = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    return {names[id(p)]: p.grad.clone() for p in ordered}, trainer.last.grad_norm


def norm_of(gradients):
    return float(torch.stack([g.square().sum() for g in gradients]).sum().sqrt())


def test_a_distillers_own_gradients_do_not_shorten_the_detectors():
    """However large they are: each part has the limit to itself, and the detector's norm is the one that is logged."""
    found = [gradients_of_a_step(ToyDistiller, 2.0, {"student.": 1e3, "adapter.": factor}) for factor in (1e3, 1e6)]
    (small, norm), (large, same) = found
    students = [name for name in small if name.startswith("student.")]
    assert same == norm > 2.0 and all(torch.equal(small[name], large[name]) for name in students)
    assert norm_of([large[name] for name in students]) == pytest.approx(2.0, rel=1e-4)
    assert norm_of([large[name] for name in large if name not in students]) == pytest.approx(2.0, rel=1e-4)


def test_adapters_whose_gradients_are_not_finite_are_caught_too():
    with pytest.raises(NonFiniteError, match="the gradient norm is inf"):
        gradients_of_a_step(ToyDistiller, 2.0, {"student.": 1.0, "adapter.": float("inf")})


def test_a_plain_detectors_gradients_are_clipped_as_pytorch_does():
    clipped, norm = gradients_of_a_step(ToyModel, 2.0, {"": 1e3})
    whole, _ = gradients_of_a_step(ToyModel, 1e9, {"": 1e3})
    wanted = [torch.nn.Parameter(torch.zeros_like(g)) for g in whole.values()]
    for parameter, gradient in zip(wanted, whole.values(), strict=True):
        parameter.grad = gradient
    assert norm == float(torch.nn.utils.clip_grad_norm_(wanted, 2.0)) > 2.0
    assert all(torch.equal(p.grad, g) for p, g in zip(wanted, clipped.values(), strict=True))


def test_an_epoch_without_iterations_is_an_error():
    with pytest.raises(ConfigError, match="an epoch has no iteration"):
        make_trainer(loader=make_loader(1)).run()


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
