"""Scores a result file of nuScenes' detection challenge, as ``python -m pcdet.datasets.nuscenes.evaluate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tqdm import tqdm

from pcdet.datasets.nuscenes.evaluate import evaluate_file
from pcdet.datasets.nuscenes.evaluation import write_metrics
from pcdet.datasets.nuscenes.evaluation.rules import SPLIT_OF_VERSION
from pcdet.datasets.nuscenes.evaluation.text import format_table


def main(argv: Sequence[str] | None = None) -> None:
    """The command; its arguments are those of the process if None."""
    parser = argparse.ArgumentParser(prog="python -m pcdet.datasets.nuscenes.evaluate", description=__doc__)
    parser.add_argument("--result_path", required=True, help="results_nusc.json, as the challenge takes it")
    parser.add_argument("--dataroot", required=True, help="folder that holds the folder of the tables")
    parser.add_argument("--version", required=True, help="its name, such as v1.0-trainval")
    by_default = ", ".join(f"{split} of {version}" for version, split in SPLIT_OF_VERSION.items())
    parser.add_argument("--split", help=f"whose samples the results are of (default: {by_default})")
    parser.add_argument("--json", metavar="FILE", help="write all numbers there, in the form of metrics_summary.json")
    args = parser.parse_args(argv)
    try:
        metrics = evaluate_file(
            args.result_path, args.dataroot, args.version, split=args.split,
            progress=lambda names: tqdm(names, desc="classes", leave=False, disable=not sys.stderr.isatty()),
        )  # fmt: skip
        if args.json:
            write_metrics(args.json, metrics)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(format_table(metrics, version=args.version))
