"""What happens around the iterations of training: logging, checkpoints, evaluation, the end of augmentation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from pcdet.engine.best import BestCheckpoint
from pcdet.engine.checkpoint import read_checkpoint, save_checkpoint
from pcdet.engine.checkpoint_folder import LATEST, checkpoint_epochs, prune_checkpoints
from pcdet.engine.runtime import preserved_rng
from pcdet.engine.trainer import Hook, Trainer
from pcdet.registry import ConfigError
from pcdet.utils import commu_utils
from pcdet.utils.checkpoint_reader import CheckpointError
from pcdet.utils.safe_files import WriteError, put_aside


class Meter:
    """The last value and the mean of all."""

    def __init__(self):
        self.val = self.sum = 0.0
        self.count = 0

    @property
    def avg(self) -> float:
        """Mean of the values so far, 0 where there is none."""
        return self.sum / self.count if self.count else 0.0

    def update(self, value: float) -> None:
        """Adds a value."""
        self.val = value
        self.sum += value
        self.count += 1


class Logging(Hook):
    """OpenPCDet's training line every ``interval`` iterations (or a progress bar), and its TensorBoard scalars.

    Use it on rank 0 only.

    Args:
        logger: gets the lines.
        tb_log: a TensorBoard writer, or None.
        interval: iterations between two lines; an epoch's first and last iteration are always logged.
        progress_bar: a bar instead of lines.
        memory: add a line on GPU memory every three intervals.
    """

    only_reports = True
    METERS = ("loss", "data_time", "forward_time", "batch_time")

    def __init__(
        self,
        logger: logging.Logger,
        tb_log=None,
        *,
        interval: int = 50,
        progress_bar: bool = False,
        memory: bool = True,
    ):
        self.logger, self.tb_log, self.interval = logger, tb_log, max(interval, 1)
        self.progress_bar, self.memory = progress_bar, memory
        self._bar: tqdm | None = None

    def before_train(self, trainer: Trainer) -> None:  # noqa: D102
        self._started, self._first_it = time.perf_counter(), trainer.it
        if self.progress_bar:
            total = trainer.epochs * trainer.iters_per_epoch
            self._bar = tqdm(total=total, initial=trainer.it, desc="train", dynamic_ncols=True, mininterval=1.0)

    def before_epoch(self, trainer: Trainer) -> None:  # noqa: D102
        self.meters = {name: Meter() for name in self.METERS}
        self._epoch_started, self._epoch_first_it = time.perf_counter(), trainer.it

    def after_iteration(self, trainer: Trainer) -> None:  # noqa: D102
        for name, meter in self.meters.items():
            meter.update(getattr(trainer.last, name))
        self._write_scalars(trainer)
        if self._bar is not None:
            self._bar.update()
            self._bar.set_postfix(loss=f"{self.meters['loss'].avg:.3g}", lr=f"{trainer.last.lr:.2e}", refresh=False)
            return
        in_epoch = trainer.it - trainer.epoch * trainer.iters_per_epoch
        first, last = trainer.it - 1 == self._epoch_first_it, in_epoch == trainer.iters_per_epoch
        if first or last or (trainer.it - 1) % self.interval == 0:
            self.logger.info(self._line(trainer, in_epoch))
        if self.memory and trainer.device.type == "cuda" and (trainer.it - 1) % (3 * self.interval) == 0:
            used, peak = torch.cuda.memory_allocated(trainer.device), torch.cuda.max_memory_allocated(trainer.device)
            self.logger.info(f"GPU memory: {used / 2**20:.0f} MiB in use, {peak / 2**20:.0f} MiB at most")

    def after_train(self, trainer: Trainer) -> None:  # noqa: D102
        if self._bar is not None:
            self._bar.close()
        if self.tb_log is not None:
            self.tb_log.flush()

    on_interrupt = after_train

    def _write_scalars(self, trainer: Trainer) -> None:
        if self.tb_log is None:
            return
        self.tb_log.add_scalar("train/loss", trainer.last.loss, trainer.it)
        self.tb_log.add_scalar("meta_data/learning_rate", trainer.last.lr, trainer.it)
        for key, value in trainer.last.tb_dict.items():
            self.tb_log.add_scalar(f"train/{key}", value, trainer.it)

    def _line(self, trainer: Trainer, in_epoch: int) -> str:
        now, n = time.perf_counter(), trainer.iters_per_epoch
        epoch_time, all_time = now - self._epoch_started, now - self._started
        epoch_left = epoch_time / (trainer.it - self._epoch_first_it) * (n - in_epoch)
        all_left = all_time / (trainer.it - self._first_it) * (trainer.epochs * n - trainer.it)
        clock = tqdm.format_interval
        m, epoch = self.meters, trainer.epoch + 1
        return (
            f"Train: {epoch:>4d}/{trainer.epochs} ({100 * epoch / trainer.epochs:>3.0f}%) "
            f"[{in_epoch:>4d}/{n} ({100 * in_epoch / n:>3.0f}%)]  "
            f"Loss: {m['loss'].val:#.4g} ({m['loss'].avg:#.3g})  "
            f"LR: {trainer.last.lr:.3e}  "
            f"Time cost: {clock(epoch_time)}/{clock(epoch_left)} [{clock(all_time)}/{clock(all_left)}]  "
            f"Acc_iter {trainer.it:<10d}  "
            f"Data time: {m['data_time'].val:.2f}({m['data_time'].avg:.2f})  "
            f"Forward time: {m['forward_time'].val:.2f}({m['forward_time'].avg:.2f})  "
            f"Batch time: {m['batch_time'].val:.2f}({m['batch_time'].avg:.2f})"
        )


class Checkpoint(Hook):
    """``checkpoint_epoch_<N>.pth`` every ``interval`` epochs and after the last, ``latest_model.pth`` by the clock.

    Use it on rank 0 only, and before all other hooks: what they do, or fail to do, must not keep it from saving. A
    file that cannot be written on the way is warned of, and the next occasion is another try; the last file of the
    training, and that of an interrupt, are errors.

    Args:
        ckpt_dir: where the files go; made if needed.
        interval: epochs between two files.
        max_num: the epoch files of the lowest epochs beyond this number are removed.
        time_interval: seconds between two writes of ``latest_model.pth``.
    """

    def __init__(self, ckpt_dir: str | Path, *, interval: int = 1, max_num: int = 30, time_interval: float = 300):
        self.ckpt_dir, self.interval, self.max_num = Path(ckpt_dir), max(interval, 1), max_num
        self.time_interval = time_interval

    def before_train(self, trainer: Trainer) -> None:  # noqa: D102
        self.ckpt_dir.mkdir(parents=True, exist_ok=True)
        self._tried_at = time.monotonic()
        later = [epoch for epoch in checkpoint_epochs(self.ckpt_dir) if epoch > trainer.epoch]
        if later:
            trainer.logger.warning(
                f"{self.ckpt_dir} holds checkpoints of later epochs than the {trainer.epoch} that this training begins "
                f"with: {', '.join(map(str, later))}. They stay until they are written anew, and a start without "
                "--ckpt would go on from the last of them; move them away if that is not meant"
            )
        if (self.ckpt_dir / LATEST).is_file():
            self._put_aside_if_later(trainer, self.ckpt_dir / LATEST)

    def after_iteration(self, trainer: Trainer) -> None:  # noqa: D102
        if time.monotonic() - self._tried_at >= self.time_interval:
            self._try_to_save(trainer, self.ckpt_dir / LATEST)

    def after_epoch(self, trainer: Trainer) -> None:  # noqa: D102
        file = self.ckpt_dir / f"checkpoint_epoch_{trainer.epoch}.pth"
        if trainer.epoch == trainer.epochs:
            save_checkpoint(trainer.state_dict(), file)
        elif trainer.epoch % self.interval or not self._try_to_save(trainer, file):
            return
        prune_checkpoints(self.ckpt_dir, self.max_num, trainer.epoch)

    def _put_aside_if_later(self, trainer: Trainer, latest: Path) -> None:
        """Keeps a start without ``--ckpt`` from going on from the ``latest_model.pth`` of what is trained over."""
        try:
            state = read_checkpoint(latest)
        except CheckpointError as error:
            trainer.logger.warning(f"{error}; it stays until it is written anew")
            return
        epoch, it = state.get("epoch"), state.get("it")
        if not isinstance(epoch, int) or epoch < trainer.epoch:
            return
        # iterations have a meaning only where epochs are as long as they were
        same_length = state.get("iters_per_epoch") == trainer.iters_per_epoch
        if epoch > trainer.epoch or (same_length and isinstance(it, int) and it > trainer.it):
            trainer.logger.warning(
                f"{latest} stands at epoch {epoch}, iteration {it}, later than the epoch {trainer.epoch}, iteration "
                f"{trainer.it} that this training begins with: kept as {put_aside(latest)}"
            )

    def on_interrupt(self, trainer: Trainer) -> None:  # noqa: D102
        save_checkpoint(trainer.state_dict(), self.ckpt_dir / LATEST)
        trainer.logger.info(f"Saved {self.ckpt_dir / LATEST} at epoch {trainer.epoch}, iteration {trainer.it}")

    def _try_to_save(self, trainer: Trainer, file: Path) -> bool:
        self._tried_at = time.monotonic()
        try:
            save_checkpoint(trainer.state_dict(), file)
        except WriteError as error:
            trainer.logger.warning(f"{error}. Training goes on; the next checkpoint is another try")
            return False
        return True


class Evaluate(Hook):
    """Calls ``evaluate(epoch)`` every ``interval`` epochs but the last, which the final evaluation covers.

    All ranks need it. The random generators are left as they were, so training is the same with and without it. Files
    that cannot be written are warned of; between several processes they end the training, which would else wait for
    each other. A training that was killed before the evaluation of its last finished epoch was noted begins with it.

    Args:
        evaluate: returns the metrics; on ranks other than 0 none.
        interval: epochs between two evaluations; 0: none.
        best: keeps the checkpoint of the best evaluation, on rank 0.
        mark: called with the epoch once its evaluation is done and the best is kept.
        evaluated: the epochs that ``mark`` was called with, by earlier processes too; called on rank 0. Without it a
            resumed training makes up for nothing.
    """

    def __init__(
        self,
        evaluate: Callable[[int], Mapping[str, float]],
        interval: int,
        best: BestCheckpoint | None = None,
        *,
        mark: Callable[[int], None] = lambda epoch: None,
        evaluated: Callable[[], Collection[int]] | None = None,
    ):
        self.evaluate, self.interval, self.best = evaluate, interval, best
        self.mark, self.evaluated = mark, evaluated

    def before_train(self, trainer: Trainer) -> None:  # noqa: D102
        at_an_end = trainer.epoch > 0 and trainer.it == trainer.epoch * trainer.iters_per_epoch
        if self.evaluated is None or not at_an_end or not self._is_due(trainer):
            return
        if trainer.epoch not in commu_utils.call_on_main(self.evaluated):
            self.after_epoch(trainer)

    def after_epoch(self, trainer: Trainer) -> None:  # noqa: D102
        if not self._is_due(trainer):
            return
        try:
            with preserved_rng():
                result = self.evaluate(trainer.epoch)
            commu_utils.call_on_main(lambda: self._keep_best(trainer, result))
            self.mark(trainer.epoch)
        except OSError as error:
            if isinstance(error, FileNotFoundError) or commu_utils.get_world_size() > 1:
                raise
            trainer.logger.warning(f"the evaluation of epoch {trainer.epoch} failed, training goes on: {error}")
        finally:
            trainer.model.train()

    def _is_due(self, trainer: Trainer) -> bool:
        return self.interval > 0 and trainer.epoch % self.interval == 0 and trainer.epoch != trainer.epochs

    def _keep_best(self, trainer: Trainer, result: Mapping[str, float]) -> None:
        if self.best is not None:
            self.best.update(trainer.epoch, result, trainer.state_dict)


class EndAugmentation(Hook):
    """Turns augmentations off for the last epochs (``HOOK.DisableAugmentationHook``).

    All ranks need it. With merged epochs it has no effect on workers that already run; such a run is refused.

    Args:
        names: as in ``DISABLE_AUG_LIST``.
        num_last_epochs: how many epochs are trained without them.
    """

    def __init__(self, names: Sequence[str], num_last_epochs: int):
        self.names, self.num_last_epochs = list(names), num_last_epochs
        self._done = False

    def before_train(self, trainer: Trainer) -> None:  # noqa: D102
        if trainer.settings.merged and self.num_last_epochs > 0:
            raise ConfigError(
                "HOOK.DisableAugmentationHook needs separate epochs; leave out --merge_all_iters_to_one_epoch"
            )
        # a resume inside the last epochs: their first loader is made before any before_epoch call
        self.before_next_epoch(trainer)

    def after_epoch(self, trainer: Trainer) -> None:  # noqa: D102
        self.before_next_epoch(trainer)

    def before_next_epoch(self, trainer: Trainer) -> None:
        """Acts before the loader of the coming epoch starts its workers."""
        if self._done or trainer.epoch < trainer.epochs - self.num_last_epochs:
            return
        self._done = True
        trainer.logger.info(f"Disable augmentations: {self.names}")
        trainer.loader.dataset.data_augmentor.disable_augmentation(self.names)
