"""``checkpoint_best.pth``: the weights of a training that did best in its evaluations so far."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from pcdet.engine.checkpoint import save_checkpoint
from pcdet.engine.run_record import RunRecord, is_best
from pcdet.registry import ConfigError
from pcdet.utils import safe_files
from pcdet.utils.checkpoint_names import BEST
from pcdet.utils.checkpoint_reader import CheckpointError, read_checkpoint

Headline = Callable[[Mapping[str, float]], "tuple[str, float] | None"]  # results -> the data set's main number


class BestCheckpoint:
    """Keeps the best checkpoint by one metric, the larger the better; ``best`` in ``run.json`` says which it is.

    Use it on rank 0 only. The checkpoint says so itself, as its entry ``best``, and the record follows it: a kill
    between the two writes loses nothing. A file that the record then does not know, such as an earlier training's, is
    put aside.

    Args:
        ckpt_dir: gets ``checkpoint_best.pth``.
        record: knows the best so far, and is told of a better one.
        metric: a name among those that the evaluation returns; None: the data set's main number.
        logger: told what becomes the best.
        headline: gives the name and value of the main number in results; None where they have none.
    """

    def __init__(
        self,
        ckpt_dir: str | Path,
        record: RunRecord,
        metric: str | None = None,
        logger: logging.Logger | None = None,
        headline: Headline = lambda result: None,
    ):
        self.path, self.record, self.metric, self.headline = Path(ckpt_dir) / BEST, record, metric, headline
        self.logger = logger or logging.getLogger("pcdet")
        if self.path.is_file():
            self._follow_the_file()

    def _follow_the_file(self) -> None:
        try:
            best = read_checkpoint(self.path).get("best")
        except CheckpointError as error:
            self.record.content.pop("best", None)
            self.logger.warning(f"{error}; it no longer counts as the best")
            return
        if is_best(best):  # files of earlier versions have none, and the record alone knows
            self.record.content["best"] = {name: best[name] for name in ("metric", "value", "epoch")}

    def update(self, epoch: int, result: Mapping[str, float], state: Callable[[], dict]) -> bool:
        """Saves ``state()`` if an evaluation is better than all before it, and returns whether it was.

        Args:
            epoch: that was evaluated.
            result: its metrics.
            state: gives the training state to keep; called only where it is kept.

        Raises:
            ConfigError: the evaluation has no metric of that name; those it has are listed.
            OSError: the checkpoint or the record cannot be written.
        """
        measured = self._measure(result)
        if measured is None:
            return False
        metric, value = measured
        best = self._best_so_far(metric)
        if not math.isfinite(value) or (best is not None and value <= best["value"]):
            return False
        if best is None and self.path.is_file():
            self.logger.warning(f"{self.path} is none of this training: kept as {safe_files.put_aside(self.path)}")
        save_checkpoint({**state(), "best": {"metric": metric, "value": value, "epoch": epoch}}, self.path)
        self.record.set_best(metric, value, epoch)
        self.logger.info(f"Best so far: {metric} {value:.4f} at epoch {epoch}, saved to {self.path}")
        return True

    def _measure(self, result: Mapping[str, float]) -> tuple[str, float] | None:
        if self.metric is None:
            return self.headline(result)
        if self.metric not in result:
            names = ", ".join(sorted(result)) or "none"
            raise ConfigError(f"--best_metric: the evaluation has no metric {self.metric!r}; it has {names}")
        return self.metric, float(result[self.metric])

    def _best_so_far(self, metric: str) -> dict | None:
        best = self.record.content.get("best")
        if best is None or not self.path.is_file():
            return None
        if best["metric"] != metric:
            self.logger.warning(f"{self.path} is the best by {best['metric']}; now {metric} counts, from here on")
            return None
        return best
