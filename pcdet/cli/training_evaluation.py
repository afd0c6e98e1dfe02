"""The evaluation of a detector while it is trained, and of what the training has saved."""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn
from torch.utils.data import DataLoader

from pcdet import api
from pcdet.cli.session import Session
from pcdet.datasets.errors import DataError
from pcdet.engine.best import BestCheckpoint
from pcdet.engine.checkpoint import read_checkpoint
from pcdet.engine.checkpoint_evaluation import evaluated_epochs, list_of_evaluated, mark_evaluated, repeat_eval_ckpt
from pcdet.engine.evaluate import EvalSettings, eval_one_epoch, prepare_evaluation
from pcdet.engine.run_record import RunRecord
from pcdet.engine.tensorboard import TensorBoard
from pcdet.utils.commu_utils import call_on_main


class Evaluation:
    """Evaluates the detector that is being trained, on the test split; the data set is opened at its first use.

    Args:
        session: of the training.
        detector: without its teacher.
        record: gets the results, on rank 0; None elsewhere.
        best: keeps the best checkpoint, where one is kept.
    """

    def __init__(
        self, session: Session, detector: nn.Module, record: RunRecord | None, best: BestCheckpoint | None = None
    ):
        self.session, self.detector, self.record, self.best, self.loader = session, detector, record, best, None
        self.dir = session.output_dir / "eval" / "eval_with_train"
        self.split = session.cfg.DATA_CONFIG.DATA_SPLIT["test"]

    def prepare(self) -> None:
        """Opens the test split, so that what would keep it from being evaluated is told before hours of training.

        Raises:
            DataError: the data set's files of the split are missing or wrong.
        """
        try:
            prepare_evaluation(self._open().dataset)
        except DataError as error:
            flags = "--skip_eval, without --eval_interval," if self.session.args.eval_interval else "--skip_eval"
            advice = f"this is the test split; {flags} trains without an evaluation of it"
            raise DataError([*error.problems, advice]) from error

    def of_current_weights(self, epoch: int) -> dict:
        """In the middle of training."""
        return self._evaluate(epoch, self.dir / f"epoch_{epoch}" / self.split)

    def mark(self, epoch: int) -> None:
        """Notes an epoch as evaluated."""
        mark_evaluated(self.dir, self.split, epoch)

    def evaluated(self) -> set:
        """The epochs noted so far."""
        return evaluated_epochs(list_of_evaluated(self.dir, self.split))

    def of_checkpoints(self, first_epoch: int, last_epoch: int, purge_step: int | None = None) -> None:
        """What the run has saved in these epochs; TensorBoard forgets what it showed from ``purge_step`` on."""
        writer = None
        if self.session.dist.is_main:
            folder = self.dir / f"tensorboard_{self.split}"
            writer = TensorBoard(folder, purge_step=purge_step, logger=self.session.logger)
        repeat_eval_ckpt(
            self._load, self._evaluate_checkpoint, self.session.output_dir / "ckpt", self.dir, split=self.split,
            start_epoch=first_epoch, last_epoch=last_epoch, max_waiting_mins=self.session.args.max_waiting_mins,
            tb_log=writer, logger=self.session.logger,
        )  # fmt: skip

    def _load(self, ckpt: str | os.PathLike) -> None:
        api.load_weights(self.detector, ckpt, logger=self.session.logger)

    def _evaluate_checkpoint(self, ckpt: str | os.PathLike, epoch: int, result_dir: Path) -> dict:
        result = self._evaluate(epoch, result_dir)

        def keep_best():
            if self.best is not None:
                self.best.update(epoch, result, lambda: read_checkpoint(ckpt))

        call_on_main(keep_best)
        return result

    def _open(self) -> DataLoader:
        if self.loader is None:
            _, self.loader = self.session.loader(training=False)
        return self.loader

    def _evaluate(self, epoch: int, result_dir: Path) -> dict:
        settings = EvalSettings.from_cfg(
            self.session.cfg, save_to_file=self.session.args.save_to_file, precision=self.session.precision
        )
        result = eval_one_epoch(
            self.detector, self._open(), settings, epoch_id=epoch, result_dir=result_dir, device=self.session.device,
            logger=self.session.logger,
        )  # fmt: skip

        def keep():
            if self.record is not None:
                self.record.add_result(epoch, result)

        call_on_main(keep)
        return result
