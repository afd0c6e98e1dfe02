r"""Compares detectors in one way: accuracy, size, times by stage, peak memory and what their training cost.

    compare.py --model teacher cfgs/kitti_models/pointpillar.yaml TEACHER.pth \
               --model student cfgs/kitti_models/kd/pointpillar_4x.yaml STUDENT.pth --json out.json

The first row is the teacher; controls follow, then methods as they are given. Repeating a name adds a seed to its row.
"""

from __future__ import annotations

import argparse
import copy
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from logging import Logger
from pathlib import Path

import numpy as np
import torch

from pcdet.cli.auditing import add_page_flags, check_page_flags, numbers_file
from pcdet.cli.compare_page import write_comparison_page
from pcdet.cli.contender import Conditions, Contender
from pcdet.cli.ending import run
from pcdet.cli.flags import add_precision_flags
from pcdet.cli.peak_memory import peak_memory
from pcdet.cli.session import log_precision
from pcdet.cli.stage_times import time_stages
from pcdet.config import ConfigError
from pcdet.datasets.pickles import read_pickle
from pcdet.engine.precision import Precision
from pcdet.experiments.quickstart.comparison import Row, comparison_to_json, rows_to_json, write_json
from pcdet.experiments.quickstart.comparison_plot import plot_comparison
from pcdet.experiments.quickstart.comparison_tables import accuracy_tables, comparison_table, gain_table, stage_table
from pcdet.utils.common_utils import create_logger
from pcdet.utils.cpu_features import mixed_precision, read_processor
from pcdet.utils.model_stats import count_macs, count_parameters
from pcdet.utils.palette import in_order

SHORT_NAMES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
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
    parser.add_argument("--batch_size", type=int, default=4, help="of the evaluation")
    parser.add_argument("--workers", type=int, default=1, help="loading processes of the evaluation")
    parser.add_argument("--batch_sizes", type=positive, nargs="+", default=[1], help="to measure times and memory at")
    parser.add_argument("--timed_frames", type=positive, default=20, help="batches that are timed at each size")
    parser.add_argument("--no_memory", action="store_true", help="leave out peak memory, measured in a new process")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the network")
    parser.add_argument("--page", help="write an HTML page of rows, objects and scenes here (docs/AUDIT.md)")
    add_page_flags(parser)
    add_precision_flags(parser)
    parser.add_argument(
        "--precisions", nargs="+", choices=SHORT_NAMES.values(), help="compare in each of them, in place of --use_amp"
    )
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
    if args.precisions and (args.use_amp or args.amp_dtype != "auto"):
        parser.error("--precisions says in which precisions to compare: leave --use_amp and --amp_dtype out")
    args.control = args.control or names[1:2]
    args.batch_sizes = list(dict.fromkeys(args.batch_sizes))
    return args


def positive(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def is_folder_name(name: str) -> bool:
    """Whether a model's name is safe as the name of a folder."""
    return (
        name.isprintable()
        and 0 < len(name.encode()) <= LONGEST_NAME
        and not name.startswith(".")
        and not set(name) & set("/\\")
    )


def choose_precisions(args: argparse.Namespace) -> dict[str, Precision]:
    """The precisions to compare in, by their names in ``--precisions``; YAML files are not asked.

    Raises:
        ConfigError: this machine cannot follow a flag, or has no arithmetic of its own for a precision.
    """
    device = torch.device(args.device)
    wanted = [(name != "fp32", name if name != "fp32" else "auto") for name in args.precisions or ()]
    try:
        chosen = [
            Precision.choose(device, half, dtype=dtype, channels_last=args.channels_last)
            for half, dtype in wanted or [(args.use_amp, args.amp_dtype)]
        ]
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if args.precisions and any(precision.slow for precision in chosen):
        raise ConfigError(
            f"--precisions bf16: {mixed_precision(read_processor()).reason}, so its times would be those of an "
            "emulation; leave bf16 out, or insist by --use_amp --amp_dtype bf16 in place of --precisions"
        )
    return {SHORT_NAMES[precision.name]: precision for precision in chosen}


@dataclass
class Measured:
    """What was measured in one precision.

    Attributes:
        conditions: of all contenders.
        rows: by name.
        first_of: each name's first contender.
        detections: each name's files, one a seed.
        results: what each of these files holds, where a page is asked for.
        frames: that all of them were evaluated on.
    """

    conditions: Conditions
    rows: dict[str, Row] = field(default_factory=dict)
    first_of: dict[str, Contender] = field(default_factory=dict)
    detections: dict[str, list[str]] = field(default_factory=dict)
    results: dict[str, list[list[dict]]] = field(default_factory=dict)
    frames: Sequence[str] = ()


def compare(args: argparse.Namespace) -> None:
    """Prints the tables and writes what ``--json``, ``--plot``, ``--page`` and ``--detections`` ask for."""
    torch.set_num_threads(args.threads)
    if args.page:
        numbers_file(args.page, [args.json])  # before hours of measuring
        check_page_flags(args)
    precisions = choose_precisions(args)
    logger = create_logger()
    for precision in precisions.values():
        log_precision(precision, logger)
    logger.setLevel("WARNING")  # the tables are the output
    measured = measure(args, precisions, logger)
    for name, one in measured.items():
        print(("" if len(measured) == 1 else f"\n==== {name}\n\n") + tables_of(one.rows, args.control))
    first = next(iter(measured.values()))
    teacher = next(iter(first.first_of.values()))
    facts = facts_of(args, measured, teacher)
    if args.json:
        write_json(args.json, first.rows, **facts)
    if args.plot:
        data = Path(teacher.cfg.DATA_CONFIG.DATA_PATH).name
        plot_comparison(first.rows, args.plot, title=f"{len(teacher.dataset)} frames of {data}")
    if args.page:
        contenders = {name: first.first_of[name] for name in first.rows}
        write_comparison_page(args, contenders, first.results, comparison_to_json(first.rows, **facts))


def tables_of(rows: Mapping[str, Row], controls: Sequence[str]) -> str:
    """All tables of one precision."""
    gains = [gain_table(rows, controls)] if len(rows) > 2 else []
    return "\n\n".join([comparison_table(rows), *gains, stage_table(rows), accuracy_tables(rows)])


def measure(args: argparse.Namespace, precisions: Mapping[str, Precision], logger: Logger) -> dict[str, Measured]:
    """What each precision gives: all models are evaluated, then timed side by side, then run for their memory."""
    device, changes = torch.device(args.device), tuple(args.set_cfgs or ())
    measured = {}
    for name, precision in precisions.items():
        conditions = Conditions(device, precision, args.batch_size, args.workers, args.threads, changes)
        measured[name] = measured_in(conditions, args, "" if not measured else name, logger)
    contenders = {(of, name): c for of, one in measured.items() for name, c in one.first_of.items()}
    for (of, name), times in time_stages(contenders, args.batch_sizes, args.timed_frames).items():
        row = measured[of].rows[name]
        row.ms_by_stage, row.ms_per_frame = times, times[args.batch_sizes[0]]["forward"].median
    if not args.no_memory:
        entries = [(c.name, c.cfg_file, c.ckpt, c.conditions) for c in contenders.values()]
        for (of, name), peaks in zip(contenders, peak_memory(entries, args.batch_sizes), strict=True):
            measured[of].rows[name].peak_memory = peaks
    return measured


def measured_in(conditions: Conditions, args: argparse.Namespace, subfolder: str, logger: Logger) -> Measured:
    """Accuracy and size of every model; each seed's detections go to a ``subfolder`` of its folder."""
    out = Measured(conditions)
    for name, cfg_file, ckpt in args.model:
        contender = Contender(name, cfg_file, ckpt, conditions, logger)
        row = out.rows.setdefault(name, Row(metrics=contender.dataset.METRICS))
        files = out.detections.setdefault(name, [])
        with tempfile.TemporaryDirectory() as unwanted:
            folder = Path(args.detections, name, f"seed{len(files)}", subfolder) if args.detections else Path(unwanted)
            result = contender.evaluate(folder)
            files.append(str((folder / "result.pkl").resolve()))
            results = read_pickle(folder / "result.pkl")
        check_frames(contender, [str(frame["frame_id"]) for frame in results], out)
        if args.page:
            out.results.setdefault(name, []).append(results)
        check_classes(contender, result, out.rows)
        row.add(result, row.metrics.classes(result))
        row.train_cpu_s.append(contender.training_cpu_seconds())
        if name not in out.first_of:
            out.first_of[name] = contender
            row.params = count_parameters(contender.model)
            row.macs, row.sparse_macs = count_macs(contender.model, contender.batch([0]))
    teacher, *others = out.rows
    out.rows = {name: out.rows[name] for name in [teacher, *in_order(others)]}
    return out


def check_frames(contender: Contender, frames: Sequence[str], out: Measured) -> None:
    """ConfigError where a model is evaluated on other frames than the first row."""
    out.frames = out.frames or frames
    if set(frames) != set(out.frames):
        only = [*(set(frames) - set(out.frames)), *(set(out.frames) - set(frames))]
        raise ConfigError(
            f"--model {contender.name} ({contender.cfg_file}): it is evaluated on {len(frames)} frames, the first row "
            f"on {len(out.frames)}, and frame {min(only)} belongs to one of them alone; compare models on the same "
            "frames (DATA_CONFIG.DATA_PATH, DATA_SPLIT, INFO_PATH)"
        )


def check_classes(contender: Contender, result: Mapping[str, float], rows: Mapping[str, Row]) -> None:
    """ConfigError where a model is evaluated on other classes than the first row: their means are not comparable."""
    first, row = next(iter(rows.items()))
    own, known = row.metrics.classes(result), list(row.per_class)
    if known and set(own) != set(known):
        raise ConfigError(
            f"--model {contender.name} ({contender.cfg_file}): it is evaluated on {', '.join(own)}, but {first} on "
            f"{', '.join(known)}; compare models of the same classes (CLASS_NAMES)"
        )


def facts_of(args: argparse.Namespace, measured: Mapping[str, Measured], teacher: Contender) -> Mapping:
    """What the rows were measured with, where the detections lie, and the rows of further precisions."""
    (_, first), *others = measured.items()
    device = torch.device(args.device)
    return {
        "command": copy.copy(sys.argv),
        "frames": len(teacher.dataset),
        "data_path": str(teacher.cfg.DATA_CONFIG.DATA_PATH),
        "macs_frame": str(teacher.batch([0])["frame_id"][0]),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else read_processor().name,
        "threads": args.threads,
        **first.conditions.precision.facts(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "models": [list(entry) for entry in args.model],
        **({"detections": first.detections} if args.detections else {}),
        "other_precisions": {
            name: {
                "rows": rows_to_json(one.rows),
                **one.conditions.precision.facts(),
                **({"detections": one.detections} if args.detections else {}),
            }
            for name, one in others
        },
    }
