"""Trains a detector, then evaluates its last checkpoint.

Started again, it goes on from the newest checkpoint of its output folder that can be read; one run at a time may use
the folder. A file's ``KD`` block is left out, and the output folder is then ``<extra_tag>/plain``: the control beside
what train_kd.py distils.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from pcdet import api
from pcdet.cli.ending import naming_unwritable, run
from pcdet.cli.flags import add_set_flag, common_parser
from pcdet.cli.folders import timestamp
from pcdet.cli.session import Session, open_session
from pcdet.cli.training_evaluation import Evaluation
from pcdet.cli.training_hooks import keep_best, open_record, training_hooks
from pcdet.config import find_config_file
from pcdet.engine.checkpoint import CheckpointError, check_form, plain_detector, read_checkpoint
from pcdet.engine.checkpoint_evaluation import forget_evaluations
from pcdet.engine.checkpoint_folder import has_checkpoints, newest_checkpoint
from pcdet.engine.optim import build_optimizer, build_scheduler
from pcdet.engine.runtime import FIXED_SEED, choose_seed, parallelize, read_seed, seed_process
from pcdet.engine.trainer import Trainer, TrainSettings
from pcdet.models.kd.training_state import check_kind
from pcdet.utils import safe_files
from pcdet.utils.commu_utils import call_on_main

BuildModel = Callable[[Mapping, Any, logging.Logger, str | None], nn.Module]


def main(argv: Sequence[str] | None = None) -> None:
    """The command; its arguments are those of the process if None."""
    run(lambda: run_training(parse_args(argv)))


def parse_args(argv: Sequence[str] | None = None, distil: bool = False) -> argparse.Namespace:
    """The flags of train.py, or of train_kd.py where ``distil``.

    Raises:
        ConfigError: ``--seed`` is not one.
    """
    parser = common_parser(__doc__.splitlines()[0])
    add = parser.add_argument
    add("--epochs", type=int, help="OPTIMIZATION.NUM_EPOCHS if left out")
    add("--sync_bn", action="store_true", help="share BatchNorm statistics between GPUs")
    add(
        "--fix_random_seed", action="store_true", help=f"seed {FIXED_SEED} unless --seed names one; deterministic cuDNN"
    )
    add("--seed", help="seed of data order, augmentation and weights; chosen and recorded if left out")
    add("--ckpt_save_interval", type=int, default=1, help="epochs")
    add("--max_ckpt_save_num", type=int, default=30, help="older checkpoints are removed")
    add("--ckpt_save_time_interval", type=float, default=300, help="seconds between writes of latest_model.pth")
    add("--merge_all_iters_to_one_epoch", action="store_true", help="one pass of the loader over all epochs")
    add("--find_unused_parameters", action="store_true", help="several processes: parameters may miss from a loss")
    add("--num_epochs_to_eval", type=int, default=0, help="evaluate this many epochs before the last one too")
    add("--eval_interval", type=int, default=0, help="evaluate every so many epochs while training")
    add(
        "--best_metric", metavar="NAME",
        help="keep ckpt/checkpoint_best.pth by this metric of the evaluations, such as Car_3d/moderate_R40; with "
        "--eval_interval the main number of the data set if left out (KITTI: mean moderate 3D AP, nuScenes: NDS)",
    )  # fmt: skip
    add("--skip_eval", action="store_true", help="no evaluation after training")
    add("--use_tqdm_to_record", action="store_true", help="a progress bar instead of log lines")
    add("--logger_iter_interval", type=int, default=50)
    add("--wo_gpu_stat", action="store_true", help="no line on GPU memory")
    if distil:
        add("--teacher_ckpt", help="the teacher's checkpoint; KD.TEACHER.CKPT if left out")
    add_set_flag(parser)
    args = parser.parse_args(argv)
    if args.seed is not None:
        args.seed = read_seed(args.seed)
    return args


def build_detector(cfg: Mapping, dataset: Any, logger: logging.Logger, pretrained: str | None = None) -> nn.Module:
    """The network of the ``MODEL`` block, with what fits of the pretrained weights."""
    return api.build_detector(cfg, dataset, ckpt=pretrained, allow_partial=True, logger=logger)


def run_training(args: argparse.Namespace, build_model: BuildModel = build_detector, distil: bool = False) -> None:
    """A whole training, from the configuration's file to the last evaluation.

    Args:
        args: of ``parse_args``.
        build_model: makes what is trained of the configuration, the data set, a logger and ``--pretrained_model``.
        distil: whether the ``KD`` block counts.
    """
    session = open_session(args, without_kd=not distil)
    with session.hold(session.output_dir, "wait for it, or give this run another --extra_tag or --output_dir"):
        train(session, build_model, distil)


def train(session: Session, build_model: BuildModel, distil: bool) -> None:
    """The training in a folder that this run holds."""
    args, logger = session.args, start(session)
    if not distil and session.cfg.get("KD"):
        tell_of_kd(session)
    epochs = args.epochs if args.epochs is not None else session.optim.num_epochs
    resume_from, state = find_state(session)
    if state is not None:
        check_form(state, resume_from)  # before its seed is used
        if state.get("optimizer_state") is not None:
            check_kind(state, resume_from, distil)
    seed = choose_seed(args.seed, args.fix_random_seed, state)
    seed_process(seed, deterministic=args.fix_random_seed)
    train_set, trainer = make_trainer(session, build_model, epochs, seed)
    if state is not None:
        trainer.load_state_dict(state, resume_from)
    detector = plain_detector(trainer.model)
    logger.info(detector)

    record = open_record(session, seed, train_set) if session.dist.is_main else None
    evaluation = Evaluation(session, detector, record, keep_best(session, record, train_set))
    trainer.hooks = training_hooks(session, trainer, record, evaluation)
    name = f"{session.cfg.EXP_GROUP_PATH}/{session.cfg.TAG}({args.extra_tag})"
    begun_at = trainer.epoch
    if begun_at >= epochs:
        logger.info(f"{resume_from} is already trained {trainer.epoch} epochs; {epochs} were asked for")
    else:
        if not args.skip_eval or args.eval_interval > 0:
            evaluation.prepare()
        logger.info(f"**********************Start training {name}**********************")
        forget_evaluations(evaluation.dir, trainer.epoch)
        trainer.run()
        logger.info(f"**********************End training {name}**********************")
    if not args.skip_eval:
        logger.info(f"**********************Start evaluation {name}**********************")
        first = max(epochs - args.num_epochs_to_eval, args.start_epoch, 0)
        evaluation.of_checkpoints(first, trainer.epoch, begun_at + 1 if trainer.epoch > begun_at else None)
        logger.info(f"**********************End evaluation {name}**********************")


def make_trainer(session: Session, build_model: BuildModel, epochs: int, seed: int) -> tuple[Any, Trainer]:
    """(training data, trainer) of a training from the start, without hooks."""
    args, merged = session.args, session.args.merge_all_iters_to_one_epoch
    train_set, loader = session.loader(
        training=True, seed=seed, merge_all_iters_to_one_epoch=merged, total_epochs=epochs
    )
    model = session.place(build_model(session.cfg, train_set, session.logger, args.pretrained_model))
    optimizer = build_optimizer(model, session.optim)
    model = parallelize(model, session.device, sync_bn=args.sync_bn, find_unused=args.find_unused_parameters)
    settings = TrainSettings(
        epochs=epochs, grad_norm_clip=session.optim.grad_norm_clip, precision=session.precision, merged=merged,
        seed=seed,
    )  # fmt: skip
    scheduler = build_scheduler(optimizer, settings.iters_per_epoch(loader), epochs, -1, session.optim)
    trainer = Trainer(
        model, loader, optimizer, scheduler, settings=settings, device=session.device, logger=session.logger
    )  # fmt: skip
    return train_set, trainer


# ----------------------------------------------------------------------------------------------------------- the start


def start(session: Session) -> logging.Logger:
    """Opens the log and makes the folder of checkpoints; returns the logger."""
    session.start_log(session.output_dir / f"train_{timestamp()}.log")
    call_on_main(lambda: make_folders(session))
    return session.logger


def make_folders(session: Session) -> None:
    """The folder of checkpoints, and the configuration's copy."""
    ckpt_dir, cfg_file = session.output_dir / "ckpt", find_config_file(session.args.cfg_file)
    with naming_unwritable(ckpt_dir):
        ckpt_dir.mkdir(parents=True, exist_ok=True)
    if cfg_file.resolve().parent == session.output_dir.resolve():  # a run repeated from its own copy
        return
    content, copy = cfg_file.read_bytes(), session.output_dir / cfg_file.name
    with naming_unwritable(copy), safe_files.replacing(copy) as stream:
        stream.write(content)


def find_state(session: Session) -> tuple[Any, dict | None]:
    """(file, content) of the checkpoint to go on from, the same on every rank; Nones for a training from the start."""
    if session.args.ckpt:
        return session.args.ckpt, read_checkpoint(session.args.ckpt)
    state = None

    def find():
        nonlocal state
        file, state = newest_checkpoint(session.output_dir / "ckpt", session.logger)
        return file

    file = call_on_main(find)
    return file, read_checkpoint(file) if file is not None and state is None else state


def tell_of_kd(session: Session) -> None:
    """Says that the KD block is left out, and that an older control, which lies beside, is not gone on from."""
    args, out = session.args, session.output_dir
    session.logger.info(
        f"The KD block of {args.cfg_file} is left out: train.py trains the student alone, in {out}; "
        "train_kd.py distils it"
    )
    if args.ckpt or args.output_dir or has_checkpoints(out / "ckpt"):
        return
    try:
        older, state = newest_checkpoint(out.parent / "ckpt")
    except CheckpointError as error:
        session.logger.warning(f"Beside this run lies another that cannot be read: {error}")
        return
    if older is not None and "kd_state" not in state:
        session.logger.warning(
            f"{older} is of a training without a teacher, which now has the folder {out}: this run begins anew there. "
            f"To go on from that one, give --output_dir {out.parent}, or move its files to {out}"
        )
