"""One run of training or testing: its configuration, processes, device, folder, log and data."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pcdet import api
from pcdet.cli.ending import naming_unwritable
from pcdet.cli.folders import experiment_group, output_folder, own_folders
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
from pcdet.engine.dist import DistInfo, init_dist, split_batch_size
from pcdet.engine.optim import OptimizationConfig
from pcdet.engine.precision import Precision
from pcdet.engine.runtime import select_device, set_threads
from pcdet.registry import parse_node
from pcdet.utils.common_utils import create_logger
from pcdet.utils.commu_utils import call_on_main
from pcdet.utils.folder_lock import FolderLock
from pcdet.utils.safe_files import remove_partials


@dataclass
class Session:
    """One run of a command: what it was told, where it stands, and where it writes."""

    args: argparse.Namespace
    cfg: dict
    optim: OptimizationConfig
    dist: DistInfo
    device: torch.device
    precision: Precision
    batch_size: int  # per process
    output_dir: Path
    logger: logging.Logger | None = None
    removed: list = field(default_factory=list)  # half-written files of killed processes

    @contextlib.contextmanager
    def hold(self, folder: Path, advice: str) -> Iterator[None]:
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

    def start_log(self, log_file: Path) -> None:
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

    def loader(self, training: bool, **options: Any) -> tuple:
        """(data set, loader) of the training or the test split. Evaluation deals out its frames itself."""
        dataset, loader, _ = build_dataloader(
            dataset_cfg=self.cfg.DATA_CONFIG, class_names=self.cfg.CLASS_NAMES, batch_size=self.batch_size,
            dist=self.dist.distributed and training, workers=self.args.workers, logger=self.logger, training=training,
            **options,
        )  # fmt: skip
        return dataset, loader

    def place(self, model: nn.Module) -> nn.Module:
        """The model on its device, in the memory layout that goes with the precision."""
        return api.place(model, self.device, self.precision)


def open_session(args: argparse.Namespace, without_kd: bool = False) -> Session:
    """Reads the configuration, joins the other processes and chooses the device.

    Args:
        args: flags of ``common_parser``.
        without_kd: whether a training leaves the file's ``KD`` block out; it then writes to a folder of its own.

    Raises:
        ConfigError: with everything that is wrong with the file, ``--set`` or a flag.
        FileNotFoundError: there is no such file.
    """
    read_config(args, ("CLASS_NAMES", "DATA_CONFIG", "MODEL", "OPTIMIZATION"))
    if getattr(args, "teacher_ckpt", None) and "KD" in cfg:
        cfg.KD.TEACHER = {**(cfg.KD.get("TEACHER") or {}), "CKPT": args.teacher_ckpt}
    if without_kd and cfg.DATA_CONFIG.get("PSEUDO_LABELS") is None:
        cfg.DATA_CONFIG.INFO_PATH.pop("unlabelled", None)  # nobody labels these frames
    path = find_config_file(args.cfg_file)
    cfg.TAG, cfg.EXP_GROUP_PATH = path.stem, experiment_group(path)
    optim = parse_node(cfg.OPTIMIZATION, OptimizationConfig, path="OPTIMIZATION")
    try:
        return _start_process(args, optim, output_folder(args, cfg, without_kd))
    except ValueError as error:  # a flag that this machine or launcher cannot follow
        raise ConfigError(str(error)) from error


def read_config(args: argparse.Namespace, sections: Sequence[str]) -> None:
    """Fills ``cfg`` from ``--cfg_file`` and ``--set``; the sections that the command reads must be there."""
    cfg_from_yaml_file(args.cfg_file, cfg)
    if args.set_cfgs:
        cfg_from_list(args.set_cfgs, cfg)
    require_sections(cfg, sections)


def _start_process(args: argparse.Namespace, optim: OptimizationConfig, output_dir: Path) -> Session:
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


def log_precision(precision: Precision, logger: logging.Logger) -> None:
    """One line on precision and layout, a warning where the machine only emulates the precision."""
    logger.log(logging.WARNING if precision.slow else logging.INFO, precision.describe())
