"""Times loading, augmentation, voxels and collation, and how long a training step waits for them.

    python tools/benchmarks/bm_dataloader.py [--cfg_file F] [--data_path DIR] [--workers 2] [--json FILE]

Without --data_path, simulated frames are made in a temporary folder. Stages are timed in this process, the loader with
its workers, and the training step (forward, backward, Adam) with the loader beside it: "wait" is what the step spends
in ``next(loader)``; loading is hidden where it is far below the step.
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
from easydict import EasyDict

from pcdet.config import cfg_from_yaml_file
from pcdet.datasets import build_dataloader
from pcdet.datasets.kitti.kitti_infos import create_kitti_infos
from pcdet.datasets.simulated import write_kitti
from pcdet.models import build_network
from pcdet.utils.common_utils import batch_to_device


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg_file", default="cfgs/kitti_models/pointpillar.yaml")
    parser.add_argument("--data_path", type=Path, help="a prepared folder in KITTI's layout")
    parser.add_argument("--frames", type=int, default=60, help="simulated frames, where there is no --data_path")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=12, help="of the stages and of the loader")
    parser.add_argument("--steps", type=int, default=5, help="training steps; 0 leaves them out")
    parser.add_argument("--threads", type=int, default=1, help="of the training step")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


class Stages:
    """Adds up the time spent in methods of a data set."""

    def __init__(self, dataset):
        self.seconds: dict[str, list[float]] = {}
        self._wrap(dataset, "load_frame", "load and crop")
        self._wrap(dataset.data_augmentor, "forward", "augment")
        for step in dataset.data_processor.data_processor_queue:
            self._wrap_call(step)

    def _wrap(self, owner, method: str, name: str) -> None:
        setattr(owner, method, self.timed(getattr(owner, method), name))

    def _wrap_call(self, step) -> None:
        timed = self.timed(type(step).__call__, type(step).__name__)
        step.__class__ = type(type(step).__name__, (type(step),), {"__call__": timed})

    def timed(self, function, name: str):
        """``function``, whose times are kept under ``name``."""

        def call(*arguments):
            start = time.perf_counter()
            result = function(*arguments)
            self.seconds.setdefault(name, []).append(time.perf_counter() - start)
            return result

        return call


def ms(seconds: list[float]) -> str:
    values = 1e3 * np.array(seconds)
    return f"{median(values):9.1f} ms  [{values.min():.1f} .. {values.max():.1f}]  n {len(values)}"


def build(args: argparse.Namespace, config: EasyDict, root: Path, workers: int):
    return build_dataloader(
        config.DATA_CONFIG, config.CLASS_NAMES, args.batch_size, dist=False, root_path=root, workers=workers, seed=0
    )


def time_stages(args: argparse.Namespace, config: EasyDict, root: Path) -> dict[str, list[float]]:
    """Seconds a sample by stage, and seconds a batch for collation."""
    dataset, _, sampler = build(args, config, root, 0)
    order = list(sampler)
    dataset[order[0]]
    stages = Stages(dataset)
    collate = stages.timed(dataset.collate_batch, "collate (a batch)")
    sample = stages.timed(dataset.__getitem__, "a whole sample")
    for i in range(args.batches):
        collate([sample(order[(args.batch_size * i + j) % len(order)]) for j in range(args.batch_size)])
    return stages.seconds


def endless(loader, dataset, sampler):
    epoch = 0
    while True:
        dataset.set_epoch(epoch)
        sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


def time_loader(args: argparse.Namespace, config: EasyDict, root: Path) -> list[float]:
    """Seconds between batches, when nothing else is done."""
    dataset, loader, sampler = build(args, config, root, args.workers)
    batches, seconds = endless(loader, dataset, sampler), []
    next(batches)
    for _ in range(args.batches):
        start = time.perf_counter()
        next(batches)
        seconds.append(time.perf_counter() - start)
    return seconds


def time_training(args: argparse.Namespace, config: EasyDict, root: Path) -> tuple[list[float], list[float]]:
    """Seconds a step waits for its batch, and seconds it then computes."""
    dataset, loader, sampler = build(args, config, root, args.workers)
    torch.manual_seed(0)
    model = build_network(config.MODEL, len(config.CLASS_NAMES), dataset).to(args.device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    waits, steps = [], []
    batches = endless(loader, dataset, sampler)
    for _ in range(args.steps + 1):
        start = time.perf_counter()
        batch = next(batches)
        loaded = time.perf_counter()
        loss = model(batch_to_device(batch, args.device))[0]["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        waits.append(loaded - start)
        steps.append(time.perf_counter() - loaded)
    return waits[1:], steps[1:]  # the first one starts the workers


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    config = cfg_from_yaml_file(args.cfg_file, EasyDict())
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__},")
    print(f"Python {platform.python_version()}, numpy {np.__version__}; {args.cfg_file}, batches of {args.batch_size}")
    with tempfile.TemporaryDirectory() as folder:
        root = args.data_path or Path(folder)
        if args.data_path is None:
            write_kitti(root, frames=args.frames, seed=0, workers=args.workers, progress=False)
            create_kitti_infos(config.DATA_CONFIG, config.CLASS_NAMES, root, workers=args.workers)
        rows = time_stages(args, config, root)
        rows[f"loader alone, {args.workers} workers (a batch)"] = time_loader(args, config, root)
        if args.steps:
            rows["training: wait (a batch)"], rows["training: step (a batch)"] = time_training(args, config, root)
    print("\n".join(f"{name:44s} {ms(seconds)}" for name, seconds in rows.items()))
    if args.json:
        args.json.write_text(json.dumps({"command": sys.argv, "seconds": rows}, indent=1))


if __name__ == "__main__":
    main()
