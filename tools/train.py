"""Trains a detector, then evaluates its last checkpoint.

    python train.py --cfg_file cfgs/kitti_models/pointpillar.yaml
    bash scripts/dist_train.sh 2 --cfg_file cfgs/kitti_models/pointpillar.yaml

Started again, it goes on from the newest checkpoint of its output folder. A file's ``KD`` block is left out, and the
output folder is then ``<extra_tag>/plain``: the control beside what train_kd.py distils.
"""

import shutil
import sys

import _session
from _session import Session, open_session

from pcdet.config import find_config_file
from pcdet.engine import hooks
from pcdet.engine.checkpoint import latest_checkpoint, plain_detector, read_checkpoint
from pcdet.engine.evaluate import EvalSettings, eval_one_epoch, mark_evaluated, repeat_eval_ckpt
from pcdet.engine.optim import build_optimizer, build_scheduler
from pcdet.engine.run_record import RecordTimes, RunRecord, describe_run
from pcdet.engine.runtime import FIXED_SEED, choose_seed, parallelize, seed_process, tensorboard_writer
from pcdet.engine.trainer import Trainer, TrainSettings
from pcdet.models import build_network


def parse_args(argv=None, distil=False):
    parser = _session.common_parser(__doc__.splitlines()[0])
    add = parser.add_argument
    add("--epochs", type=int, help="OPTIMIZATION.NUM_EPOCHS if left out")
    add("--sync_bn", action="store_true", help="share BatchNorm statistics between GPUs")
    add(
        "--fix_random_seed", action="store_true", help=f"seed {FIXED_SEED} unless --seed names one; deterministic cuDNN"
    )
    add("--seed", type=int, help="seed of data order, augmentation and weights; chosen and recorded if left out")
    add("--ckpt_save_interval", type=int, default=1, help="epochs")
    add("--max_ckpt_save_num", type=int, default=30, help="older checkpoints are removed")
    add("--ckpt_save_time_interval", type=float, default=300, help="seconds between writes of latest_model.pth")
    add("--merge_all_iters_to_one_epoch", action="store_true", help="one pass of the loader over all epochs")
    add("--find_unused_parameters", action="store_true", help="several processes: parameters may miss from a loss")
    add("--num_epochs_to_eval", type=int, default=0, help="evaluate this many epochs before the last one too")
    add("--eval_interval", type=int, default=0, help="evaluate every so many epochs while training")
    add("--skip_eval", action="store_true", help="no evaluation after training")
    add("--use_tqdm_to_record", action="store_true", help="a progress bar instead of log lines")
    add("--logger_iter_interval", type=int, default=50)
    add("--wo_gpu_stat", action="store_true", help="no line on GPU memory")
    if distil:
        add("--teacher_ckpt", help="the teacher's checkpoint; KD.TEACHER.CKPT if left out")
    _session.add_set_flag(parser)
    return parser.parse_args(argv)


def build_detector(cfg, dataset, logger, pretrained=None):
    """The network of the ``MODEL`` block, with what fits of the pretrained weights."""
    model = build_network(model_cfg=cfg.MODEL, num_class=len(cfg.CLASS_NAMES), dataset=dataset)
    if pretrained is not None:
        model.load_params_from_file(filename=pretrained, logger=logger, to_cpu=True, allow_partial=True)
    return model


def main(build_model=build_detector, distil=False):
    session = open_session(parse_args(distil=distil), without_kd=not distil)
    args, logger = session.args, start(session)
    if not distil and session.cfg.get("KD"):
        tell_of_kd(session)
    epochs = args.epochs if args.epochs is not None else session.optim.num_epochs
    resume_from = args.ckpt or latest_checkpoint(session.output_dir / "ckpt")
    state = read_checkpoint(resume_from) if resume_from else None
    seed = choose_seed(args.seed, args.fix_random_seed, state)
    seed_process(seed, deterministic=args.fix_random_seed)

    train_set, train_loader = session.loader(
        training=True, seed=seed, merge_all_iters_to_one_epoch=args.merge_all_iters_to_one_epoch, total_epochs=epochs
    )
    model = session.place(build_model(session.cfg, train_set, logger, args.pretrained_model))
    optimizer = build_optimizer(model, session.optim)
    model = parallelize(model, session.device, sync_bn=args.sync_bn, find_unused=args.find_unused_parameters)
    settings = TrainSettings(
        epochs=epochs, grad_norm_clip=session.optim.grad_norm_clip, precision=session.precision,
        merged=args.merge_all_iters_to_one_epoch, seed=seed,
    )  # fmt: skip
    scheduler = build_scheduler(optimizer, settings.iters_per_epoch(train_loader), epochs, -1, session.optim)
    trainer = Trainer(
        model, train_loader, optimizer, scheduler, settings=settings, device=session.device, logger=logger
    )  # fmt: skip
    if state is not None:
        trainer.load_state_dict(state, resume_from)
    logger.info(plain_detector(model))

    record = open_record(session, seed, train_set) if session.dist.is_main else None
    evaluation = Evaluation(session, plain_detector(model), record)
    trainer.hooks = training_hooks(session, record, evaluation)
    name = f"{session.cfg.EXP_GROUP_PATH}/{session.cfg.TAG}({args.extra_tag})"
    if trainer.epoch >= epochs:
        logger.info(f"{resume_from} is already trained {trainer.epoch} epochs; {epochs} were asked for")
    else:
        logger.info(f"**********************Start training {name}**********************")
        trainer.run()
        logger.info(f"**********************End training {name}**********************")
    if not args.skip_eval:
        logger.info(f"**********************Start evaluation {name}**********************")
        evaluation.of_checkpoints(max(epochs - args.num_epochs_to_eval, args.start_epoch, 0))
        logger.info(f"**********************End evaluation {name}**********************")


def start(session: Session):
    session.start_log(session.output_dir / f"train_{_session.timestamp()}.log")
    if session.dist.is_main:
        (session.output_dir / "ckpt").mkdir(exist_ok=True)
        cfg_file, copy = find_config_file(session.args.cfg_file), session.output_dir
        if cfg_file.resolve().parent != copy.resolve():  # a run repeated from its own copy
            shutil.copy(cfg_file, copy)
    return session.logger


def tell_of_kd(session: Session):
    """Says that the KD block is left out, and that an older control, which lies beside, is not gone on from."""
    args, out = session.args, session.output_dir
    session.logger.info(
        f"The KD block of {args.cfg_file} is left out: train.py trains the student alone, in {out}; "
        "train_kd.py distils it"
    )
    if args.ckpt or args.output_dir or latest_checkpoint(out / "ckpt") is not None:
        return
    older = latest_checkpoint(out.parent / "ckpt")
    if older is not None and "kd_state" not in read_checkpoint(older):
        session.logger.warning(
            f"{older} is of a training without a teacher, which now has the folder {out}: this run begins anew there. "
            f"To go on from that one, give --output_dir {out.parent}, or move its files to {out}"
        )


def open_record(session: Session, seed, train_set):
    facts = describe_run(
        command=sys.argv, cfg=session.cfg, device=session.device, seed=seed, dataset=train_set,
        **session.precision.facts(), batch_size=session.batch_size * session.dist.world_size,
    )  # fmt: skip
    return RunRecord(session.output_dir / "run.json", facts)


def training_hooks(session: Session, record, evaluation):
    """Rank 0 logs and saves; the rest concerns every rank."""
    args, found = session.args, []
    if session.dist.is_main:
        found += [
            hooks.Logging(
                session.logger, tensorboard_writer(session.output_dir / "tensorboard"),
                interval=args.logger_iter_interval, progress_bar=args.use_tqdm_to_record, memory=not args.wo_gpu_stat,
            ),
            hooks.Checkpoint(
                session.output_dir / "ckpt", interval=args.ckpt_save_interval, max_num=args.max_ckpt_save_num,
                time_interval=args.ckpt_save_time_interval,
            ),
        ]  # fmt: skip
    found.append(RecordTimes(record))
    found.append(hooks.Evaluate(evaluation.of_current_weights, args.eval_interval))
    end_augmentation = (session.cfg.get("HOOK") or {}).get("DisableAugmentationHook")
    if end_augmentation:
        found.append(hooks.EndAugmentation(end_augmentation.DISABLE_AUG_LIST, end_augmentation.NUM_LAST_EPOCHS))
    return found


class Evaluation:
    """Evaluates the detector that is being trained, on the test split; the data set is opened at the first use."""

    def __init__(self, session: Session, detector, record):
        self.session, self.detector, self.record, self.loader = session, detector, record, None
        self.dir = session.output_dir / "eval" / "eval_with_train"
        self.split = session.cfg.DATA_CONFIG.DATA_SPLIT["test"]

    def of_current_weights(self, epoch):
        """In the middle of training."""
        self._evaluate(epoch, self.dir / f"epoch_{epoch}" / self.split)
        mark_evaluated(self.dir, self.split, epoch)

    def of_checkpoints(self, start_epoch):
        """What the run has saved from ``start_epoch`` on."""
        writer = tensorboard_writer(self.dir / f"tensorboard_{self.split}") if self.session.dist.is_main else None
        repeat_eval_ckpt(
            self._evaluate_checkpoint, self.session.output_dir / "ckpt", self.dir, split=self.split,
            start_epoch=start_epoch, max_waiting_mins=self.session.args.max_waiting_mins, tb_log=writer,
            logger=self.session.logger,
        )  # fmt: skip

    def _evaluate_checkpoint(self, ckpt, epoch, result_dir):
        self.detector.load_params_from_file(filename=str(ckpt), logger=self.session.logger, to_cpu=True)
        return self._evaluate(epoch, result_dir)

    def _evaluate(self, epoch, result_dir):
        if self.loader is None:
            _, self.loader = self.session.loader(training=False)
        settings = EvalSettings.from_cfg(
            self.session.cfg, save_to_file=self.session.args.save_to_file, precision=self.session.precision
        )
        result = eval_one_epoch(
            self.detector, self.loader, settings, epoch_id=epoch, result_dir=result_dir, device=self.session.device,
            logger=self.session.logger,
        )  # fmt: skip
        if self.record is not None:
            self.record.add_result(epoch, result)
        return result


if __name__ == "__main__":
    _session.run(main)
