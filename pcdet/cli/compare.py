r"""Compares detectors in one way: AP, parameters, MACs, milliseconds per frame and what their training cost.

    compare.py --model teacher cfgs/kitti_models/pointpillar.yaml TEACHER.pth \
               --model student cfgs/kitti_models/kd/pointpillar_4x.yaml STUDENT.pth --json out.json

The first row is the teacher. Repeating a name adds a seed to its row.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from easydict import EasyDict
from tqdm import tqdm

from pcdet import api
from pcdet.cli.ending import run
from pcdet.cli.flags import add_precision_flags
from pcdet.cli.session import log_precision
from pcdet.config import ConfigError, cfg_from_list, cfg_from_yaml_file
from pcdet.datasets import build_dataloader
from pcdet.engine.precision import Precision
from pcdet.experiments.quickstart.comparison import Row, comparison_table, gain_table, plot_comparison, write_json
from pcdet.utils.common_utils import batch_to_device, create_logger
from pcdet.utils.cpu_features import read_processor
from pcdet.utils.model_stats import count_macs, count_parameters
from pcdet.utils.transfer import on_host
from pcdet.utils.weights import MisfitError


def main(argv: Sequence[str] | None = None) -> None:
    """The command; its arguments are those of the process if None."""
    run(lambda: compare(parse_args(argv)))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs=3, action="append", required=True, metavar=("NAME", "CFG", "CKPT"))
    parser.add_argument(
        "--control", action="append", help="row that gains are measured against; may be repeated (default: second name)"
    )
    parser.add_argument("--json", help="write the rows here")
    parser.add_argument("--plot", help="write a PNG here")
    parser.add_argument("--batch_size", type=int, default=4, help="for the AP; times are measured at batch size 1")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--timed_frames", type=int, default=20)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the network")
    add_precision_flags(parser)
    parser.add_argument("--set", dest="set_cfgs", nargs=argparse.REMAINDER, default=None)
    args = parser.parse_args(argv)
    names = list(dict.fromkeys(name for name, _, _ in args.model))
    if unknown := [control for control in args.control or () if control not in names]:
        parser.error(f"--control must be one of the models {names}, got {', '.join(unknown)}")
    args.control = args.control or names[1:2]
    return args


def choose_precision(args: argparse.Namespace) -> Precision:
    """The precision of every row; YAML files are not asked."""
    try:
        return Precision.choose(
            torch.device(args.device), args.use_amp, dtype=args.amp_dtype, channels_last=args.channels_last
        )
    except ValueError as error:  # a flag that this machine cannot follow
        raise ConfigError(str(error)) from error


class Contender:
    """One config and checkpoint, ready to be evaluated and timed.

    Args:
        name: of its row.
        cfg_file: the model file.
        ckpt: its weights.
        args: of ``parse_args``.
        precision: of evaluation and timing.
        logger: for what is read.

    Raises:
        MisfitError: the checkpoint is of another model; the row and the file are named.
    """

    def __init__(
        self,
        name: str,
        cfg_file: str,
        ckpt: str,
        args: argparse.Namespace,
        precision: Precision,
        logger: logging.Logger,
    ):
        self.name, self.ckpt, self.device, self.precision = name, Path(ckpt), torch.device(args.device), precision
        self.cfg = cfg_from_yaml_file(cfg_file, EasyDict(LOCAL_RANK=0))
        if args.set_cfgs:
            cfg_from_list(args.set_cfgs, self.cfg)
        self.dataset, self.loader, _ = build_dataloader(
            dataset_cfg=self.cfg.DATA_CONFIG, class_names=self.cfg.CLASS_NAMES, batch_size=args.batch_size, dist=False,
            workers=args.workers, logger=logger, training=False,
        )  # fmt: skip
        try:
            model = api.build_detector(self.cfg, self.dataset, ckpt=ckpt, logger=logger)
        except MisfitError as error:
            raise MisfitError(f"--model {name} ({cfg_file}): {error}") from error
        self.model = api.place(model, self.device, precision).eval()

    def evaluate(self) -> dict:
        """The data set's result dictionary over its whole test split."""
        annos = []
        for batch in tqdm(self.loader, desc=self.name, leave=False, dynamic_ncols=True, disable=None):
            batch_to_device(batch, self.device)
            with torch.no_grad(), self.precision.autocast():
                predictions, _ = self.model(batch)
            annos += self.dataset.generate_prediction_dicts(batch, on_host(predictions), self.cfg.CLASS_NAMES)
        _, result = self.dataset.evaluation(annos, self.cfg.CLASS_NAMES, eval_metric="kitti")
        if not result:
            raise SystemExit(f"{self.cfg.DATA_CONFIG.DATA_PATH}: the test split has no labels, so there is no AP")
        return result

    def frame(self, index: int) -> dict:
        """A batch of one frame on the device."""
        batch = self.dataset.collate_batch([self.dataset[index % len(self.dataset)]])
        return batch_to_device(batch, self.device)

    def time_frame(self, index: int) -> float:
        """Milliseconds of network and post-processing on one frame."""
        batch = self.frame(index)
        self._wait()
        start = time.perf_counter()
        with torch.no_grad(), self.precision.autocast():
            self.model(batch)
        self._wait()
        return 1e3 * (time.perf_counter() - start)

    def training_cpu_seconds(self) -> float | None:
        """CPU seconds that the run record beside the checkpoint states, or None."""
        record = self.ckpt.parent.parent / "run.json"
        return json.loads(record.read_text()).get("train_cpu_s") if record.is_file() else None

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def time_side_by_side(contenders: Sequence[Contender], frames: int) -> dict[str, float]:
    """Median milliseconds per frame of each contender, the contenders taking turns frame by frame."""
    times = {c.name: [] for c in contenders}
    for index in tqdm(range(frames + 2), desc="timing", leave=False, dynamic_ncols=True, disable=None):
        for contender in contenders:
            ms = contender.time_frame(index)
            if index >= 2:  # the first calls pay for allocations and kernel selection
                times[contender.name].append(ms)
    return {name: float(np.median(ms)) for name, ms in times.items()}


def compare(args: argparse.Namespace) -> None:
    """Prints the tables and writes what ``--json`` and ``--plot`` ask for."""
    torch.set_num_threads(args.threads)
    precision = choose_precision(args)
    logger = create_logger()
    log_precision(precision, logger)
    logger.setLevel("WARNING")  # the tables are the output
    rows, first_of = measure(args, precision, logger)
    names = list(rows)
    print(comparison_table(rows))
    if len(names) > 2:
        print("\n" + gain_table(rows, args.control))
    teacher = first_of[names[0]]
    if args.json:
        write_json(args.json, rows, **facts_of(args, precision, teacher))
    if args.plot:
        data = Path(teacher.cfg.DATA_CONFIG.DATA_PATH).name
        plot_comparison(rows, args.plot, title=f"{len(teacher.dataset)} frames of {data}")


def measure(
    args: argparse.Namespace, precision: Precision, logger: logging.Logger
) -> tuple[dict[str, Row], dict[str, Contender]]:
    """(rows, the first contender of each) by name."""
    rows, first_of = {}, {}
    for name, cfg_file, ckpt in args.model:
        contender = Contender(name, cfg_file, ckpt, args, precision, logger)
        row = rows.setdefault(name, Row())
        row.add(contender.evaluate(), contender.cfg.CLASS_NAMES)
        row.train_cpu_s.append(contender.training_cpu_seconds())
        if name not in first_of:
            first_of[name] = contender
            row.params = count_parameters(contender.model)
            row.macs, row.sparse_macs = count_macs(contender.model, contender.frame(0))
    for name, ms in time_side_by_side(list(first_of.values()), args.timed_frames).items():
        rows[name].ms_per_frame = ms
    return rows, first_of


def facts_of(args: argparse.Namespace, precision: Precision, teacher: Contender) -> Mapping:
    """What the rows were measured with."""
    return {
        "command": copy.copy(sys.argv),
        "frames": len(teacher.dataset),
        "data_path": str(teacher.cfg.DATA_CONFIG.DATA_PATH),
        "macs_frame": str(teacher.frame(0)["frame_id"][0]),
        "device": torch.cuda.get_device_name() if args.device == "cuda" else read_processor().name,
        "threads": args.threads,
        **precision.facts(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "models": [list(entry) for entry in args.model],
    }
