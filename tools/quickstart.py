"""Teacher, student and distilled students on simulated data, then one table: the project's main job in miniature.

Run by ``make quickstart``; ``make quickstart DETECTOR=second`` (or pointrcnn) takes another detector on the same data.
Killed and started again, it goes on where it was; ``--seeds 3`` repeats the students. Its data lie in data/quickstart
and everything else in output/quickstart/DETECTOR: remove them to start anew.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import _init_path  # noqa: F401
import yaml
from tqdm import tqdm

TOOLS = Path(__file__).resolve().parent
ROOT = TOOLS.parent
DATA = ROOT / "data" / "quickstart"
OUTPUT = ROOT / "output" / "quickstart"
CFGS = Path("cfgs/simulated_models")

TEACHER, STUDENT = "teacher", "student"
# What is done to the plain student, for each detector; the file is kd/DETECTOR_WHAT.yaml with _ for +.
DISTILLED = {
    "pointpillar": ["pointdistiller", "pointdistiller+logits", "pointdistiller+logits+init"],
    "second": ["pointdistiller", "pointdistiller+init"],
    "pointrcnn": ["pointdistiller", "pointdistiller+init"],
}
TRAIN_FRAMES, VAL_FRAMES = 400, 200

FAST_ON_ONE_CORE = ["--workers", "0", "--threads", "1", "--use_amp", "--channels_last", "--skip_eval"]
FAST_ON_ONE_CORE += ["--logger_iter_interval", "10", "--ckpt_save_time_interval", "30", "--max_ckpt_save_num", "1"]
ON_OUR_DATA = ["--set", "DATA_CONFIG.DATA_PATH", str(DATA)]

NOTE = (
    "Simulated scenes, for learning and testing the pipeline: no number here is a KITTI result.\n"
    "A distilled sample costs more than a plain one: compare the last column too."
)


@dataclass
class Job:
    """One training: a command, the log it writes, and what must be finished before it starts."""

    name: str
    command: list
    log: Path
    epochs: int
    checkpoint: Path
    needs: list = field(default_factory=list)
    processes: int = 1
    process: subprocess.Popen | None = None

    def start(self):
        """Launches the training; its output is appended to the log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, cwd=TOOLS, stdout=log, stderr=subprocess.STDOUT)

    def finished(self):
        """Whether the training has ended well."""
        return self.process is not None and self.process.poll() == 0

    def check(self):
        """Stops everything, with the end of its log, if the job has failed."""
        if self.process is not None and self.process.poll() not in (None, 0):
            tail = "\n".join(self.log.read_text().splitlines()[-15:])
            raise SystemExit(f"{self.name} failed (exit {self.process.returncode}); the end of {self.log}:\n{tail}")

    def progress(self):
        """Epochs done, with fractions, as the training's own log lines tell."""
        if self.finished():
            return float(self.epochs)
        text = self.log.read_text() if self.log.is_file() else ""
        lines = re.findall(r"Train:\s*(\d+)/\d+ .*?\[\s*(\d+)/(\d+)", text)
        if not lines:
            return 0.0
        epoch, iteration, total = (int(v) for v in lines[-1])
        return min(self.epochs, epoch - 1 + iteration / total)


def epochs_of(cfg_file):
    """NUM_EPOCHS of a model file, or of the base it builds on."""
    node = yaml.safe_load((TOOLS / cfg_file).read_text())
    if "NUM_EPOCHS" in node.get("OPTIMIZATION", {}):
        return node["OPTIMIZATION"]["NUM_EPOCHS"]
    return epochs_of(Path(node["_BASE_CONFIG_"]))


def teacher_file(detector):
    """The teacher's model file."""
    return CFGS / f"{detector}.yaml"


def students_of(detector):
    """The students' rows: name -> the script that trains it and its model file, the plain student first."""
    rows = {STUDENT: ("train.py", CFGS / "kd" / f"{detector}_student.yaml")}
    for what in DISTILLED[detector]:
        rows[f"{STUDENT}+{what}"] = ("train_kd.py", CFGS / "kd" / f"{detector}_{what.replace('+', '_')}.yaml")
    return rows


def training(output, name, script, cfg_file, seed, teacher=None, processes=1):
    """The job that trains a row of the table with one seed; a distilled student needs its teacher."""
    folder = output / name / f"seed{seed}"
    epochs = epochs_of(cfg_file)
    launch = [sys.executable, script] if processes == 1 else ["bash", "scripts/dist_train.sh", str(processes)]
    command = [*launch, "--cfg_file", str(cfg_file), "--output_dir", str(folder), "--seed", str(seed)]
    command += FAST_ON_ONE_CORE
    if teacher is not None:
        command += ["--teacher_ckpt", str(teacher.checkpoint)]
    command += ON_OUR_DATA
    return Job(
        name=f"{name} (seed {seed})",
        command=command,
        log=folder / "output.txt",
        epochs=epochs,
        checkpoint=folder / "ckpt" / f"checkpoint_epoch_{epochs}.pth",
        needs=[] if teacher is None else [teacher],
        processes=processes,
    )


def run_jobs(jobs, parallel):
    """Runs the jobs in order, ``parallel`` processes at a time, each after those it needs, under one progress bar."""
    waiting, running = list(jobs), []
    bar = tqdm(total=sum(j.epochs for j in jobs), desc="training", unit="epoch", dynamic_ncols=True,
               bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}")  # fmt: skip
    try:
        while waiting or running:
            for job in list(waiting):
                free = parallel - sum(other.processes for other in running)
                if job.processes <= free and all(need.finished() for need in job.needs):
                    waiting.remove(job)
                    job.start()
                    running.append(job)
            time.sleep(0.5)
            for job in list(running):
                job.check()
                if job.finished():
                    running.remove(job)
            bar.n = sum(j.progress() for j in jobs)
            bar.set_postfix_str(", ".join(j.name for j in running))
    finally:
        for job in running:
            job.process.terminate()
        for job in running:
            job.process.wait()  # a training saves its state when it is told to end
        bar.close()


def prepare_data():
    """Writes the simulated folder and its info files, or finds them there."""
    run = [sys.executable, "-m"]
    frames = ["--frames", str(TRAIN_FRAMES + VAL_FRAMES), "--val-frames", str(VAL_FRAMES), "--seed", "0"]
    subprocess.run([*run, "pcdet.datasets.simulated", "--out", str(DATA), *frames], cwd=ROOT, check=True)
    dataset_cfg = TOOLS / "cfgs/dataset_configs/simulated_kitti_dataset.yaml"
    infos = [
        *run,
        "pcdet.datasets.kitti.kitti_dataset",
        "create_kitti_infos",
        str(dataset_cfg),
        "--data_path",
        str(DATA),
    ]
    if not (DATA / "kitti_dbinfos_train.pkl").is_file():  # the last file that is written
        subprocess.run(infos, cwd=ROOT, check=True)


def trainings(detector, seeds, parallel):
    """All jobs of a detector, and for each row and seed what the table compares: name, model file, checkpoint."""
    output = OUTPUT / detector
    # Every distilled student waits for the teacher: it gets all the processes.
    teacher = training(output, TEACHER, "train.py", teacher_file(detector), seed=0, processes=min(parallel, 2))
    jobs, models = [teacher], [(TEACHER, teacher_file(detector), teacher.checkpoint)]
    for seed in range(seeds):
        for name, (script, cfg_file) in students_of(detector).items():
            job = training(output, name, script, cfg_file, seed, teacher if script == "train_kd.py" else None)
            jobs.append(job)
            models.append((name, cfg_file, job.checkpoint))
    return jobs, models


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", choices=DISTILLED, default="pointpillar", help="which detector to distil")
    parser.add_argument("--seeds", type=int, default=1, help="repeat the students with this many seeds")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, one thread each")
    args = parser.parse_args()
    if args.seeds < 1 or args.jobs < 1:
        parser.error(f"--seeds and --jobs must be at least 1, got {args.seeds} and {args.jobs}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # run_jobs then ends the trainings too
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", PYTHON=sys.executable)

    prepare_data()
    jobs, models = trainings(args.detector, args.seeds, args.jobs)
    run_jobs(jobs, args.jobs)

    results = OUTPUT / args.detector / "results.json"
    plot = results.with_name("comparison.png")
    compare = [sys.executable, "benchmark.py", "--control", STUDENT, "--json", str(results), "--plot", str(plot)]
    for entry in models:
        compare += ["--model", *map(str, entry)]
    compare += ON_OUR_DATA
    print()
    subprocess.run(compare, cwd=TOOLS, check=True)
    print(f"\n{NOTE}\n\n{results}\n{plot}")


if __name__ == "__main__":
    main()
