"""What train.py and test.py share: flags, configuration, processes, folders, log, and the way a tool ends."""

import argparse
import contextlib
import datetime
import faulthandler
import logging
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import _init_path  # noqa: F401
import torch

from pcdet.config import (
    ConfigError,
    cfg,
    cfg_from_list,
    cfg_from_yaml_file,
    find_config_file,
    log_config_to_file,
    require_sections,
)
from pcdet.datasets import build_dataloader
from pcdet.datasets.errors import DataError
from pcdet.engine.dist import LAUNCHERS, DistInfo, end_dist, init_dist, split_batch_size
from pcdet.engine.optim import OptimizationConfig
from pcdet.engine.precision import AMP_DTYPES, Precision
from pcdet.engine.runtime import select_device, set_threads
from pcdet.engine.trainer import Interrupted, NonFiniteError
from pcdet.registry import parse_node
from pcdet.utils.checkpoint_reader import CheckpointError
from pcdet.utils.common_utils import create_logger
from pcdet.utils.commu_utils import call_on_main
from pcdet.utils.folder_lock import LOCK_FILE, FolderInUseError, FolderLock
from pcdet.utils.safe_files import WriteError, remove_partials
from pcdet.utils.weights import MisfitError

TOOLS = Path(__file__).resolve().parent
KNOWN_ERRORS = (
    ConfigError, CheckpointError, DataError, FolderInUseError, NonFiniteError, FileNotFoundError, WriteError,
)  # fmt: skip
PLAIN = "plain"  # folder, in that of a distillation, of the same student's training without a teacher


def common_parser(description):
    """Flags of train.py and test.py alike."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--cfg_file", required=True, help="model file, such as cfgs/kitti_models/pointpillar.yaml")
    add("--batch_size", type=int, help="samples over all processes; OPTIMIZATION.BATCH_SIZE_PER_GPU each if left out")
    add("--workers", type=int, default=4, help="loader processes per process")
    add("--extra_tag", default="default", help="last part of the output folder")
    add(
        "--output_dir",
        help="output folder, taken as it is; if left out, <repository>/output/<group>/<config>/<extra_tag>, and plain/ "
        "in it for train.py on a file with a KD block",
    )
    add("--ckpt", help="checkpoint to start from")
    add("--pretrained_model", help="weights; test.py lays them over --ckpt")
    add("--launcher", choices=LAUNCHERS, default="none")
    add("--tcp_port", type=int, default=18888, help="slurm only; torchrun finds its own")
    add("--local_rank", "--local-rank", type=int, help="for old launchers; the environment counts")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--threads", type=int, help="CPU threads per process; one where several processes run, else all CPUs")
    add_precision_flags(parser)
    add("--start_epoch", type=int, default=0, help="evaluate no earlier epoch")
    add("--max_waiting_mins", type=float, default=0, help="wait this long for further checkpoints before ending")
    add("--save_to_file", action="store_true", help="write one result file a frame")
    return parser


def add_precision_flags(parser):
    """Flags that :meth:`Precision.choose` follows."""
    add = parser.add_argument
    add("--use_amp", action="store_true", help="mixed precision, where the machine has arithmetic for it")
    auto = "auto: fp16 on a GPU, bf16 on a CPU that has instructions for it, else float32"
    add("--amp_dtype", choices=AMP_DTYPES, default="auto", help=f"type of --use_amp; {auto}; bf16 insists")
    add("--channels_last", action="store_true", help="channels-last feature maps, whatever the precision")


def add_set_flag(parser):
    """``--set`` takes the rest of the line, so it is added last."""
    parser.add_argument("--set", dest="set_cfgs", nargs=argparse.REMAINDER, help="KEY.SUB value ...; must come last")


@dataclass
class Session:
    """One run of a tool: what it was told, where it stands, and where it writes."""

    args: argparse.Namespace
    cfg: dict
    optim: OptimizationConfig
    dist: DistInfo
    device: torch.device
    precision: Precision
    batch_size: int  # per process
    output_dir: Path
    logger: object = None
    removed: list = field(default_factory=list)  # half-written files of killed processes

    @contextlib.contextmanager
    def hold(self, folder, advice):
        """Keeps other runs from writing to a folder during the block, and removes what killed ones left half-written.

        Raises:
            FolderInUseError: another run holds it; on every rank, so that none waits for rank 0.
            WriteError: the folder cannot be made or written to; on every rank.
        """
        with contextlib.ExitStack() as held:

            def lock():
                held.enter_context(FolderLock(folder, advice=advice))
                with naming_unwritable(folder):
                    self.removed += [file for own in own_folders(folder) for file in remove_partials(own)]

            call_on_main(lock)
            yield

    def start_log(self, log_file):
        """Opens the log on rank 0 and writes down how the run was started."""

        def make():
            with naming_unwritable(log_file):
                log_file.parent.mkdir(parents=True, exist_ok=True)
                log_file.touch()

        call_on_main(make)
        self.logger = log = create_logger(log_file, rank=self.dist.rank)
        log.info("**********************Start logging**********************")
        log.info(f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', 'ALL')}")
        if self.dist.distributed:
            total = self.batch_size * self.dist.world_size
            log.info(f"Training in distributed mode : total_batch_size: {total}, {self.dist.world_size} processes")
        for key, value in vars(self.args).items():
            log.info(f"{key:16} {value}")
        log.info(f"{'running on':16} {self.device}, {torch.get_num_threads()} threads")
        log_precision(self.precision, log)
        log_config_to_file(self.cfg, logger=log)
        for file in self.removed:
            log.info(f"Removed {file}, which a killed process left half-written")

    def loader(self, training, **options):
        """(data set, loader) of the training or the test split. Evaluation deals out its frames itself."""
        dataset, loader, _ = build_dataloader(
            dataset_cfg=self.cfg.DATA_CONFIG, class_names=self.cfg.CLASS_NAMES, batch_size=self.batch_size,
            dist=self.dist.distributed and training, workers=self.args.workers, logger=self.logger, training=training,
            **options,
        )  # fmt: skip
        return dataset, loader

    def place(self, model):
        """The model on its device, in the memory layout that goes with the precision."""
        return self.precision.lay_out(model.to(self.device))


@contextlib.contextmanager
def naming_unwritable(path):
    """Turns an OSError of what is written to ``path`` into a WriteError that names it."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"{error.filename or path} cannot be written: {error.strerror or error}; make room, or give --output_dir "
            "where this user may write"
        ) from error


def own_folders(folder):
    """A folder and those below it, but none with a lock of its own: another run writes there."""
    for path, below, _ in os.walk(folder):
        yield Path(path)
        below[:] = [name for name in below if not (Path(path) / name / LOCK_FILE).exists()]


def read_config(args, sections):
    """Fills ``cfg`` from ``--cfg_file`` and ``--set``; the sections that the tool reads must be there."""
    cfg_from_yaml_file(args.cfg_file, cfg)
    if args.set_cfgs:
        cfg_from_list(args.set_cfgs, cfg)
    require_sections(cfg, sections)


def load_detector_weights(model, args, logger, ckpt, pretrained=None):
    """Weights of a checkpoint; the error for one that does not fit ends with the flag that takes what does."""
    try:
        model.load_params_from_file(
            filename=str(ckpt), logger=logger, to_cpu=True, pre_trained_path=pretrained,
            allow_partial=args.allow_partial,
        )  # fmt: skip
    except MisfitError as error:
        if args.allow_partial:
            raise
        raise MisfitError(f"{error}\n--allow_partial takes what fits") from error


def open_session(args, without_kd=False):
    """Reads the configuration, joins the other processes and chooses the device.

    Args:
        args: flags of ``common_parser``.
        without_kd: whether a training leaves the file's ``KD`` block out; it then writes to a folder of its own.
    """
    read_config(args, ("CLASS_NAMES", "DATA_CONFIG", "MODEL", "OPTIMIZATION"))
    if getattr(args, "teacher_ckpt", None) and "KD" in cfg:
        cfg.KD.TEACHER = {**(cfg.KD.get("TEACHER") or {}), "CKPT": args.teacher_ckpt}
    path = find_config_file(args.cfg_file)
    cfg.TAG, cfg.EXP_GROUP_PATH = path.stem, experiment_group(path)
    optim = parse_node(cfg.OPTIMIZATION, OptimizationConfig, path="OPTIMIZATION")
    try:
        return _start_process(args, optim, output_folder(args, cfg, without_kd))
    except ValueError as error:  # a flag that this machine or launcher cannot follow
        raise ConfigError(str(error)) from error


def output_folder(args, cfg, without_kd):
    """``--output_dir``, else the experiment's folder; a control of a distillation must not write over its files."""
    if args.output_dir:
        return Path(args.output_dir)
    folder = Path(cfg.ROOT_DIR) / "output" / cfg.EXP_GROUP_PATH / cfg.TAG / args.extra_tag
    return folder / PLAIN if without_kd and cfg.get("KD") else folder


def _start_process(args, optim, output_dir):
    """Joins the launcher's processes; chooses device, threads and precision."""
    dist = init_dist(args.launcher, args.device, tcp_port=args.tcp_port)
    cfg.LOCAL_RANK = dist.rank
    device = select_device(args.device, dist.local_rank)
    set_threads(args.threads, dist.local_world_size)
    precision = Precision.choose(
        device, args.use_amp or optim.use_amp, dtype=args.amp_dtype, loss_scale=optim.loss_scale_fp16,
        channels_last=args.channels_last,
    )  # fmt: skip
    batch_size = split_batch_size(args.batch_size, optim.batch_size_per_gpu, dist.world_size)
    return Session(args, cfg, optim, dist, device, precision, batch_size, output_dir)


def log_precision(precision, logger):
    """One line on precision and layout, a warning where the machine only emulates the precision."""
    logger.log(logging.WARNING if precision.slow else logging.INFO, precision.describe())


def experiment_group(path):
    """The folders between ``cfgs`` and the file, as OpenPCDet gets them with ``tools`` as working directory."""
    parts = path.resolve().parent.parts
    if "cfgs" in parts:
        return "/".join(parts[len(parts) - parts[::-1].index("cfgs") :])
    return path.resolve().parent.name


def timestamp():
    """The time, as log files carry it."""
    return datetime.datetime.now().strftime("%Y%m%d-%H%M%S")


def how_to_go_on(command):
    """Which command resumes a stopped one; with ``--ckpt`` a training begins at that file again."""
    given = any(word == "--ckpt" or word.startswith("--ckpt=") for word in command)
    return "the same command without --ckpt" if given else "the same command"


def run(main):
    """Calls ``main``; known mistakes end with their message alone, a requested stop with the signal's exit code."""
    faulthandler.enable()  # a crash in native code says where it was called from
    try:
        main()
    except KNOWN_ERRORS as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except Interrupted as stop:
        print(f"Interrupted by {stop}; {how_to_go_on(sys.argv)} goes on from here", file=sys.stderr)
        sys.exit(128 + stop.signal_number)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    finally:
        end_dist()
