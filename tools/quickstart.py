"""Teacher, student, its controls and distilled students on simulated data, then one table: the main job in miniature.

Run by ``make quickstart``; ``make quickstart DETECTOR=second`` (or pointrcnn, centerpoint) takes another detector on
the same data, ``make quickstart DATA=nuscenes`` a CenterPoint on scenes in nuScenes' layout. Killed and started again,
it goes on where it was; a training whose configuration has changed since is repeated. ``--seeds 3`` repeats the
students. Data lie in data/quickstart and data/quickstart_nuscenes, everything else in output/quickstart.
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
from pcdet.datasets.nuscenes.splits import OF_VERSION, samples_of_split
from pcdet.datasets.nuscenes.tables import Tables
from pcdet.datasets.point_folder import SWEEP_EXTENSION
from pcdet.experiments.plans.scenes import prepare_scenes
from pcdet.experiments.quickstart.data_sets import DATA_SETS, SHORT_NAMES
from pcdet.experiments.quickstart.meaning import LONGER, SLICES, STUDENT, TEACHER, what_it_means
from pcdet.experiments.quickstart.trainings import Setting, trainings
from pcdet.experiments.running.places import core_places
from pcdet.experiments.running.pool import run_jobs
from pcdet.registry import ConfigError
from pcdet.utils.folder_lock import FolderInUseError, FolderLock
from pcdet.utils.tables import clock

TOOLS = Path(__file__).resolve().parent
ROOT = TOOLS.parent
OUTPUT = ROOT / "output" / "quickstart"

CONTROLS = [STUDENT, LONGER, SLICES]


def setting_of(name):
    """Where the quickstart on a data set works."""
    simulated = DATA_SETS[name]
    return Setting(TOOLS, ROOT / "data" / simulated.folder, OUTPUT / simulated.output, simulated)


def on_our_data(setting):
    return ["--set", "DATA_CONFIG.DATA_PATH", str(setting.data)]


def compare(setting, detector, models):
    """Prints the tables; returns what was measured, the picture of it and the page."""
    results = setting.output / detector / "results.json"
    plot, page = results.with_name("comparison.png"), results.with_name("audit.html")
    command = [sys.executable, "compare.py", "--json", str(results), "--plot", str(plot), "--page", str(page)]
    command += ["--use_amp"]
    for control in CONTROLS:
        command += ["--control", control]
    for entry in models:
        command += ["--model", *map(str, entry)]
    subprocess.run([*command, *on_our_data(setting)], cwd=TOOLS, check=True)
    return json.loads(results.read_text()), plot, page


def unseen_cloud(data):
    """A scene that nobody trained on: (the file of its cloud, the name of its pictures)."""
    split = data / "ImageSets" / "val.txt"
    if split.is_file():
        frame = split.read_text().split()[0]
        return data / "training" / "velodyne" / f"{frame}.bin", frame
    [release] = (folder for folder in data.glob("v1.0-*") if folder.is_dir())
    tables = Tables(release, release.name)
    sample = samples_of_split(tables, OF_VERSION[release.name][-1])[0]
    cloud = release / tables.key_frames[sample["token"]]["filename"]
    return cloud, cloud.name.removesuffix(SWEEP_EXTENSION)


def draw_boxes(setting, models):
    """That scene with the boxes of teacher, student and last row; returns the pictures."""
    cloud, frame = unseen_cloud(setting.data)
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


def next_steps(setting, detector, seeds, models):
    """What a reader types next, as lines."""
    _, cfg_file, ckpt = models[-1]
    python = Path(sys.executable)
    python = os.path.relpath(python, TOOLS) if python.is_relative_to(ROOT) else str(python)
    ckpt, data = (shlex.quote(os.path.relpath(path, TOOLS)) for path in (ckpt, setting.data))
    data_name = next(name for name, simulated in DATA_SETS.items() if simulated is setting.simulated)
    on_it = "" if data_name == "kitti" else f" DATA={data_name}"
    lines = ["Next:"]
    if seeds == 1:
        lines.append(f"  how much of a difference is chance:  make quickstart DETECTOR={detector}{on_it} SEEDS=3")
    others = [name for name in setting.simulated.detectors if name != detector]
    if others:
        listed = ", ".join(setting.simulated.detectors)
        lines.append(f"  another detector ({listed}):  make quickstart DETECTOR={others[0]}{on_it}")
    if data_name == "kitti":
        lines.append("  scenes in nuScenes' layout:  make quickstart DATA=nuscenes")
    return [
        *lines,
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
    parser.add_argument("--data", choices=DATA_SETS, default="kitti", help="in whose layout the scenes are simulated")
    parser.add_argument("--detector", help="which detector to distil; default: the first of the data set's")
    parser.add_argument("--seeds", type=int, default=1, help="repeat the students with this many seeds")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, one thread each")
    args = parser.parse_args()
    if args.seeds < 1 or args.jobs < 1:
        parser.error(f"--seeds and --jobs must be at least 1, got {args.seeds} and {args.jobs}")
    setting = setting_of(args.data)
    known = list(setting.simulated.detectors)
    detector = SHORT_NAMES.get(args.detector, args.detector) or known[0]
    if detector not in known:
        parser.error(f"--detector must be one of {', '.join(known)} with --data {args.data}, got {args.detector}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # run_jobs then ends the trainings too
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    held = lock()
    try:
        run(setting, detector, args.seeds, args.jobs)
    except KeyboardInterrupt:
        sys.exit("\nstopped; the same command goes on from here")
    except ConfigError as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(f"this step failed (exit {error.returncode}): {shlex.join(map(str, error.cmd))}")
    finally:
        held.release()


def run(setting, detector, seeds, parallel):
    """Data, trainings, table, and what it means."""
    begin, simulated = time.monotonic(), setting.simulated
    print(f"1/3 simulated scenes in {os.path.relpath(setting.data, ROOT)}: {simulated.frames}", flush=True)
    prepare_scenes(setting.data, simulated.scenes, TOOLS)
    print(f"  {'scenes and info files':<44} {clock(time.monotonic() - begin):>8}")
    jobs, models = trainings(setting, detector, seeds)
    logs = os.path.relpath(setting.output, ROOT)
    print(f"2/3 {len(jobs)} trainings of {detector}, {parallel} at a time; logs: {logs}", flush=True)
    run_jobs(jobs, core_places(parallel))
    print(f"3/3 {len(models)} models on the {simulated.unseen} that nobody trained on\n", flush=True)
    measured, plot, page = compare(setting, detector, models)
    metrics = EvaluationMetrics.from_json(measured["metrics"])
    print(f"\n{what_it_means(measured['rows'], metrics.main)}\n{simulated.note}\n\nPictures:", flush=True)
    for picture in (plot, *draw_boxes(setting, models)):
        print(f"  {os.path.relpath(picture, ROOT)}")
    print(f"\nThe page of this run, for a browser, object by object:\n  {os.path.relpath(page, ROOT)}")
    print("\n" + "\n".join(next_steps(setting, detector, seeds, models)))
    print(f"\n{clock(time.monotonic() - begin)} in all")


if __name__ == "__main__":
    main()
