"""Evaluates a checkpoint, or all of a folder.

python test.py --cfg_file cfgs/kitti_models/pointpillar.yaml --ckpt CHECKPOINT.pth
python test.py --cfg_file cfgs/kitti_models/pointpillar.yaml --eval_all
"""

import re
import sys
from pathlib import Path

import _session
from _session import Session, open_session

from pcdet.config import ConfigError
from pcdet.engine.checkpoint_folder import BEST
from pcdet.engine.evaluate import EvalSettings, eval_one_epoch, repeat_eval_ckpt
from pcdet.engine.run_facts import describe_run
from pcdet.engine.run_record import RunRecord
from pcdet.engine.runtime import seed_process
from pcdet.engine.tensorboard import TensorBoard
from pcdet.models import build_network
from pcdet.utils.commu_utils import call_on_main

TEST_SEED = 1024


def parse_args(argv=None):
    parser = _session.common_parser(__doc__.splitlines()[0])
    add = parser.add_argument
    add("--eval_tag", default="default", help="last part of the result folder")
    add("--eval_all", action="store_true", help="every checkpoint_epoch_<N>.pth that has not been evaluated yet")
    add("--ckpt_dir", help="where --eval_all looks; the run's ckpt folder if left out")
    add("--allow_partial", action="store_true", help="take what fits of a checkpoint of another model, and say what")
    add("--infer_time", action="store_true", help="measure the forward pass")
    _session.add_set_flag(parser)
    args = parser.parse_args(argv)
    if not args.ckpt and not args.eval_all:
        parser.error("give --ckpt FILE, or --eval_all to evaluate the checkpoints of a folder")
    return args


def main():
    session = open_session(parse_args())
    args, cfg = session.args, session.cfg
    split = cfg.DATA_CONFIG.DATA_SPLIT["test"]
    ckpt_dir = Path(args.ckpt_dir) if args.ckpt_dir else session.output_dir / "ckpt"
    if args.eval_all and not ckpt_dir.is_dir():
        raise ConfigError(f"--ckpt_dir: there is no folder {ckpt_dir}")
    eval_dir = session.output_dir / "eval"
    eval_dir /= Path("eval_all_default") if args.eval_all else Path(f"epoch_{epoch_id(args.ckpt)}", split)
    eval_dir /= args.eval_tag
    with session.hold(eval_dir, "wait for it, or give --eval_tag for a folder of its own"):
        test(session, split, ckpt_dir, eval_dir)


def test(session, split, ckpt_dir, eval_dir):
    args, cfg = session.args, session.cfg
    session.start_log(eval_dir / f"log_eval_{_session.timestamp()}.txt")
    seed_process(TEST_SEED)

    dataset, loader = session.loader(training=False)
    model = session.place(build_network(model_cfg=cfg.MODEL, num_class=len(cfg.CLASS_NAMES), dataset=dataset))
    record = open_record(session, dataset, eval_dir) if session.dist.is_main else None
    settings = EvalSettings.from_cfg(
        cfg, save_to_file=args.save_to_file, infer_time=args.infer_time, precision=session.precision
    )

    def load(ckpt):
        _session.load_detector_weights(model, args, session.logger, ckpt, args.pretrained_model)

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


def epoch_id(ckpt):
    """The last run of digits in the checkpoint's path, as in OpenPCDet; that of the best is ``best``."""
    if Path(ckpt).name == BEST:
        return "best"
    numbers = re.findall(r"\d+", str(ckpt))
    return numbers[-1] if numbers else "no_number"


def open_record(session: Session, dataset, eval_dir):
    facts = describe_run(
        command=sys.argv, cfg=session.cfg, device=session.device, seed=TEST_SEED, dataset=dataset,
        **session.precision.facts(), ckpt=session.args.ckpt,
    )  # fmt: skip
    record = RunRecord(eval_dir / "run.json", facts, session.logger)
    record.describe()
    return record


if __name__ == "__main__":
    _session.run(main)
