"""The training loop: a model, a loader, an optimizer, a schedule, and hooks for everything else.

The model returns OpenPCDet's ``(ret_dict, tb_dict, disp_dict)`` with ``ret_dict['loss']``; detectors are such
models, and so is what trains a detector and more (:mod:`pcdet.engine.checkpoint`): the loop knows no difference.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from pcdet.engine.checkpoint import (
    checkpoint_state,
    load_checkpoint,
    naming_entry,
    plain_detector,
    unwrap,
)
from pcdet.engine.loaders import remaining
from pcdet.engine.precision import Precision
from pcdet.engine.runtime import preserved_rng, set_rng_state
from pcdet.registry import ConfigError
from pcdet.utils import commu_utils
from pcdet.utils.common_utils import batch_to_device, seed_generators


class NonFiniteError(FloatingPointError):
    """A loss or gradient that is not finite; the message names the iteration and the frames."""


class Interrupted(Exception):
    """Training was asked to stop; ``signal_number`` says by what. The state up to here is saved."""

    def __init__(self, signal_number: int):
        self.signal_number = signal_number
        super().__init__(signal.Signals(signal_number).name)


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How long and how to train.

    Attributes:
        epochs: of the whole training.
        grad_norm_clip: largest norm of the detector's gradient, and of that of what is trained beside it.
        precision: of the forward pass.
        merged: the loader holds all epochs' batches in one (its length is their sum).
        seed: kept in checkpoints.
    """

    epochs: int
    grad_norm_clip: float = 10.0
    precision: Precision = field(default_factory=Precision)
    merged: bool = False
    seed: int | None = None

    def iters_per_epoch(self, loader: Iterable) -> int:
        """Iterations of one epoch over ``loader``."""
        return len(loader) // max(self.epochs, 1) if self.merged else len(loader)


@dataclass
class Iteration:
    """What hooks see of the iteration just done. Times are seconds."""

    loss: float = 0.0
    tb_dict: dict = field(default_factory=dict)
    lr: float = 0.0
    grad_norm: float = 0.0  # of the detector alone
    data_time: float = 0.0
    forward_time: float = 0.0
    batch_time: float = 0.0


class Hook:
    """Does nothing at every event; subclasses override those they need.

    Attributes:
        only_reports: training does not depend on it: an OSError of such a hook is warned of once and not raised.
    """

    only_reports = False

    def before_train(self, trainer: Trainer) -> None:
        """Once, before the first iteration."""

    def before_epoch(self, trainer: Trainer) -> None:
        """Before an epoch's first iteration; ``trainer.epoch`` epochs are finished."""

    def after_iteration(self, trainer: Trainer) -> None:
        """After an update of the weights; ``trainer.last`` describes it."""

    def after_epoch(self, trainer: Trainer) -> None:
        """After an epoch; ``trainer.epoch`` counts it."""

    def after_train(self, trainer: Trainer) -> None:
        """Once, after the last epoch."""

    def on_interrupt(self, trainer: Trainer) -> None:
        """When training stops early on request."""


class Trainer:
    """Trains ``model`` on ``loader``.

    Attributes:
        epoch: finished epochs.
        it: finished iterations, over all epochs.
        last: the :class:`Iteration` just done.

    Args:
        model: on its device, in DistributedDataParallel where there are several processes. ``set_epoch(epoch,
            total_epochs)`` and ``update_global_step()`` are called where it has them.
        loader: any iterable with a length; a DataLoader gets its order from ``set_epoch`` of sampler and data set.
        optimizer: over the model's parameters.
        scheduler: ``step(iteration)`` is called before each iteration.
        hooks: called in order; Checkpoint comes first.
        settings: how long and how to train.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable,
        optimizer: torch.optim.Optimizer,
        scheduler,
        hooks: Sequence[Hook] = (),
        *,
        settings: TrainSettings,
        device: torch.device | str = "cpu",
        logger: logging.Logger | None = None,
    ):
        self.model, self.loader, self.optimizer, self.scheduler = model, loader, optimizer, scheduler
        self.hooks, self.settings, self.device = list(hooks), settings, torch.device(device)
        self.logger = logger or logging.getLogger("pcdet")
        self.scaler = settings.precision.grad_scaler()
        self.epoch = self.it = 0
        self.last = Iteration()
        self.stop_signal: int | None = None
        self._silent: set[int] = set()
        self._pending_rng: dict | None = None

    @property
    def epochs(self) -> int:
        """Length of the whole training in epochs."""
        return self.settings.epochs

    @property
    def iters_per_epoch(self) -> int:
        """Iterations of one epoch on this process."""
        return self.settings.iters_per_epoch(self.loader)

    # ------------------------------------------------------------------------------------------------------- state

    def state_dict(self) -> dict:
        """The training state as a checkpoint keeps it."""
        return checkpoint_state(
            self.model,
            self.optimizer,
            self.epoch,
            self.it,
            scheduler=self.scheduler,
            scaler=self.scaler,
            seed=self.settings.seed,
            iters_per_epoch=self.iters_per_epoch,
        )

    def load_state_dict(self, state: dict, name: str = "checkpoint") -> None:
        """Goes on from a checkpoint's dictionary, in the middle of an epoch if it was written there.

        The position in an epoch only has a meaning where epochs are as long as they were; otherwise the epoch starts
        over, with a warning.
        """
        self.epoch, self.it = load_checkpoint(
            state, self.model, self.optimizer, scheduler=self.scheduler, scaler=self.scaler, name=name,
            logger=self.logger,
        )  # fmt: skip
        per_epoch = self.iters_per_epoch
        saved_per_epoch = state.get("iters_per_epoch") or per_epoch
        if saved_per_epoch != per_epoch or not 0 <= self.it - self.epoch * per_epoch <= per_epoch:
            self.logger.warning(
                f"{name} stands at iteration {self.it} of epochs of {saved_per_epoch} iterations; epochs now have "
                f"{per_epoch}, so epoch {self.epoch + 1} starts from its beginning"
            )
            self.it = self.epoch * per_epoch
        else:
            self._pending_rng = state.get("rng_state")
            if self._pending_rng is not None:
                with naming_entry(name, "rng_state"), preserved_rng():  # a try, before anything is trained
                    set_rng_state(self._pending_rng)

    # -------------------------------------------------------------------------------------------------------- loop

    def run(self) -> None:
        """Trains up to ``settings.epochs``.

        Raises:
            ConfigError: where an epoch would have no iteration.
            Interrupted: after SIGTERM or SIGINT, once the hooks have saved what there is.
            NonFiniteError: where a loss or gradient is not finite; nothing is saved.
            WriteError: where the last checkpoint, or that of an interrupt, cannot be written.
        """
        if self.iters_per_epoch == 0 and self.epoch < self.epochs:
            raise ConfigError(
                f"an epoch has no iteration: {len(self.loader)} batches for {self.epochs} epochs; use more samples, a "
                "smaller batch or fewer processes"
            )
        with self._signals_noted():
            self._call("before_train")
            try:
                self._run_epochs()
            except (RuntimeError, KeyboardInterrupt) as error:
                # The signal also reaches loader workers and other ranks; whatever dies first ends the iteration.
                if isinstance(error, NonFiniteError) or (self.stop_signal is None and isinstance(error, RuntimeError)):
                    raise
                self.stop_signal = self.stop_signal or signal.SIGINT
                self._stop(error)
            self._call("after_train")

    def _run_epochs(self) -> None:
        batches = None
        while self.epoch < self.epochs:
            done = self.it - self.epoch * self.iters_per_epoch
            if batches is None or not self.settings.merged:
                batches = self._batches(skip=self.it if self.settings.merged else done)
            self.model.train()
            if hasattr(unwrap(self.model), "set_epoch"):
                unwrap(self.model).set_epoch(self.epoch, self.epochs)
            self._call("before_epoch")
            waiting_since = time.perf_counter()
            for _ in range(done, self.iters_per_epoch):
                batch = next(batches)
                self.last = Iteration(data_time=time.perf_counter() - waiting_since)
                self._seed_iteration()
                self.train_step(batch)
                self.it += 1
                self.last.batch_time = time.perf_counter() - waiting_since
                self._call("after_iteration")
                if self.stop_signal is not None:
                    self._stop(None)
                waiting_since = time.perf_counter()
            self.epoch += 1
            if not self.settings.merged:
                batches = None  # ends the loader's workers, so that their CPU time is known
            self._call("after_epoch")
            if self.stop_signal is not None and self.epoch < self.epochs:
                self._stop(None)

    def train_step(self, batch: dict) -> None:
        """One update of the weights from one collated batch; fills ``self.last``."""
        self.scheduler.step(self.it)
        started = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        batch_to_device(batch, self.device)
        with self.settings.precision.autocast(), self._frames_named(batch):
            ret_dict, tb_dict, _ = self.model(batch)
            loss = ret_dict["loss"].mean()
        self.last.forward_time = time.perf_counter() - started
        scalars = to_floats({"loss": loss, **tb_dict})
        self.last.loss = to_floats({"loss": loss})["loss"] if "loss" in tb_dict else scalars["loss"]
        self._check_finite(self.last.loss, "loss", batch, scalars)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norms = [nn.utils.clip_grad_norm_(p, self.settings.grad_norm_clip) for p in self._parameters_to_clip()]
        if not self.scaler.is_enabled():  # the scaler itself skips steps whose gradients overflow
            norms = torch.stack(norms).tolist()
            for norm in norms:
                self._check_finite(norm, "gradient norm", batch, scalars)
            self.last.grad_norm = norms[0]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.last.lr, self.last.tb_dict = self.scheduler.lr, {k: v for k, v in scalars.items() if k in tb_dict}
        detector = plain_detector(self.model)
        if hasattr(detector, "update_global_step"):
            detector.update_global_step()

    def request_stop(self, signal_number: int = signal.SIGTERM) -> None:
        """Ends training after the current iteration, as a signal does."""
        self.stop_signal = signal_number

    # ---------------------------------------------------------------------------------------------------- internals

    def _parameters_to_clip(self) -> list[list[nn.Parameter]]:
        """The detector's parameters, and those that are trained beside it."""
        # in one norm, large gradients of adapters, which no detector keeps, would shorten the detector's steps
        every = [p for group in self.optimizer.param_groups for p in group["params"]]
        detector = plain_detector(self.model)
        if detector is unwrap(self.model):
            return [every]
        detectors = {id(p) for p in detector.parameters()}
        own = [p for p in every if id(p) not in detectors]
        return [[p for p in every if id(p) in detectors], *([own] if own else [])]

    def _batches(self, skip: int) -> Iterator:
        """Iterator over the epoch's batches from number ``skip`` on; random states of a resume are set on the way."""
        for part in (getattr(self.loader, "sampler", None), getattr(self.loader, "dataset", None)):
            if hasattr(part, "set_epoch"):
                part.set_epoch(self.epoch if not self.settings.merged else 0)
        at_epoch_start = skip == 0 or (self.it == self.epoch * self.iters_per_epoch and not self.settings.merged)
        if at_epoch_start:
            self._restore_rng()
        batches = iter(remaining(self.loader, skip))
        if not at_epoch_start:  # making the iterator draws a number, which the saved state has already seen
            self._restore_rng()
        return batches

    def _restore_rng(self) -> None:
        """Takes over the generators of rank 0's checkpoint."""
        if self._pending_rng is not None:
            set_rng_state(self._pending_rng)
            self._pending_rng = None

    def _seed_iteration(self) -> None:
        """Seeds the generators of ranks above 0, of which no checkpoint keeps the states, by rank and iteration."""
        rank = commu_utils.get_rank()
        if rank > 0:
            seed_generators((self.settings.seed or 0) + rank * 1_000_003 + self.it * 7_919)

    def _check_finite(self, value: float, what: str, batch: dict, scalars: dict[str, float]) -> None:
        if math.isfinite(value):
            return
        bad = ", ".join(f"{k}={v}" for k, v in scalars.items() if not math.isfinite(v)) or "none of the logged terms"
        raise NonFiniteError(
            f"the {what} is {value} at epoch {self.epoch + 1}, iteration {self.it}; not finite: {bad}; "
            f"frames: {_frames(batch)}. Check these frames' points and boxes, or lower OPTIMIZATION.LR"
        )

    @contextlib.contextmanager
    def _frames_named(self, batch: dict):
        """Adds the frames to a ValueError of the model, as of a batch norm that gets a single voxel."""
        try:
            yield
        except ValueError as error:
            if type(error) is not ValueError:  # its own kinds say what they must
                raise
            raise ValueError(
                f"{error} (epoch {self.epoch + 1}, iteration {self.it}, frames: {_frames(batch)})"
            ) from error

    def _call(self, event: str) -> None:
        for hook in self.hooks:
            try:
                getattr(hook, event)(self)
            except OSError as error:
                if not hook.only_reports:
                    raise
                if id(hook) not in self._silent:
                    self._silent.add(id(hook))
                    self.logger.warning(f"{type(hook).__name__} failed, training goes on without it: {error}")

    def _stop(self, cause: BaseException | None) -> None:
        self._call("on_interrupt")
        raise Interrupted(self.stop_signal) from cause

    @contextlib.contextmanager
    def _signals_noted(self):
        """Turns SIGTERM and the first SIGINT into ``stop_signal``; loader workers, being forks, die as usual."""
        owner, previous = os.getpid(), {}

        def note(number, frame):
            if os.getpid() != owner:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            elif self.stop_signal is not None and number == signal.SIGINT:
                raise KeyboardInterrupt
            else:
                self.stop_signal = number

        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError):  # not in the main thread: the caller keeps its handlers
                previous[number] = signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _frames(batch: dict) -> str:
    return ", ".join(map(str, batch.get("frame_id", ["(no frame_id in the batch)"])))


def to_floats(values: dict) -> dict[str, float]:
    """The scalars among ``values`` as Python floats, with one transfer for all tensors."""
    tensors = {k: v.detach().float().reshape(()) for k, v in values.items() if torch.is_tensor(v) and v.numel() == 1}
    floats = {k: float(v) for k, v in values.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    if tensors:
        stacked = torch.stack([t.to(next(iter(tensors.values())).device) for t in tensors.values()])
        floats.update(zip(tensors, stacked.tolist(), strict=True))
    return {k: floats[k] for k in values if k in floats}
