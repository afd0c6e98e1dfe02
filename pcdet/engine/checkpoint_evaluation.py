"""Evaluates a folder of checkpoints one by one, and keeps a list of those that are done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pcdet.engine.checkpoint_folder import checkpoint_epochs
from pcdet.registry import ConfigError
from pcdet.utils import commu_utils
from pcdet.utils.checkpoint_reader import CheckpointError
from pcdet.utils.safe_files import WriteError, replacing
from pcdet.utils.weights import MisfitError

WAIT_SECONDS = 30


def repeat_eval_ckpt(
    load: Callable[[Path], object],
    evaluate: Callable[[Path, int, Path], dict[str, float]],
    ckpt_dir: str | Path,
    eval_dir: str | Path,
    *,
    split: str,
    start_epoch: int = 0,
    last_epoch: int | None = None,
    max_waiting_mins: float = 0,
    tb_log=None,
    logger: logging.Logger | None = None,
    wait_seconds: float = WAIT_SECONDS,
) -> dict[int, dict[str, float]]:
    """Evaluates every ``checkpoint_epoch_<N>.pth`` that is not in ``eval_list_<split>.txt`` yet, in order of epochs.

    Ends when nothing is left. With ``max_waiting_mins`` above 0 it looks again every ``wait_seconds`` and ends when no
    new checkpoint has come for that long. A checkpoint that cannot be read, by whichever process, keeps no other from
    being evaluated; one that was deleted meanwhile is skipped.

    Args:
        load: called with a checkpoint on every process: reads it into the model.
        evaluate: called with (checkpoint, epoch, result folder) once every process has loaded it.
        ckpt_dir: where the checkpoints are.
        eval_dir: gets ``eval_list_<split>.txt`` and ``epoch_<N>/<split>``.
        split: name of the data split.
        start_epoch: earlier epochs are left out.
        last_epoch: later ones are left out.
        max_waiting_mins: how long to wait for further checkpoints.
        tb_log: gets every metric against the epoch.
        logger: told what is done.
        wait_seconds: pause between two looks.

    Returns:
        Epoch -> what ``evaluate`` returned, for those evaluated now.

    Raises:
        CheckpointError: once all others are evaluated, for those that cannot be read; at once where weights do not fit.
    """
    run = _Evaluations(
        load, evaluate, Path(ckpt_dir), Path(eval_dir), split, (start_epoch, last_epoch), tb_log,
        logger or logging.getLogger("pcdet"),
    )  # fmt: skip
    run.until_nothing_comes(max_waiting_mins, wait_seconds)
    run.tell()
    return run.results


@dataclass
class _Evaluations:
    """The arguments of ``repeat_eval_ckpt``, and what has become of the checkpoints so far."""

    load: Callable[[Path], object]
    evaluate: Callable[[Path, int, Path], dict[str, float]]
    ckpt_dir: Path
    eval_dir: Path
    split: str
    epochs: tuple[int, int | None]  # the first and the last
    tb_log: Any
    logger: logging.Logger
    results: dict[int, dict[str, float]] = field(default_factory=dict)
    damaged: dict[int, str] = field(default_factory=dict)
    deleted: set[int] = field(default_factory=set)

    @property
    def record(self) -> Path:
        """The list of evaluated epochs."""
        return list_of_evaluated(self.eval_dir, self.split)

    def until_nothing_comes(self, max_waiting_mins: float, wait_seconds: float) -> None:
        """Evaluates what is there, and what comes before nothing has for so long."""
        idle_since = time.monotonic()
        while True:
            found = commu_utils.call_on_main(self._next)  # rank 0 decides for all: it alone writes the list
            if found is not None:
                self._evaluate(*found)
                idle_since = time.monotonic()
                continue
            waited = commu_utils.broadcast_from_main((time.monotonic() - idle_since) / 60)
            if waited >= max_waiting_mins:
                return
            self.logger.info(
                f"Wait {wait_seconds:.0f} seconds for next check (progress: {waited:.1f} / {max_waiting_mins} "
                f"minutes): {self.ckpt_dir}"
            )
            time.sleep(min(wait_seconds, max((max_waiting_mins - waited) * 60, 0)))

    def _next(self) -> tuple[int, Path] | None:
        done = evaluated_epochs(self.record) | {*self.results, *self.damaged, *self.deleted}
        return next(((epoch, file) for epoch, file in self._there().items() if epoch not in done), None)

    def _there(self) -> dict[int, Path]:
        first, last = self.epochs
        found = checkpoint_epochs(self.ckpt_dir)
        return {epoch: f for epoch, f in found.items() if epoch >= first and (last is None or epoch <= last)}

    def _evaluate(self, epoch: int, ckpt: Path) -> None:
        error = _load_everywhere(self.load, ckpt)
        if isinstance(error, FileNotFoundError):
            self.logger.warning(f"epoch {epoch} is skipped: {ckpt} was deleted before it was read")
            self.deleted.add(epoch)
            return
        if error is not None:
            self.logger.warning(f"epoch {epoch} is left out: {error}")
            self.damaged[epoch] = str(error)
            return
        self.results[epoch] = self.evaluate(ckpt, epoch, self.eval_dir / f"epoch_{epoch}" / self.split)
        if commu_utils.is_main_process() and self.tb_log is not None:
            for key, value in self.results[epoch].items():
                if isinstance(value, (int, float)):
                    self.tb_log.add_scalar(key, value, epoch)
        mark_evaluated(self.eval_dir, self.split, epoch)

    def tell(self) -> None:
        """Says why nothing was evaluated; CheckpointError with what could not be read."""
        if self.damaged:
            raise CheckpointError(
                f"{len(self.damaged)} of {len(self.damaged) + len(self.results)} checkpoints were not evaluated:\n"
                + "\n".join(self.damaged.values())
            )
        there = self._there()
        if not there and not self.results:
            self.logger.info(
                f"Nothing to evaluate: no checkpoint_epoch_<N>.pth with N >= {self.epochs[0]} in {self.ckpt_dir}"
            )
        elif not self.results:
            self.logger.info(
                f"Nothing left to evaluate: all {len(there)} checkpoints of {self.ckpt_dir} are listed in "
                f"{self.record}; delete that file to evaluate them again"
            )


def _load_everywhere(load: Callable[[Path], object], ckpt: Path) -> CheckpointError | FileNotFoundError | None:
    """Loads a checkpoint on every process and returns what failed first by rank, the same on all; None if nothing did.

    Raises:
        MisfitError: the weights do not fit.
        FileNotFoundError: another file than the checkpoint is missing.
    """
    failure = None
    try:
        load(ckpt)
    except (CheckpointError, FileNotFoundError) as error:
        failure = error
    failure = next((error for error in commu_utils.all_gather(failure) if error is not None), None)
    if isinstance(failure, MisfitError):
        raise failure
    if isinstance(failure, FileNotFoundError) and commu_utils.call_on_main(ckpt.is_file):
        raise failure
    return failure


def mark_evaluated(eval_dir: str | Path, split: str, epoch: int) -> None:
    """Notes an epoch in ``eval_list_<split>.txt``; every process calls this, rank 0 writes.

    Raises:
        WriteError: the list cannot be written; on every process.
    """
    record = list_of_evaluated(eval_dir, split)

    def add():
        before = record.read_bytes() if record.is_file() else b""
        record.parent.mkdir(parents=True, exist_ok=True)
        _write_list(record, before + (b"" if not before or before.endswith(b"\n") else b"\n") + b"%d\n" % epoch)

    commu_utils.call_on_main(add)


def forget_evaluations(eval_dir: str | Path, epoch: int) -> None:
    """Takes epochs after ``epoch``, which are trained anew, out of the ``eval_list_<split>.txt`` of a folder.

    Every process calls this. Lists of other folders, such as those of a ``test.py`` that runs beside, are not touched.

    Raises:
        ConfigError: a list holds something else than epochs; on every process.
        WriteError: a list cannot be written; on every process.
    """

    def forget():
        for record in sorted(Path(eval_dir).glob("eval_list_*.txt")):
            done = evaluated_epochs(record)
            kept = [number for number in sorted(done) if number <= epoch]
            if len(kept) < len(done):
                _write_list(record, "".join(f"{number}\n" for number in kept).encode())

    commu_utils.call_on_main(forget)


def list_of_evaluated(eval_dir: str | Path, split: str) -> Path:
    """Where the evaluated epochs of a split are listed."""
    return Path(eval_dir) / f"eval_list_{split}.txt"


def _write_list(record: Path, content: bytes) -> None:
    try:
        with replacing(record) as stream:
            stream.write(content)
    except OSError as error:
        raise WriteError(
            f"the list of evaluated epochs {record} cannot be written: {error.strerror or error}; make room, and start "
            "the same command again"
        ) from error


def evaluated_epochs(record: Path) -> set[int]:
    """The epochs in an ``eval_list_<split>.txt``; numbers such as ``80.0`` count too.

    Raises:
        ConfigError: the file holds something else.
    """
    if not record.is_file():
        return set()
    try:
        return {int(float(line)) for line in record.read_text(encoding="utf-8").split()}
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"{record} must hold the number of an epoch a line ({error}); correct it, or delete it to start over"
        ) from error
