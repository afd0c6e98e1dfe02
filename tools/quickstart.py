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
from _meaning import DISTILLED, LONGER, SLICES, STUDENT, TEACHER, what_it_means
from easydict import EasyDict

from pcdet.config import cfg_from_yaml_file
from pcdet.experiments.freshness import claim, digest
from pcdet.experiments.jobs import Job, clock, run_jobs
from pcdet.utils.cpu_features import mixed_precision, read_processor
from pcdet.utils.folder_lock import FolderInUseError, FolderLock

TOOLS = Path(__file__).resolve().parent
ROOT = TOOLS.parent
DATA = ROOT / "data" / "quickstart"
OUTPUT = ROOT / "output" / "quickstart"
CFGS = Path("cfgs/simulated_models")

SCENES = {"frames": 600, "val-frames": 200, "seed": 0, "far": 29.5}

# Row -> how long its training takes against the teacher's. The model file is kd/DETECTOR_WHAT.yaml, WHAT being what is
# added to the student, with _ for +. The order is the table's; students that need no teacher train beside it.
ROWS = {
    "pointpillar": {STUDENT: 0.4, LONGER: 0.6, SLICES: 0.4, DISTILLED: 0.7, f"{SLICES}+logits": 0.6},
    "second": {STUDENT: 0.4, LONGER: 0.7, SLICES: 0.4, DISTILLED: 0.7, f"{SLICES}+pointdistiller": 0.7},
    "pointrcnn": {STUDENT: 0.4, LONGER: 0.7, SLICES: 0.4, DISTILLED: 0.7, f"{SLICES}+pointdistiller": 0.7},
}
CONTROLS = [STUDENT, LONGER, SLICES]

# One thread each: on a busy machine two threads of one process cost several times the CPU time of one. The precision
# and the memory layout are those that are fast on this processor.
TRAINING_FLAGS = ["--workers", "0", "--threads", "1", "--use_amp", "--skip_eval", "--logger_iter_interval", "1"]
TRAINING_FLAGS += ["--ckpt_save_time_interval", "30", "--max_ckpt_save_num", "1"]
ON_OUR_DATA = ["--set", "DATA_CONFIG.DATA_PATH", str(DATA)]

NOTE = "Simulated scenes, for learning and testing the pipeline: no number here is a KITTI result."


def model_file(detector, row):
    """The model file of a row, from tools/."""
    if row == TEACHER:
        return CFGS / f"{detector}.yaml"
    what = row.removeprefix(f"{STUDENT}+").replace("+", "_")
    return CFGS / "kd" / f"{detector}_{what}.yaml"


def training(detector, row, seed, work, teacher=None):
    """The job that trains a row of the table with one seed. Students with a KD block get the teacher's checkpoint."""
    cfg = cfg_from_yaml_file(TOOLS / model_file(detector, row), EasyDict())
    folder = OUTPUT / detector / row / f"seed{seed}"
    distils = "KD" in cfg
    command = [sys.executable, "train_kd.py" if distils else "train.py", "--cfg_file", str(model_file(detector, row))]
    command += ["--output_dir", str(folder), "--seed", str(seed), *TRAINING_FLAGS]
    command += ["--teacher_ckpt", str(teacher.checkpoint)] if distils else []
    # All that changes the result. The same seed in another precision gives another one: what --use_amp is on this CPU.
    facts = {"model": cfg, "scenes": SCENES, "seed": seed, "cpu_precision": mixed_precision(read_processor()).name}
    if distils:
        facts["teacher"] = digest(teacher.facts)
    return Job(
        name=f"{row} (seed {seed})",
        command=[*command, *ON_OUR_DATA],
        cwd=TOOLS,
        folder=folder,
        checkpoint=folder / "ckpt" / f"checkpoint_epoch_{cfg.OPTIMIZATION.NUM_EPOCHS}.pth",
        facts=facts,
        work=work,
        needs=[teacher] if distils else [],
    )


def trainings(detector, seeds):
    """(jobs in the order in which they start, what the table compares: row, model file, checkpoint)."""
    teacher = training(detector, TEACHER, 0, 1.0)
    jobs, models = [teacher], [(TEACHER, model_file(detector, TEACHER), teacher.checkpoint)]
    for seed in range(seeds):
        students = {row: training(detector, row, seed, work, teacher) for row, work in ROWS[detector].items()}
        # The long ones first, so that the last to end is a short one.
        jobs += sorted(students.values(), key=lambda job: -job.work)
        models += [(row, model_file(detector, row), job.checkpoint) for row, job in students.items()]
    return jobs, models


def prepare_data():
    """Writes the simulated folder and its info files, or finds them there."""
    from pcdet.datasets.simulated.writer import VERSION  # takes seconds to import, and the reader has seen a line first

    if reason := claim(DATA, {**SCENES, "version": VERSION}):
        print(f"  the scenes are made anew: {reason}")
    flags = [part for key, value in SCENES.items() for part in (f"--{key}", str(value))]
    run = [sys.executable, "-m"]
    subprocess.run([*run, "pcdet.datasets.simulated", "--out", str(DATA), *flags], cwd=ROOT, check=True)
    if not (DATA / "kitti_dbinfos_train.pkl").is_file():  # the last file that is written
        prepare = [*run, "pcdet.datasets.kitti.kitti_dataset", "create_kitti_infos"]
        dataset_cfg = TOOLS / "cfgs/dataset_configs/simulated_kitti_dataset.yaml"
        subprocess.run([*prepare, str(dataset_cfg), "--data_path", str(DATA)], cwd=ROOT, check=True)


def compare(detector, models):
    """Prints the tables; returns what was measured and the picture of it."""
    results = OUTPUT / detector / "results.json"
    plot = results.with_name("comparison.png")
    command = [sys.executable, "benchmark.py", "--json", str(results), "--plot", str(plot), "--use_amp"]
    for control in CONTROLS:
        command += ["--control", control]
    for entry in models:
        command += ["--model", *map(str, entry)]
    subprocess.run([*command, *ON_OUR_DATA], cwd=TOOLS, check=True)
    return json.loads(results.read_text()), plot


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
    except subprocess.CalledProcessError as error:
        sys.exit(f"this step failed (exit {error.returncode}): {shlex.join(map(str, error.cmd))}")
    finally:
        held.release()


def run(detector, seeds, parallel):
    """Data, trainings, table, and what it means."""
    begin = time.monotonic()
    print(f"1/3 simulated scenes in {os.path.relpath(DATA, ROOT)}: {SCENES['frames']}", flush=True)
    prepare_data()
    print(f"  {'scenes and info files':<44} {clock(time.monotonic() - begin):>8}")
    jobs, models = trainings(detector, seeds)
    print(f"2/3 {len(jobs)} trainings of {detector}, {parallel} at a time; logs: output/quickstart", flush=True)
    run_jobs(jobs, parallel)
    print(f"3/3 {len(models)} models on the {SCENES['val-frames']} scenes that nobody trained on\n", flush=True)
    measured, plot = compare(detector, models)
    print(f"\n{what_it_means(measured['rows'])}\n{NOTE}\n\nPictures:", flush=True)
    for picture in (plot, *draw_boxes(models)):
        print(f"  {os.path.relpath(picture, ROOT)}")
    print("\n" + "\n".join(next_steps(detector, seeds, models)))
    print(f"\n{clock(time.monotonic() - begin)} in all")


if __name__ == "__main__":
    main()
