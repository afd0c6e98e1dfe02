"""Trains a detector, then evaluates its last checkpoint.

    python train.py --cfg_file cfgs/kitti_models/pointpillar.yaml
    bash scripts/dist_train.sh 2 --cfg_file cfgs/kitti_models/pointpillar.yaml

Started again, it goes on from the newest checkpoint of its output folder that can be read; one run at a time may use
the folder. A file's ``KD`` block is left out, and the output folder is then ``<extra_tag>/plain``: the control beside
what train_kd.py distils.
"""

import sys

import _session
from _session import Session, open_session

from pcdet.config import find_config_file
from pcdet.engine import hooks
from pcdet.engine.best import BestCheckpoint
from pcdet.engine.checkpoint import CheckpointError, check_form, plain_detector, read_checkpoint
from pcdet.engine.checkpoint_folder import has_checkpoints, newest_checkpoint
from pcdet.engine.evaluate import (
    EvalSettings,
    eval_one_epoch,
    evaluated_epochs,
    forget_evaluations,
    list_of_evaluated,
    mark_evaluated,
    repeat_eval_ckpt,
)
from pcdet.engine.optim import build_optimizer, build_scheduler
from pcdet.engine.run_facts import describe_run
from pcdet.engine.run_record import RecordTimes, RunRecord
from pcdet.engine.runtime import FIXED_SEED, choose_seed, parallelize, read_seed, seed_process
from pcdet.engine.tensorboard import TensorBoard
from pcdet.engine.trainer import Trainer, TrainSettings
from pcdet.models import build_network
from pcdet.utils import safe_files
from pcdet.utils.commu_utils import call_on_main


def parse_args(argv=None, distil=False):
    parser = _session.common_parser(__doc__.splitlines()[0])
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
        "--eval_interval the mean moderate 3D AP if left out",
    )  # fmt: skip
    add("--skip_eval", action="store_true", help="no evaluation after training")
    add("--use_tqdm_to_record", action="store_true", help="a progress bar instead of log lines")
    add("--logger_iter_interval", type=int, default=50)
    add("--wo_gpu_stat", action="store_true", help="no line on GPU memory")
    if distil:
        add("--teacher_ckpt", help="the teacher's checkpoint; KD.TEACHER.CKPT if left out")
    _session.add_set_flag(parser)
    args = parser.parse_args(argv)
    if args.seed is not None:
        args.seed = read_seed(args.seed)
    return args


def build_detector(cfg, dataset, logger, pretrained=None):
    """The network of the ``MODEL`` block, with what fits of the pretrained weights."""
    model = build_network(model_cfg=cfg.MODEL, num_class=len(cfg.CLASS_NAMES), dataset=dataset)
    if pretrained is not None:
        model.load_params_from_file(filename=pretrained, logger=logger, to_cpu=True, allow_partial=True)
    return model


def main(build_model=build_detector, distil=False):
    session = open_session(parse_args(distil=distil), without_kd=not distil)
    with session.hold(session.output_dir, "wait for it, or give this run another --extra_tag or --output_dir"):
        train(session, build_model, distil)


def train(session: Session, build_model, distil):
    args, logger = session.args, start(session)
    if not distil and session.cfg.get("KD"):
        tell_of_kd(session)
    epochs = args.epochs if args.epochs is not None else session.optim.num_epochs
    resume_from, state = find_state(session)
    if state is not None:
        check_form(state, resume_from)  # before its seed is used
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
    best = keep_best(session, record)
    evaluation = Evaluation(session, plain_detector(model), record, best)
    trainer.hooks = training_hooks(session, trainer, record, evaluation)
    name = f"{session.cfg.EXP_GROUP_PATH}/{session.cfg.TAG}({args.extra_tag})"
    begun_at = trainer.epoch
    if begun_at >= epochs:
        logger.info(f"{resume_from} is already trained {trainer.epoch} epochs; {epochs} were asked for")
    else:
        logger.info(f"**********************Start training {name}**********************")
        forget_evaluations(evaluation.dir, trainer.epoch)
        trainer.run()
        logger.info(f"**********************End training {name}**********************")
    if not args.skip_eval:
        logger.info(f"**********************Start evaluation {name}**********************")
        first = max(epochs - args.num_epochs_to_eval, args.start_epoch, 0)
        evaluation.of_checkpoints(first, trainer.epoch, begun_at + 1 if trainer.epoch > begun_at else None)
        logger.info(f"**********************End evaluation {name}**********************")


def start(session: Session):
    session.start_log(session.output_dir / f"train_{_session.timestamp()}.log")
    call_on_main(lambda: make_folders(session))
    return session.logger


def make_folders(session: Session):
    """The folder of checkpoints, and the configuration's copy."""
    ckpt_dir, cfg_file = session.output_dir / "ckpt", find_config_file(session.args.cfg_file)
    with _session.naming_unwritable(ckpt_dir):
        ckpt_dir.mkdir(parents=True, exist_ok=True)
    if cfg_file.resolve().parent == session.output_dir.resolve():  # a run repeated from its own copy
        return
    content, copy = cfg_file.read_bytes(), session.output_dir / cfg_file.name
    with _session.naming_unwritable(copy), safe_files.replacing(copy) as stream:
        stream.write(content)


def find_state(session: Session):
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


def tell_of_kd(session: Session):
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


def open_record(session: Session, seed, train_set):
    facts = describe_run(
        command=sys.argv, cfg=session.cfg, device=session.device, seed=seed, dataset=train_set,
        **session.precision.facts(), batch_size=session.batch_size * session.dist.world_size,
    )  # fmt: skip
    return RunRecord(session.output_dir / "run.json", facts, session.logger)


def keep_best(session: Session, record):
    """What keeps the best checkpoint, on rank 0 of a run that evaluates on the way or is told by which metric."""
    args = session.args
    if record is None or not (args.eval_interval > 0 or args.best_metric):
        return None
    return BestCheckpoint(session.output_dir / "ckpt", record, args.best_metric, session.logger)


def training_hooks(session: Session, trainer, record, evaluation):
    """Rank 0 saves, before anything else, and logs; the rest concerns every rank."""
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


class Evaluation:
    """Evaluates the detector that is being trained, on the test split; the data set is opened at the first use."""

    def __init__(self, session: Session, detector, record, best=None):
        self.session, self.detector, self.record, self.best, self.loader = session, detector, record, best, None
        self.dir = session.output_dir / "eval" / "eval_with_train"
        self.split = session.cfg.DATA_CONFIG.DATA_SPLIT["test"]

    def of_current_weights(self, epoch):
        """In the middle of training."""
        return self._evaluate(epoch, self.dir / f"epoch_{epoch}" / self.split)

    def mark(self, epoch):
        """Notes an epoch as evaluated."""
        mark_evaluated(self.dir, self.split, epoch)

    def evaluated(self):
        """The epochs noted so far."""
        return evaluated_epochs(list_of_evaluated(self.dir, self.split))

    def of_checkpoints(self, first_epoch, last_epoch, purge_step=None):
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

    def _load(self, ckpt):
        self.detector.load_params_from_file(filename=str(ckpt), logger=self.session.logger, to_cpu=True)

    def _evaluate_checkpoint(self, ckpt, epoch, result_dir):
        result = self._evaluate(epoch, result_dir)

        def keep_best():
            if self.best is not None:
                self.best.update(epoch, result, lambda: read_checkpoint(ckpt))

        call_on_main(keep_best)
        return result

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

        def keep():
            if self.record is not None:
                self.record.add_result(epoch, result)

        call_on_main(keep)
        return result


if __name__ == "__main__":
    _session.run(main)
