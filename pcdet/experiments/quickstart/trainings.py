"""A teacher, its students and their controls as jobs: which model file, which command, what each result depends on."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from easydict import EasyDict

from pcdet.config import cfg_from_yaml_file
from pcdet.experiments.quickstart.meaning import DISTILLED, LONGER, SLICES, STUDENT, TEACHER
from pcdet.experiments.running.freshness import digest
from pcdet.experiments.running.jobs import Job
from pcdet.utils.cpu_features import mixed_precision, read_processor

CFGS = Path("cfgs/simulated_models")

# Row -> how long its training takes against the teacher's. The model file is kd/DETECTOR_WHAT.yaml, WHAT being what is
# added to the student, with _ for +. The order is the table's; students that need no teacher train beside it.
ROWS = {
    "pointpillar": {STUDENT: 0.4, LONGER: 0.6, SLICES: 0.4, DISTILLED: 0.7, f"{SLICES}+logits": 0.6},
    "second": {STUDENT: 0.4, LONGER: 0.7, SLICES: 0.4, DISTILLED: 0.7, f"{SLICES}+pointdistiller": 0.7},
    "pointrcnn": {STUDENT: 0.4, LONGER: 0.7, SLICES: 0.4, DISTILLED: 0.7, f"{SLICES}+pointdistiller": 0.7},
}

# One thread each: on a busy machine two threads of one process cost several times the CPU time of one. The precision
# and the memory layout are those that are fast on this processor.
TRAINING_FLAGS = ["--workers", "0", "--threads", "1", "--use_amp", "--skip_eval", "--logger_iter_interval", "1"]
TRAINING_FLAGS += ["--ckpt_save_time_interval", "30", "--max_ckpt_save_num", "1"]


@dataclass(frozen=True)
class Setting:
    """Where the trainings of a quickstart run, read and write.

    Attributes:
        tools: folder of train.py, train_kd.py and ``cfgs``.
        data: folder of the scenes.
        output: a folder for each detector goes there.
        scenes: what the scenes were made with; a training on others does not count.
    """

    tools: Path
    data: Path
    output: Path
    scenes: Mapping


def model_file(detector: str, row: str) -> Path:
    """The model file of a row, from ``Setting.tools``."""
    if row == TEACHER:
        return CFGS / f"{detector}.yaml"
    what = row.removeprefix(f"{STUDENT}+").replace("+", "_")
    return CFGS / "kd" / f"{detector}_{what}.yaml"


def training(setting: Setting, detector: str, row: str, seed: int, work: float, teacher: Job | None = None) -> Job:
    """The job that trains a row of the table with one seed. Students with a KD block get the teacher's checkpoint."""
    cfg = cfg_from_yaml_file(setting.tools / model_file(detector, row), EasyDict())
    folder = setting.output / detector / row / f"seed{seed}"
    distils = "KD" in cfg
    command = [sys.executable, "train_kd.py" if distils else "train.py", "--cfg_file", str(model_file(detector, row))]
    command += ["--output_dir", str(folder), "--seed", str(seed), *TRAINING_FLAGS]
    command += ["--teacher_ckpt", str(teacher.product)] if distils else []
    # All that changes the result. The same seed in another precision gives another one: what --use_amp is on this CPU.
    precision = mixed_precision(read_processor()).name
    facts = {"model": cfg, "scenes": setting.scenes, "seed": seed, "cpu_precision": precision}
    if distils:
        facts["teacher"] = digest(teacher.facts)
    return Job(
        name=f"{row} (seed {seed})",
        command=[*command, "--set", "DATA_CONFIG.DATA_PATH", str(setting.data)],
        cwd=setting.tools,
        folder=folder,
        product=folder / "ckpt" / f"checkpoint_epoch_{cfg.OPTIMIZATION.NUM_EPOCHS}.pth",
        facts=facts,
        work=work,
        needs=[teacher] if distils else [],
    )


def trainings(setting: Setting, detector: str, seeds: int) -> tuple[list[Job], list[tuple[str, Path, Path]]]:
    """(jobs in the order in which they start, what the table compares: row, model file, checkpoint)."""
    teacher = training(setting, detector, TEACHER, 0, 1.0)
    jobs, models = [teacher], [(TEACHER, model_file(detector, TEACHER), teacher.product)]
    for seed in range(seeds):
        students = {row: training(setting, detector, row, seed, work, teacher) for row, work in ROWS[detector].items()}
        # The long ones first, so that the last to end is a short one.
        jobs += sorted(students.values(), key=lambda job: -job.work)
        models += [(row, model_file(detector, row), job.product) for row, job in students.items()]
    return jobs, models
