"""The runs behind a plan's results: their detections on the report split, configurations and checkpoints."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from easydict import EasyDict

from pcdet.audit.judging import AuditedModel
from pcdet.datasets import build_dataset
from pcdet.datasets.pickles import read_pickle
from pcdet.experiments.plans.plan import Plan
from pcdet.experiments.plans.splits import Splits
from pcdet.experiments.results.groups import Reported
from pcdet.experiments.results.schema import PLAIN, SELF_TRAINED, SLICES, TEACHER, Results, Run
from pcdet.registry import ConfigError, parse_node

CONTROLS = (PLAIN, SLICES, *SELF_TRAINED)


class PlanRuns:
    """Reads what lies beside a plan's ``results.json``.

    Args:
        results: of the plan.
        folder: of the plan, where the file and the runs lie.
        tools: folder that relative data paths count from.
        data_path: the data folder, from ``tools``; that of the plan if None.
    """

    def __init__(self, results: Results, folder: Path, tools: Path, data_path: str | None = None):
        self.reported, self.folder = Reported(results), folder
        self.plan = parse_node(results.plan, Plan)
        self.root = (tools / (data_path or self.plan.data.path)).resolve()

    @cached_property
    def splits(self) -> Splits:
        """The plan's frames."""
        return Splits(self.plan.data, self.root, self.folder / "splits")

    def are_there(self) -> bool:
        """Whether the first reported run lies in the folder; results that were moved alone have none."""
        runs = [run for run in self.reported.results.runs if run.report is not None]
        return bool(runs) and (self.folder / runs[0].folder / "run.json").is_file()

    def chosen(self, student: str, methods: Sequence[str], length: float) -> list[str]:
        """The student's methods that an audit shows: those asked for, else the controls and the finalists.

        Raises:
            ConfigError: one that is asked for has no report at this length, or nothing has.
        """
        known = [m for m in self.reported.methods(student) if self.reported.group(student, m, length)]
        if unknown := [method for method in methods if method not in known]:
            raise ConfigError(f"--methods: {student} has {', '.join(known)} at length {length:g}, got {unknown[0]!r}")
        finalists = self.reported.results.choices.finalists.get(student, [])
        wanted = list(methods) or [m for m in finalists if m in known]
        found = [m for m in known if m in wanted or (m in CONTROLS and not methods)]
        if not found:
            lengths = {x for m in self.reported.methods(student) for x in self.reported.lengths(student, m)}
            raise ConfigError(
                f"--length: {student} has neither controls nor finalists at length {length:g}, but trainings of the "
                f"lengths {', '.join(f'{x:g}' for x in sorted(lengths))}; give one of these, or name --methods"
            )
        return found

    def models(self, student: str, methods: Sequence[str], length: float) -> list[AuditedModel]:
        """The student's teacher and its methods, with the detections of every seed that all of the methods have.

        Raises:
            ConfigError: no seed is common to all of them, or a run's detections are not there.
        """
        teacher = self.reported.group_of_teacher(self.reported.teacher_of(student))
        found = [] if teacher is None else [self._model(TEACHER, "teacher", teacher.runs)]
        of_methods = {method: self.reported.group(student, method, length).runs for method in methods}
        common = set.intersection(*({run.seed for run in runs} for runs in of_methods.values()))
        if not common:
            seeds = "; ".join(f"{method}: {sorted(run.seed for run in runs)}" for method, runs in of_methods.items())
            raise ConfigError(f"--methods: no seed is common to all of them ({seeds}); name methods that share seeds")
        for method, runs in of_methods.items():
            role = "control" if method in CONTROLS else "student"
            found.append(self._model(method, role, [run for run in runs if run.seed in common]))
        return found

    def first_run(self, student: str, method: str, length: float) -> Run:
        """The run of the lowest seed."""
        is_teacher = method == TEACHER
        of = self.reported.group_of_teacher(self.reported.teacher_of(student)) if is_teacher else None
        return (of or self.reported.group(student, method, length)).runs[0]

    def config(self, run: Run) -> EasyDict:
        """The run's configuration, whose test split is the plan's report split."""
        cfg = EasyDict(json.loads(self._file(run, "run.json").read_text(encoding="utf-8"))["config"])
        cfg.DATA_CONFIG.update(DATA_PATH=str(self.root))
        cfg.DATA_CONFIG.INFO_PATH.update(test=self.splits.files["report"])
        return cfg

    def dataset(self, run: Run) -> Any:
        """The frames of the report split, as the run reads them."""
        cfg, quiet = self.config(run), logging.Logger("pcdet.audit", logging.WARNING)
        return build_dataset(cfg.DATA_CONFIG, list(cfg.CLASS_NAMES), training=False, logger=quiet)

    def checkpoint(self, run: Run) -> Path:
        """Its weights."""
        return self._file(run, f"ckpt/checkpoint_epoch_{run.epochs}.pth")

    def _model(self, name: str, role: str, runs: Sequence[Run]) -> AuditedModel:
        reported = self.splits.frames["report"]
        detections = []
        for run in runs:
            file = self._file(run, f"eval/eval_with_train/epoch_{run.epochs}/*/result.pkl")
            detections.append([anno for anno in read_pickle(file) if str(anno["frame_id"]) in reported])
        return AuditedModel(name=name, role=role, detections=detections)

    def _file(self, run: Run, pattern: str) -> Path:
        found = sorted((self.folder / run.folder).glob(pattern))
        if len(found) != 1:
            raise ConfigError(
                f"{self.folder / run.folder}: an audit needs one {pattern}, found {len(found)}; run the plan again, "
                "which goes on with what is missing, or look at results.json without its runs"
            )
        return found[0]
