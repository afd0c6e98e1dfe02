"""Times the loading of ten sweeps with augmentation and voxels, stage by stage, in one worker.

    python tools/benchmarks/bm_nuscenes_loading.py [--data_path DIR] [--frames 24] [--rounds 3] [--json FILE]

Without --data_path, sweeps of nuScenes' size (34,688 points, ten a sample) are simulated in a temporary folder. Beside
the wall clock stands the CPU time, which is the figure to compare on a machine that others use too. Files are read
once before, so that the disk is warm.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

REPO_ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO_ROOT))

import numpy as np
import torch
from _nuscenes import write_prepared
from easydict import EasyDict

from pcdet.config import cfg_from_yaml_file
from pcdet.datasets.loader import build_dataset
from pcdet.datasets.nuscenes.categories import DETECTION_CLASSES
from pcdet.engine.runtime import set_threads

CONFIG = REPO_ROOT / "tools/cfgs/dataset_configs/nuscenes_dataset.yaml"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", type=Path, help="a prepared release, VERSION/... below it")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    return parser.parse_args()


class Stages:
    """(wall, CPU) seconds of every stage of every sample."""

    def __init__(self):
        self.times: dict[str, list[tuple[float, float]]] = {}

    def timed(self, name: str, call):
        """``call``, timed under a name."""

        def run(*arguments):
            wall, cpu = time.perf_counter(), time.process_time()
            result = call(*arguments)
            taken = time.perf_counter() - wall, time.process_time() - cpu
            self.times.setdefault(name, []).append(taken)
            return result

        return run


def watch(dataset, stages: Stages) -> None:
    """Times each stage of a data set's samples."""
    dataset.load_frame = stages.timed("load ten sweeps", dataset.load_frame)
    augmentor, processor = dataset.data_augmentor, dataset.data_processor
    augmentor.queue = [(name, stages.timed(name, step)) for name, step in augmentor.queue]
    steps = processor.data_processor_queue
    processor.data_processor_queue = [stages.timed(type(step).__name__, step) for step in steps]


def main() -> None:
    args = parse_args()
    set_threads(1)  # of the linear-algebra library too: its idle threads spin, and their time would count
    config = cfg_from_yaml_file(CONFIG, EasyDict())
    stages = Stages()
    with tempfile.TemporaryDirectory() as folder:
        root = args.data_path or Path(folder)
        if args.data_path is None:
            write_prepared(root, args.frames)
        dataset = build_dataset(config, list(DETECTION_CLASSES), training=True, root_path=root)
        dataset.order = np.arange(len(dataset.infos))
        dataset.set_seed(0)
        number = min(args.frames, len(dataset))
        points = [len(dataset.load_frame(i)["points"]) for i in range(number)]  # warms the disk
        watch(dataset, stages)
        whole = stages.timed("whole sample", dataset.__getitem__)
        for epoch in range(args.rounds):
            dataset.set_epoch(epoch)
            for i in range(number):
                whole(i)
    report(args, stages, points)


def report(args: argparse.Namespace, stages: Stages, points: list[int]) -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__},")
    print(f"Python {platform.python_version()}, numpy {np.__version__}; {median(points):.0f} points a sample")
    rows = {}
    for name, times in stages.times.items():
        wall, cpu = (median(part) * 1e3 for part in zip(*times, strict=True))
        least = min(cpu for _, cpu in times) * 1e3
        rows[name] = {"wall_ms": wall, "cpu_ms": cpu, "least_cpu_ms": least, "n": len(times)}
        print(f"{name:40s} {wall:8.1f} ms   cpu {cpu:8.1f} ms   least {least:8.1f} ms")
    whole = rows["whole sample"]
    often, best = (1e3 / whole[key] for key in ("cpu_ms", "least_cpu_ms"))
    print(f"{often:.1f} samples a second of one core's time, {best:.1f} where nothing disturbs it")
    if args.json:
        args.json.write_text(json.dumps({"command": sys.argv, "figures": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
