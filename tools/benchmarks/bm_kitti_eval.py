"""Times the KITTI evaluation on a synthetic set of the size of KITTI's val split.

3,769 frames with 6 objects and 21 detections each; both overlap sets, all metrics, three classes. The official C++
devkit takes 41 s for the strict overlaps alone.

    python tools/benchmarks/bm_kitti_eval.py [--frames 3769] [--repeats 5] [--json FILE]

The first run of a fresh process stands apart from the later ones, and so does the whole command with its imports.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

REPO_ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO_ROOT))

import numpy as np

# name, share of the objects, length, height, width
KINDS = [
    ("Car", 0.55, 3.9, 1.5, 1.6),
    ("Pedestrian", 0.2, 0.8, 1.75, 0.6),
    ("Cyclist", 0.1, 1.8, 1.7, 0.6),
    ("Van", 0.1, 5.0, 2.2, 1.9),
    ("Person_sitting", 0.05, 0.8, 1.3, 0.6),
]
FOCAL, CENTRE_U, CENTRE_V = 720.0, 610.0, 175.0


def write_set(folder: Path, frames: int, num_gt: int, num_det: int, seed: int) -> None:
    """Writes ``label_2`` and ``data``: jittered true boxes, doubles of them, and false ones."""
    rng = np.random.default_rng(seed)
    for name in ("label_2", "data"):
        (folder / name).mkdir(parents=True)
    for frame in range(frames):
        kinds = rng.choice(len(KINDS), num_gt, p=[kind[1] for kind in KINDS])
        truth = _random_boxes(rng, kinds)
        copies = rng.integers(0, num_gt, num_det)
        boxes, found = truth[copies], kinds[copies]
        boxes[:, :3] *= 1 + 0.06 * rng.standard_normal((num_det, 3))
        boxes[:, 3:6] += rng.standard_normal((num_det, 3)) * [0.15, 0.05, 0.25]
        boxes[:, 6] += 0.15 * rng.standard_normal(num_det)
        false = rng.random(num_det) < 0.5
        boxes[false] = _random_boxes(rng, found[false])
        scores = np.where(false, rng.beta(1, 4, num_det), rng.beta(4, 2, num_det))
        seen = [f"{rng.choice([0, 0.1, 0.4]):.2f} {rng.integers(0, 3)}" for _ in range(num_gt)]
        lines = _lines(kinds, truth, seen, [""] * num_gt)
        (folder / "label_2" / f"{frame:06d}.txt").write_text("".join(lines))
        lines = _lines(found, boxes, ["-1 -1"] * num_det, [f" {score:.4f}" for score in scores])
        (folder / "data" / f"{frame:06d}.txt").write_text("".join(lines))


def _random_boxes(rng: np.random.Generator, kinds: np.ndarray) -> np.ndarray:
    """(N, 7) l, h, w, x, y, z, rotation_y in the camera frame."""
    size = np.array([kind[2:] for kind in KINDS])[kinds] * rng.uniform(0.85, 1.15, (len(kinds), 3))
    depth = rng.uniform(5, 60, len(kinds))
    place = np.stack([depth * rng.uniform(-0.6, 0.6, len(kinds)), np.full(len(kinds), 1.65), depth], axis=1)
    return np.concatenate([size, place, rng.uniform(-np.pi, np.pi, (len(kinds), 1))], axis=1)


def _lines(kinds: np.ndarray, boxes: np.ndarray, before: list[str], after: list[str]) -> list[str]:
    lines = []
    for kind, box, head, tail in zip(kinds, boxes.tolist(), before, after, strict=True):
        length, height, width, x, y, z, turn = box
        reach = max(length, width) / 2
        u1, u2 = CENTRE_U + FOCAL * (x - reach) / z, CENTRE_U + FOCAL * (x + reach) / z
        v1, v2 = CENTRE_V + FOCAL * (y - height) / z, CENTRE_V + FOCAL * y / z
        alpha = turn - np.arctan2(x, z)
        lines.append(
            f"{KINDS[kind][0]} {head} {alpha:.2f} {u1:.2f} {v1:.2f} {u2:.2f} {v2:.2f} "
            f"{height:.2f} {width:.2f} {length:.2f} {x:.2f} {y:.2f} {z:.2f} {turn:.2f}{tail}\n"
        )
    return lines


def measure(folder: Path, repeats: int) -> dict:
    """Seconds of reading and of evaluating, and of the CPU in both, one entry a run."""
    from pcdet.datasets.kitti.evaluate import DEFAULT_CLASSES
    from pcdet.datasets.kitti.kitti_object_eval_python.eval import evaluate
    from pcdet.datasets.kitti.kitti_object_eval_python.kitti_common import list_frames, read_objects

    seconds = {"read": [], "evaluate": [], "cpu": []}
    for _ in range(repeats):
        busy, start = time.process_time(), time.perf_counter()
        frames = list_frames(folder / "data")
        gt = read_objects(folder / "label_2", frames, scored=False)
        dt = read_objects(folder / "data", frames, scored=True)
        middle = time.perf_counter()
        results = evaluate(gt, dt, DEFAULT_CLASSES)
        seconds["read"].append(middle - start)
        seconds["evaluate"].append(time.perf_counter() - middle)
        seconds["cpu"].append(time.process_time() - busy)
    return {**seconds, "objects": len(gt.label), "detections": len(dt.label), "strict_ap": results["strict"]["ap"]}


def time_command(folder: Path) -> float:
    """Seconds of the whole command, imports and the start of Python included."""
    command = [sys.executable, "-m", "pcdet.datasets.kitti.evaluate"]
    command += ["--label_path", folder / "label_2", "--result_path", folder / "data"]
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(REPO_ROOT)}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - start


def machine() -> dict:
    """What the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "numpy": np.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=3769)
    parser.add_argument("--gt", type=int, default=6, help="objects a frame")
    parser.add_argument("--detections", type=int, default=21, help="detections a frame")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="ignored: the evaluation runs on the CPU")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "set"
        write_set(folder, args.frames, args.gt, args.detections, args.seed)
        result = {"machine": machine(), "frames": args.frames, **measure(folder, args.repeats)}
        result["command"] = [time_command(folder) for _ in range(2)]
    total = [read + evaluate for read, evaluate in zip(result["read"], result["evaluate"], strict=True)]
    later = total[1:] or total
    print(", ".join(f"{key} {value}" for key, value in result["machine"].items()))
    print(f"{result['frames']} frames, {result['objects']} objects, {result['detections']} detections")
    print(f"read               first {result['read'][0]:.2f} s, median {median(result['read']):.2f} s")
    print(f"evaluate           first {result['evaluate'][0]:.2f} s, median {median(result['evaluate']):.2f} s")
    print(
        f"read + evaluate    first {total[0]:.2f} s, later {median(later):.2f} s ({min(later):.2f} to {max(later):.2f})"
    )
    print(f"CPU time of both   first {result['cpu'][0]:.2f} s, median {median(result['cpu']):.2f} s")
    print(f"the whole command  first {result['command'][0]:.2f} s, second {result['command'][1]:.2f} s")
    for class_name, by_metric in result["strict_ap"].items():
        values = {key: value and round(value["moderate"]["R40"], 2) for key, value in by_metric.items()}
        print(f"{class_name} moderate R40: {values}")
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
