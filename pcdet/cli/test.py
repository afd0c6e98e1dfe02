"""Evaluates a checkpoint, or all of a folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pcdet import api
from pcdet.cli.ending import naming_allow_partial, run
from pcdet.cli.flags import add_set_flag, common_parser
from pcdet.cli.folders import timestamp
from pcdet.cli.session import Session, open_session
from pcdet.config import ConfigError
from pcdet.engine.checkpoint_evaluation import repeat_eval_ckpt
from pcdet.engine.evaluate import EvalSettings, eval_one_epoch
from pcdet.engine.run_facts import describe_run
from pcdet.engine.run_record import RunRecord
from pcdet.engine.runtime import seed_process
from pcdet.engine.tensorboard import TensorBoard
from pcdet.utils.checkpoint_names import epoch_id
from pcdet.utils.commu_utils import call_on_main

TEST_SEED = 1024


def main(argv: Sequence[str] | None = None) -> None:
    """The command; its arguments are those of the process if None."""
    run(lambda: run_test(parse_args(argv)))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = common_parser(__doc__.splitlines()[0])
    add = parser.add_argument
    add("--eval_tag", default="default", help="last part of the result folder")
    add("--eval_all", action="store_true", help="every checkpoint_epoch_<N>.pth that has not been evaluated yet")
    add("--ckpt_dir", help="where --eval_all looks; the run's ckpt folder if left out")
    add("--allow_partial", action="store_true", help="take what fits of a checkpoint of another model, and say what")
    add("--infer_time", action="store_true", help="measure the forward pass")
    add_set_flag(parser)
    args = parser.parse_args(argv)
    if not args.ckpt and not args.eval_all:
        parser.error("give --ckpt FILE, or --eval_all to evaluate the checkpoints of a folder")
    return args


def run_test(args: argparse.Namespace) -> None:
    """A whole evaluation, from the configuration's file to the results in their folder."""
    session = open_session(args)
    split = session.cfg.DATA_CONFIG.DATA_SPLIT["test"]
    ckpt_dir = Path(args.ckpt_dir) if args.ckpt_dir else session.output_dir / "ckpt"
    if args.eval_all and not ckpt_dir.is_dir():
        raise ConfigError(f"--ckpt_dir: there is no folder {ckpt_dir}")
    eval_dir = session.output_dir / "eval"
    eval_dir /= Path("eval_all_default") if args.eval_all else Path(f"epoch_{epoch_id(args.ckpt)}", split)
    eval_dir /= args.eval_tag
    with session.hold(eval_dir, "wait for it, or give --eval_tag for a folder of its own"):
        test(session, split, ckpt_dir, eval_dir)


def test(session: Session, split: str, ckpt_dir: Path, eval_dir: Path) -> None:
    """The evaluation in a folder that this run holds."""
    args, cfg = session.args, session.cfg
    session.start_log(eval_dir / f"log_eval_{timestamp()}.txt")
    seed_process(TEST_SEED)

    dataset, loader = session.loader(training=False)
    model = session.place(api.build_detector(cfg, dataset))
    record = open_record(session, dataset, eval_dir) if session.dist.is_main else None
    settings = EvalSettings.from_cfg(
        cfg, save_to_file=args.save_to_file, infer_time=args.infer_time, precision=session.precision
    )

    def load(ckpt):
        with naming_allow_partial(args.allow_partial):
            api.load_weights(
                model, ckpt, pretrained=args.pretrained_model, allow_partial=args.allow_partial, logger=session.logger
            )

    def evaluate(ckpt, epoch, result_dir):
        result = eval_one_epoch(
            model, loader, settings, epoch_id=epoch, result_dir=result_dir, device=session.device, logger=session.logger
        )
        call_on_main(lambda: record.add_result(epoch, result) if record is not None else None)
        return result

    if not args.eval_all:
        load(args.ckpt)
        evaluate(args.ckpt, epoch_id(args.ckpt), eval_dir)
        return
    repeat_eval_ckpt(
        load, evaluate, ckpt_dir, eval_dir, split=split, start_epoch=args.start_epoch,
        max_waiting_mins=args.max_waiting_mins, logger=session.logger,
        tb_log=TensorBoard(eval_dir / f"tensorboard_{split}") if session.dist.is_main else None,
    )  # fmt: skip


def open_record(session: Session, dataset: Any, eval_dir: Path) -> RunRecord:
    """The record of this evaluation, ``run.json`` of its folder."""
    facts = describe_run(
        command=sys.argv, cfg=session.cfg, device=session.device, seed=TEST_SEED, dataset=dataset,
        **session.precision.facts(), ckpt=session.args.ckpt,
    )  # fmt: skip
    record = RunRecord(eval_dir / "run.json", facts, session.logger)
    record.describe()
    return record
