"""Counted costs and measured strengths of a plan's methods, from the command that measures them before any training."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from pcdet.experiments.plans.runs import Run, Runs, flags_among
from pcdet.experiments.results.schema import PLAIN, SELF_TRAINED, TEACHER
from pcdet.experiments.running.jobs import Job

OVERHEAD = 2e11  # multiply-accumulates of a training that takes as long as a process needs to begin and to evaluate
SEED = 0  # of the batches that are measured, the same for every method


class Measures:
    """Jobs of ``kd_measure.py`` and what they found.

    Args:
        runs: of the plan.
    """

    def __init__(self, runs: Runs):
        self.runs, self.plan = runs, runs.plan
        self._read: dict[tuple[str, str], Mapping[str, Any]] = {}

    def job(self, student: str, method: str, teacher: Job | None) -> Job:
        """Measures a method at ``KD.WEIGHT`` 1."""
        weight = 1.0 if method != PLAIN and self.plan.has_losses(student, method) else None
        run = Run(student, method, 1.0, 1, SEED, weight)
        return self._new_job(run, teacher, [] if method == PLAIN else self.runs.teacher_flags(student, teacher))

    def teacher_job(self, name: str) -> Job:
        """Measures a teacher's own training."""
        return self._new_job(Run(name, TEACHER, 1.0, 1, SEED), None, [])

    def of(self, subject: str, method: str) -> Mapping[str, Any]:
        """What was measured; of a self-trained student, what was measured of the one that it begins as."""
        key = subject, SELF_TRAINED.get(method, method)
        if key not in self._read:
            self._read[key] = json.loads(self._file(*key).read_text(encoding="utf-8"))
        return self._read[key]

    def known(self, method: str) -> bool:
        """Whether a method has been measured for every student."""
        return all(self._file(student, method).is_file() for student in self.plan.students)

    def macs_per_sample(self, subject: str, method: str) -> float:
        """Multiply-accumulates of a training step for one sample, the teacher's forward pass among them.

        A self-trained student's teacher is a student of its own size.
        """
        found = self.of(subject, method)
        teacher = sum(found["macs_by_pass"]["student_forward"].values()) if method in SELF_TRAINED else 0
        return found["training_macs_per_sample"]["total"] + teacher

    def training_macs(self, run: Run) -> float:
        """Those of a whole training, which also tell how long it takes against others.

        Of a method whose frames are labelled once, its teacher's forward pass on each of them is part.
        """
        split, more = "teacher_train" if run.method == TEACHER else "train", self.plan.sees_unlabelled(run.method)
        samples = run.epochs * self.runs.splits.samples(split, unlabelled=more)
        macs = self.macs_per_sample(run.subject, run.method) * samples
        once = run.method in self.plan.labelled_once
        return macs + (self.labelling_macs(self.plan.students[run.subject].teacher) if once else 0)

    def labelling_macs(self, teacher: str) -> float:
        """Those of a teacher that labels the unlabelled frames once: its forward pass on each of them."""
        passes = self.of(teacher, TEACHER)["macs_by_pass"]
        return sum(passes["student_forward"].values()) * self.runs.splits.counts["unlabelled"]

    def base_weight(self, student: str, method: str, share: float) -> float:
        """``KD.WEIGHT`` at which the gradient of the losses has this share of the detection loss's norm.

        1, the file's own weights, where there is no gradient to measure before the training.
        """
        found = self.of(student, method)["total"]["share_of_gradient"]
        return float(f"{share / found:.4g}") if found else 1.0  # as the name of its model file has it

    def _file(self, subject: str, method: str):
        kind = "teachers" if method == TEACHER else subject
        return self.runs.output / "measures" / kind / (subject if method == TEACHER else method) / "measure.json"

    def _epochs(self, run: Run) -> list[str]:
        """``--epochs`` and its value: those of the plan's training; none for a teacher that is given."""
        if run.method != TEACHER:
            return ["--epochs", str(self.plan.students[run.subject].epochs)]
        epochs = self.plan.teachers[run.subject].epochs
        return ["--epochs", str(epochs[-1])] if epochs else []

    def _new_job(self, run: Run, teacher: Job | None, teacher_flags: list[str]) -> Job:
        file, model = self._file(run.subject, run.method), self.runs.model_file(run)
        search = self.plan.search
        command = [sys.executable, "kd_measure.py", "--cfg_file", self.runs.relative(model), *teacher_flags]
        command += ["--json", self.runs.relative(file), "--seed", str(SEED), *self._epochs(run)]
        command += flags_among(self.plan.flags, ["batch_size"])
        if search is None:
            command += ["--batches", str(self.plan.cost_batches)]
        else:
            command += ["--batches", str(search.batches)]
            if run.method != TEACHER:  # whose cost alone is asked for
                command += ["--warm_steps", str(search.warm_steps)]
        facts = {"model": self.runs.config(model), "command": command[1:], "frames": self.runs.splits.digests}
        if teacher_flags:
            facts["teacher"] = self.runs.teacher_digest(run.subject, teacher)
        return Job(
            name=f"cost of {run.subject}/{run.method}", command=command, cwd=self.runs.tools, folder=file.parent,
            product=file, facts=facts, work=OVERHEAD, needs=[teacher] if teacher is not None else [],
        )  # fmt: skip
