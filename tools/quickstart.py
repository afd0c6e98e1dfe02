"""Teacher, student, its controls and distilled students on simulated data, then one table: the main job in miniature.

Run by ``make quickstart``; ``make quickstart DETECTOR=second`` (or pointrcnn) takes another detector on the same data.
Killed and started again, it goes on where it was; a training whose configuration has changed since is repeated.
``--seeds 3`` repeats the students. Data lie in data/quickstart, everything else in output/quickstart/DETECTOR.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import _init_path  # noqa: F401

from pcdet.datasets.metrics import EvaluationMetrics
from pcdet.experiments.plans.scenes import prepare_scenes
from pcdet.experiments.quickstart.meaning import LONGER, SLICES, STUDENT, TEACHER, what_it_means
from pcdet.experiments.quickstart.trainings import ROWS, Setting, trainings
from pcdet.experiments.running.places import core_places
from pcdet.experiments.running.pool import run_jobs
from pcdet.registry import ConfigError
from pcdet.utils.folder_lock import FolderInUseError, FolderLock
from pcdet.utils.tables import clock

TOOLS = Path(__file__).resolve().parent
ROOT = TOOLS.parent
DATA = ROOT / "data" / "quickstart"
OUTPUT = ROOT / "output" / "quickstart"

SCENES = {"frames": 600, "val-frames": 200, "seed": 0, "far": 29.5}

CONTROLS = [STUDENT, LONGER, SLICES]

ON_OUR_DATA = ["--set", "DATA_CONFIG.DATA_PATH", str(DATA)]

NOTE = "Simulated scenes, for learning and testing the pipeline: no number here is a KITTI result."


def compare(detector, models):
    """Prints the tables; returns what was measured, the picture of it and the page."""
    results = OUTPUT / detector / "results.json"
    plot, page = results.with_name("comparison.png"), results.with_name("audit.html")
    command = [sys.executable, "compare.py", "--json", str(results), "--plot", str(plot), "--page", str(page)]
    command += ["--use_amp"]
    for control in CONTROLS:
        command += ["--control", control]
    for entry in models:
        command += ["--model", *map(str, entry)]
    subprocess.run([*command, *ON_OUR_DATA], cwd=TOOLS, check=True)
    return json.loads(results.read_text()), plot, page


def draw_boxes(models):
    """One scene that nobody trained on, with the boxes of teacher, student and last row; returns the pictures."""
    frame = (DATA / "ImageSets" / "val.txt").read_text().split()[0]
    cloud = DATA / "training" / "velodyne" / f"{frame}.bin"
    first_seeds = {}
    for row, cfg_file, ckpt in models:
        first_seeds.setdefault(row, (cfg_file, ckpt))
    pictures = []
    for row in (TEACHER, STUDENT, models[-1][0]):
        cfg_file, ckpt = first_seeds[row]
        command = [sys.executable, "demo.py", "--cfg_file", str(cfg_file), "--ckpt", str(ckpt), "--threads", "1"]
        folder = ckpt.parents[1] / "pictures"
        command += ["--data_path", str(cloud), "--out", str(folder)]
        done = subprocess.run(command, cwd=TOOLS, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"demo.py failed for {row}:\n{done.stderr}")
        pictures.append(folder / f"{frame}_bev.png")
    return pictures


def next_steps(detector, seeds, models):
    """What a reader types next, as lines."""
    _, cfg_file, ckpt = models[-1]
    python = Path(sys.executable)
    python = os.path.relpath(python, TOOLS) if python.is_relative_to(ROOT) else str(python)
    ckpt, data = (shlex.quote(os.path.relpath(path, TOOLS)) for path in (ckpt, DATA))
    other = next(name for name in ROWS if name != detector)
    lines = ["Next:"]
    if seeds == 1:
        lines.append(f"  how much of a difference is chance:  make quickstart DETECTOR={detector} SEEDS=3")
    return [
        *lines,
        f"  another detector ({', '.join(ROWS)}):  make quickstart DETECTOR={other}",
        "  all figures of one student:",
        f"    cd tools && {shlex.quote(python)} test.py --cfg_file {cfg_file} \\",
        f"      --ckpt {ckpt} \\",
        f"      --set DATA_CONFIG.DATA_PATH {data}",
        "  the same on your own data:  README.md, Real KITTI; docs/CUSTOM_DATASET_TUTORIAL.md",
    ]


def lock():
    """Held by this call and by every training that it started: none may write where another does."""
    advice = "wait for it, or end what is left running (pgrep -af 'quickstart.py|train.py|train_kd.py')"
    try:
        return FolderLock(OUTPUT, advice=advice, inheritable=True)
    except FolderInUseError as error:
        raise SystemExit(str(error)) from None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", choices=ROWS, default="pointpillar", help="which detector to distil")
    parser.add_argument("--seeds", type=int, default=1, help="repeat the students with this many seeds")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, one thread each")
    args = parser.parse_args()
    if args.seeds < 1 or args.jobs < 1:
        parser.error(f"--seeds and --jobs must be at least 1, got {args.seeds} and {args.jobs}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # run_jobs then ends the trainings too
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    held = lock()
    try:
        run(args.detector, args.seeds, args.jobs)
    except KeyboardInterrupt:
        sys.exit("\nstopped; the same command goes on from here")
    except ConfigError as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(f"this step failed (exit {error.returncode}): {shlex.join(map(str, error.cmd))}")
    finally:
        held.release()


def run(detector, seeds, parallel):
    """Data, trainings, table, and what it means."""
    begin = time.monotonic()
    print(f"1/3 simulated scenes in {os.path.relpath(DATA, ROOT)}: {SCENES['frames']}", flush=True)
    prepare_scenes(DATA, SCENES, TOOLS)
    print(f"  {'scenes and info files':<44} {clock(time.monotonic() - begin):>8}")
    jobs, models = trainings(Setting(TOOLS, DATA, OUTPUT, SCENES), detector, seeds)
    print(f"2/3 {len(jobs)} trainings of {detector}, {parallel} at a time; logs: output/quickstart", flush=True)
    run_jobs(jobs, core_places(parallel))
    print(f"3/3 {len(models)} models on the {SCENES['val-frames']} scenes that nobody trained on\n", flush=True)
    measured, plot, page = compare(detector, models)
    metrics = EvaluationMetrics.from_json(measured["metrics"])
    print(f"\n{what_it_means(measured['rows'], metrics.main)}\n{NOTE}\n\nPictures:", flush=True)
    for picture in (plot, *draw_boxes(models)):
        print(f"  {os.path.relpath(picture, ROOT)}")
    print(f"\nThe page of this run, for a browser, object by object:\n  {os.path.relpath(page, ROOT)}")
    print("\n" + "\n".join(next_steps(detector, seeds, models)))
    print(f"\n{clock(time.monotonic() - begin)} in all")


if __name__ == "__main__":
    main()
