"""Writes a KITTI-layout folder of simulated lidar frames: ``python -m pcdet.datasets.simulated``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pcdet.datasets.simulated.writer import FARTHEST, write_kitti

PURPOSE = "Writes a KITTI-layout folder of simulated lidar frames. The same seed gives the same bytes."


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the arguments and writes the folder; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pcdet.datasets.simulated", description=PURPOSE)
    parser.add_argument("--out", required=True, help="folder to write; an interrupted run goes on there")
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=None, help="processes; default: one per core")
    parser.add_argument("--val-frames", type=int, default=None, help="frames in the val split; default: a quarter")
    parser.add_argument("--far", type=float, default=FARTHEST, help="labelled objects stand up to so many metres ahead")
    parser.add_argument("--images", action="store_true", help="render image_2 as well")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = vars(parser.parse_args(argv))
    try:
        write_kitti(options.pop("out"), progress=not options.pop("quiet"), **options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
