"""What a training keeps on the way: its record, checkpoints, logs, and evaluations."""

from __future__ import annotations

import sys
from typing import Any

from pcdet.cli.session import Session
from pcdet.cli.training_evaluation import Evaluation
from pcdet.datasets import DatasetTemplate
from pcdet.engine import hooks
from pcdet.engine.best import BestCheckpoint
from pcdet.engine.run_facts import describe_run
from pcdet.engine.run_record import RecordTimes, RunRecord
from pcdet.engine.tensorboard import TensorBoard
from pcdet.engine.trainer import Trainer


def open_record(session: Session, seed: int, train_set: Any) -> RunRecord:
    """The record of this run, ``run.json`` of its folder."""
    facts = describe_run(
        command=sys.argv, cfg=session.cfg, device=session.device, seed=seed, dataset=train_set,
        **session.precision.facts(), batch_size=session.batch_size * session.dist.world_size,
    )  # fmt: skip
    return RunRecord(session.output_dir / "run.json", facts, session.logger)


def keep_best(session: Session, record: RunRecord | None, train_set: Any) -> BestCheckpoint | None:
    """What keeps the best checkpoint, on rank 0 of a run that evaluates on the way or is told by which metric."""
    args = session.args
    if record is None or not (args.eval_interval > 0 or args.best_metric):
        return None
    headline = getattr(train_set, "METRICS", DatasetTemplate.METRICS).headline  # a user's class need not derive from it
    return BestCheckpoint(session.output_dir / "ckpt", record, args.best_metric, session.logger, headline)


def training_hooks(
    session: Session, trainer: Trainer, record: RunRecord | None, evaluation: Evaluation
) -> list[hooks.Hook]:
    """The hooks in their order: rank 0 saves, before anything else, and logs; the rest concerns every rank."""
    args, found = session.args, []
    if session.dist.is_main:
        scalars = TensorBoard(session.output_dir / "tensorboard", purge_step=trainer.it + 1, logger=session.logger)
        found += [
            hooks.Checkpoint(
                session.output_dir / "ckpt", interval=args.ckpt_save_interval, max_num=args.max_ckpt_save_num,
                time_interval=args.ckpt_save_time_interval,
            ),
            hooks.Logging(
                session.logger, scalars, interval=args.logger_iter_interval, progress_bar=args.use_tqdm_to_record,
                memory=not args.wo_gpu_stat,
            ),
        ]  # fmt: skip
    found.append(RecordTimes(record))
    found.append(
        hooks.Evaluate(
            evaluation.of_current_weights, args.eval_interval, evaluation.best, mark=evaluation.mark,
            evaluated=evaluation.evaluated,
        )
    )  # fmt: skip
    end_augmentation = (session.cfg.get("HOOK") or {}).get("DisableAugmentationHook")
    if end_augmentation:
        found.append(hooks.EndAugmentation(end_augmentation.DISABLE_AUG_LIST, end_augmentation.NUM_LAST_EPOCHS))
    return found
