"""A teacher, its students and their controls as jobs: which model file, which command, what each result depends on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from easydict import EasyDict

from pcdet.config import cfg_from_yaml_file
from pcdet.experiments.quickstart.data_sets import SimulatedData
from pcdet.experiments.quickstart.meaning import STUDENT, TEACHER
from pcdet.experiments.running.freshness import digest
from pcdet.experiments.running.jobs import Job
from pcdet.utils.cpu_features import mixed_precision, read_processor

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
        simulated: which scenes these are; a training on others does not count.
    """

    tools: Path
    data: Path
    output: Path
    simulated: SimulatedData


def model_file(simulated: SimulatedData, detector: str, row: str) -> Path:
    """The model file of a row, from ``Setting.tools``."""
    if row == TEACHER:
        return simulated.models / f"{detector}.yaml"
    what = row.removeprefix(f"{STUDENT}+").replace("+", "_")
    return simulated.models / "kd" / f"{detector}_{what}.yaml"


def training(setting: Setting, detector: str, row: str, seed: int, work: float, teacher: Job | None = None) -> Job:
    """The job that trains a row of the table with one seed. Students with a KD block get the teacher's checkpoint."""
    file = model_file(setting.simulated, detector, row)
    cfg = cfg_from_yaml_file(setting.tools / file, EasyDict())
    folder = setting.output / detector / row / f"seed{seed}"
    distils = "KD" in cfg
    command = [sys.executable, "train_kd.py" if distils else "train.py", "--cfg_file", str(file)]
    command += ["--output_dir", str(folder), "--seed", str(seed), *TRAINING_FLAGS]
    command += ["--teacher_ckpt", str(teacher.product)] if distils else []
    # All that changes the result. The same seed in another precision gives another one: what --use_amp is on this CPU.
    precision = mixed_precision(read_processor()).name
    facts = {"model": cfg, "scenes": setting.simulated.scenes, "seed": seed, "cpu_precision": precision}
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
    rows = setting.simulated.detectors[detector]
    teacher = training(setting, detector, TEACHER, 0, 1.0)
    jobs, models = [teacher], [(TEACHER, model_file(setting.simulated, detector, TEACHER), teacher.product)]
    for seed in range(seeds):
        students = {row: training(setting, detector, row, seed, work, teacher) for row, work in rows.items()}
        # The long ones first, so that the last to end is a short one.
        jobs += sorted(students.values(), key=lambda job: -job.work)
        models += [(row, model_file(setting.simulated, detector, row), job.product) for row, job in students.items()]
    return jobs, models
