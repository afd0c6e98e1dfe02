r"""Compares detectors in one way: AP, parameters, MACs, milliseconds per frame and what their training cost.

    compare.py --model teacher cfgs/kitti_models/pointpillar.yaml TEACHER.pth \
               --model student cfgs/kitti_models/kd/pointpillar_4x.yaml STUDENT.pth --json out.json

The first row is the teacher; controls follow, then methods as they are given. Repeating a name adds a seed to its row.
"""

from __future__ import annotations

import argparse
import copy
import logging
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from pcdet.cli.contender import Conditions, Contender, evaluated_classes
from pcdet.cli.ending import run
from pcdet.cli.flags import add_precision_flags
from pcdet.cli.session import log_precision
from pcdet.config import ConfigError
from pcdet.engine.precision import Precision
from pcdet.experiments.quickstart.comparison import Row, write_json
from pcdet.experiments.quickstart.comparison_plot import plot_comparison
from pcdet.experiments.quickstart.comparison_tables import accuracy_tables, comparison_table, gain_table
from pcdet.utils.common_utils import create_logger
from pcdet.utils.cpu_features import read_processor
from pcdet.utils.model_stats import count_macs, count_parameters
from pcdet.utils.palette import in_order

LONGEST_NAME = 255  # bytes of a folder's name


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
    parser.add_argument("--detections", metavar="FOLDER", help="write FOLDER/NAME/seed<k>/result.pkl, as test.py does")
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
    if args.detections and (wrong := [name for name in names if not is_folder_name(name)]):
        parser.error(
            f"--detections writes a folder for each --model, but {', '.join(map(repr, wrong))} cannot be a folder's "
            "name: give a name without slashes and control characters that does not begin with a dot"
        )
    args.control = args.control or names[1:2]
    return args


def is_folder_name(name: str) -> bool:
    """Whether a model's name is safe as the name of a folder."""
    return (
        name.isprintable()
        and 0 < len(name.encode()) <= LONGEST_NAME
        and not name.startswith(".")
        and not set(name) & set("/\\")
    )


def choose_precision(args: argparse.Namespace) -> Precision:
    """The precision of every row; YAML files are not asked."""
    try:
        return Precision.choose(
            torch.device(args.device), args.use_amp, dtype=args.amp_dtype, channels_last=args.channels_last
        )
    except ValueError as error:  # a flag that this machine cannot follow
        raise ConfigError(str(error)) from error


def time_frame(contender: Contender, index: int) -> float:
    """Milliseconds of network and post-processing on one frame."""
    batch = contender.batch([index])
    _wait(contender)
    start = time.perf_counter()
    contender.detect(batch)
    _wait(contender)
    return 1e3 * (time.perf_counter() - start)


def _wait(contender: Contender) -> None:
    if contender.conditions.device.type == "cuda":
        torch.cuda.synchronize()


def time_side_by_side(contenders: Sequence[Contender], frames: int) -> dict[str, float]:
    """Median milliseconds per frame of each contender, the contenders taking turns frame by frame."""
    times = {c.name: [] for c in contenders}
    for index in tqdm(range(frames + 2), desc="timing", leave=False, dynamic_ncols=True, disable=None):
        for contender in contenders:
            ms = time_frame(contender, index)
            if index >= 2:  # the first calls pay for allocations and kernel selection
                times[contender.name].append(ms)
    return {name: float(np.median(ms)) for name, ms in times.items()}


def compare(args: argparse.Namespace) -> None:
    """Prints the tables and writes what ``--json``, ``--plot`` and ``--detections`` ask for."""
    torch.set_num_threads(args.threads)
    precision = choose_precision(args)
    logger = create_logger()
    log_precision(precision, logger)
    logger.setLevel("WARNING")  # the tables are the output
    with tempfile.TemporaryDirectory() as unwanted:
        rows, first_of, detections = measure(args, precision, Path(args.detections or unwanted), logger)
    names = list(rows)
    print(comparison_table(rows))
    if len(names) > 2:
        print("\n" + gain_table(rows, args.control))
    print("\n" + accuracy_tables(rows))
    teacher = first_of[names[0]]
    if args.json:
        kept = {"detections": {name: list(map(str, files)) for name, files in detections.items()}}
        write_json(args.json, rows, **facts_of(args, precision, teacher), **(kept if args.detections else {}))
    if args.plot:
        data = Path(teacher.cfg.DATA_CONFIG.DATA_PATH).name
        plot_comparison(rows, args.plot, title=f"{len(teacher.dataset)} frames of {data}")


def measure(
    args: argparse.Namespace, precision: Precision, folder: Path, logger: logging.Logger
) -> tuple[dict[str, Row], dict[str, Contender], dict[str, list[Path]]]:
    """(rows, the first contender of each, the detections of each seed, which lie in ``folder``) by name."""
    rows, first_of, detections = {}, {}, {}
    conditions = Conditions(
        torch.device(args.device), precision, args.batch_size, args.workers, args.threads, tuple(args.set_cfgs or ())
    )
    for number, (name, cfg_file, ckpt) in enumerate(args.model):
        contender = Contender(name, cfg_file, ckpt, conditions, logger)
        row, files = rows.setdefault(name, Row()), detections.setdefault(name, [])
        place = Path(name, f"seed{len(files)}") if args.detections else Path(str(number))
        result = contender.evaluate(folder / place)
        files.append((folder / place / "result.pkl").resolve())
        row.add(result, evaluated_classes(result))
        row.train_cpu_s.append(contender.training_cpu_seconds())
        if name not in first_of:
            first_of[name] = contender
            row.params = count_parameters(contender.model)
            row.macs, row.sparse_macs = count_macs(contender.model, contender.batch([0]))
    for name, ms in time_side_by_side(list(first_of.values()), args.timed_frames).items():
        rows[name].ms_per_frame = ms
    teacher, *others = rows
    return {name: rows[name] for name in [teacher, *in_order(others)]}, first_of, detections


def facts_of(args: argparse.Namespace, precision: Precision, teacher: Contender) -> Mapping:
    """What the rows were measured with."""
    return {
        "command": copy.copy(sys.argv),
        "frames": len(teacher.dataset),
        "data_path": str(teacher.cfg.DATA_CONFIG.DATA_PATH),
        "macs_frame": str(teacher.batch([0])["frame_id"][0]),
        "device": torch.cuda.get_device_name() if args.device == "cuda" else read_processor().name,
        "threads": args.threads,
        **precision.facts(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "models": [list(entry) for entry in args.model],
    }
