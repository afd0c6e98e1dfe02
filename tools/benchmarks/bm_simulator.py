"""Scenes per second of the lidar simulator, files included.

``python tools/benchmarks/bm_simulator.py [--frames 200] [--workers 1 2] [--images] [--repeats 3] [--json FILE]``
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from pcdet.datasets.simulated import write_kitti


def measure(frames, workers, images):
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_kitti(Path(folder) / "set", frames=frames, workers=workers, images=images, progress=False)
        return frames / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print(f"{platform.machine()} {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}")
    print(f"{args.frames} frames, images {args.images}, seed 0, {args.repeats} repeats, process start included")
    scenes_a_second = {}
    for workers in args.workers:
        rates = scenes_a_second[workers] = [measure(args.frames, workers, args.images) for _ in range(args.repeats)]
        print(
            f"{workers} workers: median {statistics.median(rates):6.1f} scenes/s, "
            f"lowest {min(rates):6.1f}, highest {max(rates):6.1f}"
        )
    if args.json:
        result = {"frames": args.frames, "images": args.images, "scenes_a_second": scenes_a_second}
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
