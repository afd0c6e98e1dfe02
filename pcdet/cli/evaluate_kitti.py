"""Scores a folder of KITTI result files against one of label files, as ``python -m pcdet.datasets.kitti.evaluate``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pcdet.datasets.kitti.evaluate import DEFAULT_CLASSES, evaluate_folders
from pcdet.datasets.kitti.kitti_object_eval_python.eval import format_table


def main(argv: Sequence[str] | None = None) -> None:
    """The command; its arguments are those of the process if None."""
    parser = argparse.ArgumentParser(prog="python -m pcdet.datasets.kitti.evaluate", description=__doc__)
    parser.add_argument("--label_path", required=True, help="folder of ground truth, 000000.txt, ...")
    parser.add_argument("--result_path", required=True, help="folder of results, 000000.txt, ...")
    parser.add_argument("--json", metavar="FILE", help="write all numbers there")
    parser.add_argument("--classes", nargs="+", default=DEFAULT_CLASSES, help="default: Car Pedestrian Cyclist")
    parser.add_argument("--label_split_file", help="score the frames that this file names, not all that have a result")
    args = parser.parse_args(argv)
    try:
        results = evaluate_folders(
            args.label_path, args.result_path, classes=args.classes, label_split_file=args.label_split_file
        )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    counts = {key: results.pop(key) for key in ("frames", "unscored")}
    if args.json:
        Path(args.json).write_text(json.dumps({**counts, **results}, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(format_table(results))
    sys.stdout.write(f"{counts['frames']} frames scored")
    if counts["unscored"]:
        sys.stdout.write(f"; {counts['unscored']} label files have no result file and were left out")
    sys.stdout.write("\n")
