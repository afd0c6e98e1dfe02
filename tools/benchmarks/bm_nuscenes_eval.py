"""Times nuScenes' evaluation on a set of validation size, beside nuscenes-devkit's on the same files.

The set is made of a small release, such as v1.0-mini: copies of its scenes, and detections that are made up.

    python tools/benchmarks/bm_nuscenes_eval.py --release DATAROOT [--devkit PYTHON] [--json FILE]

``--devkit`` is an interpreter that has nuscenes-devkit 1.2.0, which cannot stand beside this project (numpy < 2). Both
run in a process of their own; times are seconds of its parts, with the reading of all JSON and without imports.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO_ROOT))

from _nuscenes_release import VERSION, write_release

PARTS = ("read tables", "read results, filter", "evaluate")
OURS = """
import json, sys, time
from pcdet.datasets.nuscenes.evaluation.ground_truth import read_ground_truth
from pcdet.datasets.nuscenes.evaluation.metrics import evaluate
from pcdet.datasets.nuscenes.evaluation.results_file import read_results
from pcdet.datasets.nuscenes.splits import samples_of_split
from pcdet.datasets.nuscenes.tables import Tables
root, version, results = sys.argv[1:]
clock, cpu = [time.perf_counter()], [time.process_time()]
def lap():
    clock.append(time.perf_counter()); cpu.append(time.process_time())
tables = Tables(root, version)
tokens = [sample["token"] for sample in samples_of_split(tables, "val")]
truth = read_ground_truth(tables, tokens)
lap()
found, _ = read_results(results, tokens)
lap()
metrics = evaluate(truth, found)
lap()
"""
DEVKIT = """
import json, sys, tempfile, time
from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.evaluate import DetectionEval
root, version, results = sys.argv[1:]
clock, cpu = [time.perf_counter()], [time.process_time()]
def lap():
    clock.append(time.perf_counter()); cpu.append(time.process_time())
tables = NuScenes(version=version, dataroot=root, verbose=False)
lap()
task = DetectionEval(tables, config_factory("detection_cvpr_2019"), results, "val", tempfile.mkdtemp(), verbose=False)
lap()
metrics = task.evaluate()[0].serialize()
lap()
"""
REPORT = """
print(json.dumps({
    "wall": [b - a for a, b in zip(clock, clock[1:])], "cpu": [b - a for a, b in zip(cpu, cpu[1:])],
    "peak_mb": int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024, "metrics": metrics,
}))
"""


def run(python: str, program: str, root: Path, results: Path) -> dict:
    """What a program measured in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(REPO_ROOT) if program == OURS else "", "OMP_NUM_THREADS": "1"}
    command = [python, "-c", program + REPORT, str(root), VERSION, str(results)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def largest_difference(own: dict, other: dict) -> float:
    """Between two nested dictionaries of numbers; NaN equals NaN alone."""
    worst = 0.0
    for key, value in other.items():
        if isinstance(value, dict):
            worst = max(worst, largest_difference(own[key], value))
        elif isinstance(value, float) and key != "eval_time" and not (math.isnan(value) and math.isnan(own[key])):
            worst = max(worst, abs(own[key] - value))
    return worst


def show(name: str, measured: dict) -> None:
    """One line a contender."""
    parts = ", ".join(f"{part} {seconds:.1f}" for part, seconds in zip(PARTS, measured["wall"], strict=True))
    total, cpu = sum(measured["wall"]), sum(measured["cpu"])
    print(f"{name:16s} {total:7.1f} s (CPU {cpu:.1f}): {parts}; peak {measured['peak_mb']:.0f} MB")
    print(f"{'':16s} mAP {measured['metrics']['mean_ap']:.6f}, NDS {measured['metrics']['nd_score']:.6f}")


def main() -> None:
    """Makes the set, runs both, and says whether their numbers are equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--release", type=Path, default=os.environ.get("PCDET_NUSCENES_ROOT"),
        help="folder of a v1.0-mini with the scenes of mini_val; default: PCDET_NUSCENES_ROOT",
    )  # fmt: skip
    parser.add_argument("--devkit", metavar="PYTHON", help="interpreter that has nuscenes-devkit 1.2.0")
    parser.add_argument("--scenes", type=int, default=150, help="about 40 samples each")
    parser.add_argument("--boxes", type=int, default=34, help="labelled in a sample, on average")
    parser.add_argument("--detections", type=int, nargs=2, default=(100, 200), help="least and most in a sample")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    if not args.release:
        print("left out: it needs a nuScenes release, named by --release or PCDET_NUSCENES_ROOT")
        return
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, load {os.getloadavg()[0]}"
    )
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "release"
        results = write_release(
            args.release, root, scenes=args.scenes, boxes=args.boxes, detections=args.detections, seed=args.seed
        )
        print(f"{args.scenes} scenes, results of {results.stat().st_size / 2**20:.0f} MiB", flush=True)
        measured = {"pcdet": run(sys.executable, OURS, root, results)}
        show("pcdet", measured["pcdet"])
        if args.devkit:
            measured["nuscenes-devkit"] = run(args.devkit, DEVKIT, root, results)
            show("nuscenes-devkit", measured["nuscenes-devkit"])
            own, other = (measured[name]["metrics"] for name in ("pcdet", "nuscenes-devkit"))
            ratios = [sum(measured["nuscenes-devkit"][k]) / sum(measured["pcdet"][k]) for k in ("wall", "cpu")]
            apart = largest_difference(own, other)
            print(f"{ratios[0]:.1f} times as fast (CPU {ratios[1]:.1f}); numbers differ by at most {apart:.1e}")
    if args.json:
        args.json.write_text(json.dumps({"scenes": args.scenes, **measured}, indent=1) + "\n")


if __name__ == "__main__":
    main()
