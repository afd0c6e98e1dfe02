"""The runs of a plan: one training and its evaluation each, as a model file, a command and a folder."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from easydict import EasyDict

from pcdet.config import cfg_from_yaml_file, find_config_file
from pcdet.experiments.plans.plan import Plan
from pcdet.experiments.plans.splits import Splits
from pcdet.experiments.results.schema import PLAIN, SELF_TRAINED, TEACHER
from pcdet.experiments.running.freshness import digest
from pcdet.experiments.running.jobs import Job
from pcdet.registry import ConfigError
from pcdet.utils.checkpoint_names import epoch_id
from pcdet.utils.cpu_features import mixed_precision, read_processor
from pcdet.utils.safe_files import replacing, sha256_of

# One thread each: on a busy machine two threads of one process cost several times the CPU time of one.
CORE_FLAGS = ["--workers", "0", "--threads", "1"]
TRAINING_FLAGS = ["--use_amp", "--logger_iter_interval", "10", "--ckpt_save_time_interval", "60"]
TRAINING_FLAGS += ["--max_ckpt_save_num", "1"]
MACHINE_FLAGS = ["batch_size", "workers"]  # of a training, which test.py has too
EMPTY_BLOCK = {"INIT": {"NAME": "none"}, "LABELS": None, "PRESET": "default", "WEIGHT": 1.0, "LOSSES": []}


@dataclass(frozen=True)
class Run:
    """One training with one seed.

    Attributes:
        subject: name of the student, or of the teacher where ``method`` is "teacher".
        method: "teacher", "plain", "slices", a self-trained one of these two, or one of the plan's.
        length: as a multiple of the student's epochs.
        epochs: of the training.
        seed: of data order, augmentation and first weights.
        weight: ``KD.WEIGHT``; None where there are no losses.
        stage: for which it was first wanted: teacher, search, screening, finals or curves.
        factor: of a trial of the weight search; None elsewhere.
    """

    subject: str
    method: str
    length: float
    epochs: int
    seed: int
    weight: float | None = None
    stage: str = "finals"
    factor: float | None = None

    @property
    def id(self) -> str:
        """Its name and folder, from the plan's."""
        if self.method == TEACHER:
            return f"teachers/{self.subject}/epochs{self.epochs}/seed{self.seed}"
        what = f"x{self.length:g}" if self.factor is None else f"search{self.factor:.3g}"
        return f"{self.subject}/{self.method}/{what}/seed{self.seed}"


class Runs:
    """Makes the jobs of a plan.

    Args:
        plan: what is asked for.
        splits: info files.
        tools: folder of the commands; all paths in commands and files are relative to it.
        output: the plan's folder.
        on_cores: whether jobs run on cores, one thread each, rather than on GPUs.
    """

    def __init__(self, plan: Plan, splits: Splits, tools: Path, output: Path, *, on_cores: bool = True):
        self.plan, self.splits, self.tools, self.output = plan, splits, tools, output
        self.core_flags = CORE_FLAGS if on_cores else []
        self.flags = [*self.core_flags, *TRAINING_FLAGS, *plan.flags]
        # The same seed in another precision gives another result: what --use_amp is on this CPU.
        self.precision = mixed_precision(read_processor()).name if on_cores else "GPU"
        given = {name: config.ckpt for name, config in plan.teachers.items() if config.ckpt is not None}
        self.given = {name: _digest_of_given(name, tools / file) for name, file in given.items()}
        self._jobs: dict[str, Job] = {}
        self._loaded: dict[Path, Any] = {}

    def job(self, run: Run, teacher: Job | None = None, work: float = 1.0) -> Job:
        """The job of a run, always the same object for the same run.

        Args:
            run: what is trained.
            teacher: the job that trains its teacher, which of a self-trained student is the student that it begins as;
                None where it has none, or one that is given.
            work: how long it takes against others.
        """
        if run.id not in self._jobs:
            self._jobs[run.id] = self._new_job(run, teacher, work)
        return self._jobs[run.id]

    def labels_job(self, name: str, teacher: Job | None, work: float = 1.0) -> Job:
        """The job in which a teacher finds the boxes that are the labels of unlabelled frames; always the same object.

        Args:
            name: of the teacher.
            teacher: the job that trains it; None where it is given.
            work: how long it takes against others.
        """
        key = self._labels_key(name)
        if key not in self._jobs:
            self._jobs[key] = self._new_labels_job(name, teacher, work)
        return self._jobs[key]

    def folder(self, run: Run) -> Path:
        """Where a run lies."""
        return self.output / run.id

    def result_file(self, run: Run) -> Path:
        """The detections of its last evaluation, in the frames of the search and the report split."""
        split = self.config(self.model_file(run)).DATA_CONFIG.DATA_SPLIT["test"]
        return self.folder(run) / "eval" / "eval_with_train" / f"epoch_{run.epochs}" / split / "result.pkl"

    def checkpoint(self, run: Run) -> Path:
        """Its weights."""
        return self.folder(run) / "ckpt" / f"checkpoint_epoch_{run.epochs}.pth"

    def record(self, run: Run) -> Mapping[str, Any]:
        """Its ``run.json``."""
        return json.loads((self.folder(run) / "run.json").read_text(encoding="utf-8"))

    def teacher_flags(self, student: str, teacher: Job | None) -> list[str]:
        """``--teacher_ckpt`` and its value."""
        return ["--teacher_ckpt", self._teacher_file(self.plan.students[student].teacher, teacher)]

    def teacher_digest(self, student: str, teacher: Job | None) -> str:
        """A text that changes with the weights of a student's teacher."""
        return self._digest_of(self.plan.students[student].teacher, teacher)

    def relative(self, path: Path) -> str:
        """A path as a command in ``tools`` names it."""
        return os.path.relpath(path, self.tools)

    def config(self, file: Path) -> Any:
        """A model file, loaded once."""
        if file not in self._loaded:
            self._loaded[file] = cfg_from_yaml_file(file, EasyDict(LOCAL_RANK=0))
        return self._loaded[file]

    def model_file(self, run: Run) -> Path:
        """The model file of a run, written where it is not there yet: the student's or teacher's, and what differs."""
        is_teacher = run.method == TEACHER
        base = self._base(run.subject, is_teacher)
        infos = {"train": self.splits.files["teacher_train" if is_teacher else "train"]}
        if self.plan.sees_unlabelled(run.method):
            infos["unlabelled"] = self.splits.files["unlabelled"]
        infos["test"] = [*self.splits.files["search"], *self.splits.files["report"]]
        content = {"_BASE_CONFIG_": base, "DATA_CONFIG": self._data(infos)}
        name = run.method
        if run.method not in (TEACHER, PLAIN):
            content["KD"] = self._block(run)
            if run.method in self.plan.labelled_once:
                content["DATA_CONFIG"]["PSEUDO_LABELS"] = self._pseudo_labels(run.subject, content["KD"]["LABELS"])
                content["KD"]["LABELS"] = None
            name += "" if run.weight is None else f"@{run.weight:.4g}"  # no name of a method has @
        file = self.output / "cfgs" / run.subject / f"{name}.yaml"
        self._write(file, content)
        return file

    def _data(self, infos: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """What the plan says of a model file's ``DATA_CONFIG``."""
        data = {"DATA_PATH": self.plan.data.path, "INFO_PATH": infos}
        return data if self.plan.data.version is None else data | {"VERSION": self.plan.data.version}

    def _pseudo_labels(self, student: str, labels: Mapping[str, Any]) -> dict[str, Any]:
        """PSEUDO_LABELS of a student. MAX_IOU of ``labels`` plays no part: these frames have no true boxes."""
        file = self._jobs[self._labels_key(self.plan.students[student].teacher)].product
        score = {key.upper(): value for key, value in labels.items() if key.upper() == "SCORE"}
        return {"FILE": self.relative(file), **score}

    def _base(self, subject: str, is_teacher: bool) -> str:
        """The student's or teacher's own file, over a ``KD`` block of which another file is laid that has none.

        Mappings of a file and of its base are merged: keys of that block would be left in those of the methods, and a
        plain student's cost would be counted with a teacher.
        """
        base = (self.plan.teachers if is_teacher else self.plan.students)[subject].cfg
        if not self.config(find_config_file(base, self.output / "cfgs")).get("KD"):
            return base
        file = self.output / "cfgs" / subject / f"@{'teacher' if is_teacher else 'student'}.yaml"
        self._write(file, {"_BASE_CONFIG_": base, "KD": None})
        return self.relative(file)

    def _write(self, file: Path, content: Mapping[str, Any]) -> None:
        """A model file, where it is not there yet as it should be."""
        text = yaml.safe_dump(content, sort_keys=False)
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as stream:
                stream.write(text.encode())
            self._loaded.pop(file, None)

    def _block(self, run: Run) -> dict[str, Any]:
        """The ``KD`` block of a run."""
        student = self.plan.students[run.subject]
        teacher = student if run.method in SELF_TRAINED else self.plan.teachers[student.teacher]
        block = {**EMPTY_BLOCK, **self.plan.block(run.subject, run.method)}
        if run.weight is not None:
            block["WEIGHT"] = float(f"{run.weight:.4g}")  # as the file's name says it
        return {"TEACHER": {"CFG": teacher.cfg, "CKPT": None, "MODE": None}, **block}

    def _new_job(self, run: Run, teacher: Job | None, work: float) -> Job:
        file, folder = self.model_file(run), self.folder(run)
        distils = run.method not in (TEACHER, PLAIN)
        command = [sys.executable, "train_kd.py" if distils else "train.py", "--cfg_file", self.relative(file)]
        command += ["--output_dir", self.relative(folder), "--epochs", str(run.epochs), "--seed", str(run.seed)]
        command += ["--ckpt_save_interval", str(run.epochs)]  # a killed one goes on from latest_model.pth
        command += self.flags + (self.teacher_flags(run.subject, teacher) if distils else [])
        if run.method in SELF_TRAINED:
            command += ["--pretrained_model", self.relative(self._checkpoint_of(teacher))]
        facts = {"model": self.config(file), "epochs": run.epochs, "seed": run.seed, "precision": self.precision}
        facts |= {"flags": self.flags, "frames": self.splits.digests}
        needs = []
        if distils:
            facts["teacher"] = self.teacher_digest(run.subject, teacher)
            needs += [] if teacher is None else [teacher]
            if run.method in self.plan.labelled_once:
                needs.append(self.labels_job(self.plan.students[run.subject].teacher, teacher))
        return Job(
            name=run.id,
            command=command,
            cwd=self.tools,
            folder=folder,
            product=self.result_file(run),
            facts=facts,
            work=work,
            needs=needs,
        )

    def _new_labels_job(self, name: str, teacher: Job | None, work: float) -> Job:
        file, folder = self.output / "cfgs" / name / "@labels.yaml", self.output / self._labels_key(name)
        infos = {"train": self.splits.files["teacher_train"], "test": self.splits.files["unlabelled"]}
        self._write(file, {"_BASE_CONFIG_": self._base(name, True), "DATA_CONFIG": self._data(infos)})
        ckpt = self._teacher_file(name, teacher)
        command = [sys.executable, "test.py", "--cfg_file", self.relative(file), "--ckpt", ckpt]
        flags = [*self.core_flags, *flags_among(self.plan.flags, MACHINE_FLAGS)]
        command += ["--output_dir", self.relative(folder), *flags, "--use_amp"]
        split = self.config(file).DATA_CONFIG.DATA_SPLIT["test"]
        facts = {"model": self.config(file), "flags": flags, "precision": self.precision}
        facts |= {"frames": self.splits.digests["unlabelled"], "teacher": self._digest_of(name, teacher)}
        return Job(
            name=f"labels of {name}",
            command=command,
            cwd=self.tools,
            folder=folder,
            product=folder / "eval" / f"epoch_{epoch_id(ckpt)}" / split / "default" / "result.pkl",
            facts=facts,
            work=work,
            needs=[] if teacher is None else [teacher],
        )

    @staticmethod
    def _labels_key(name: str) -> str:
        return f"labels/{name}"

    def _teacher_file(self, name: str, teacher: Job | None) -> str:
        """The checkpoint of a teacher, or of the student that teaches, as a command names it."""
        return self.plan.teachers[name].ckpt if teacher is None else self.relative(self._checkpoint_of(teacher))

    def _digest_of(self, name: str, teacher: Job | None) -> str:
        if teacher is not None:
            return digest(teacher.facts)
        model = self.config(find_config_file(self.plan.teachers[name].cfg, self.output / "cfgs"))
        return digest({"weights": self.given[name], "model": model})

    def _checkpoint_of(self, teacher: Job) -> Path:
        epochs = teacher.facts["epochs"]
        return teacher.folder / "ckpt" / f"checkpoint_epoch_{epochs}.pth"


def flags_among(flags: Sequence[str], names: Sequence[str]) -> list[str]:
    """Those flags of a training that have these names, such as "batch_size"; read as the training reads them."""
    parser = argparse.ArgumentParser(add_help=False)
    for name in names:
        parser.add_argument(f"--{name}")
    found = vars(parser.parse_known_args(flags)[0])
    return [f"--{name}={value}" for name, value in found.items() if value is not None]


def _digest_of_given(name: str, file: Path) -> str:
    """Of the weights of a teacher that is given.

    Raises:
        ConfigError: there is no such file.
    """
    if not file.is_file():
        raise ConfigError(
            f"TEACHERS.{name}.CKPT: {file} does not exist; give a checkpoint, or EPOCHS to train the teacher here"
        )
    return sha256_of(file)
