"""Runs that differ in their seed only, as one row of a table or one point of a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pcdet.datasets.metrics import Metric
from pcdet.experiments.quickstart.comparison import Row
from pcdet.experiments.results.schema import CONTROLS, PLAIN, SELF_TRAINED, SLICES, TEACHER, Comparison, Results, Run
from pcdet.registry import nearest_name


class Key(NamedTuple):
    """What runs of one group have in common; ``student`` is None for a teacher."""

    teacher: str
    student: str | None
    method: str
    length: float


@dataclass(frozen=True)
class Group:
    """Reported runs of one key.

    Attributes:
        runs: by rising seed.
        row: their scores, one number a seed.
    """

    runs: Sequence[Run]
    row: Row

    def scores(self, score: Metric) -> list[float]:
        """A score of all classes at its main level, such as moderate mAP, one number a seed."""
        return self.row.ap[score.name][score.main_level]

    @property
    def training_macs(self) -> float:
        """Mean multiply-accumulates of a training."""
        return sum(run.training_macs for run in self.runs) / len(self.runs)


def groups_of_runs(runs: Iterable[Run]) -> dict[Key, list[Run]]:
    """Key -> its runs that have a report, by rising seed; keys in the order of the runs."""
    groups: dict[Key, list[Run]] = {}
    for run in runs:
        if run.report is not None:
            groups.setdefault(Key(run.teacher, run.student, run.method, run.length), []).append(run)
    return {key: sorted(group, key=lambda run: run.seed) for key, group in groups.items()}


class Reported:
    """What the tables and pictures of a plan ask its results for.

    Args:
        results: of the plan.

    Attributes:
        metrics: what the data set's evaluation measures.
        main: the score that choices and claims are about.
    """

    def __init__(self, results: Results):
        self.results = results
        self.metrics, self.main = results.evaluation, results.evaluation.main
        self.groups: dict[Key, Group] = {}
        for key, runs in groups_of_runs(results.runs).items():
            row = Row(metrics=self.metrics, params=runs[0].params, macs=runs[0].macs)
            for run in runs:
                row.add(run.report, results.classes)
            self.groups[key] = Group(runs, row)
        self._comparisons = {(c.student, c.method, c.length, c.metric, c.control): c for c in results.comparisons}

    def setting(self, key: str, default: Any) -> Any:
        """What the plan's file says under a key of its first level, spelt in any case."""
        return next((value for name, value in self.results.plan.items() if name.upper() == key), default)

    def title(self, name: str) -> str:
        """What tables call a method, a student or a teacher: its entry in the plan's ``TITLES``, or its name."""
        return str(self.setting("TITLES", {}).get(name, name))

    def students(self) -> list[str]:
        """All students with runs, in the plan's order."""
        return list(dict.fromkeys(run.student for run in self.results.runs if run.student is not None))

    def teachers(self) -> list[str]:
        """All teachers, in the plan's order."""
        return list(dict.fromkeys(run.teacher for run in self.results.runs))

    def teacher_of(self, student: str) -> str:
        """The teacher of a student."""
        return next(run.teacher for run in self.results.runs if run.student == student)

    def group(self, student: str, method: str, length: float = 1.0) -> Group | None:
        """The reported runs of a student; None if there are none."""
        return next((g for key, g in self.groups.items() if key[1:] == (student, method, length)), None)

    def group_of_teacher(self, teacher: str) -> Group | None:
        """The reported runs of a teacher; None if there are none."""
        return next((g for key, g in self.groups.items() if key[0] == teacher and key.method == TEACHER), None)

    def methods(self, student: str) -> list[str]:
        """The student's methods that have a report at any length: the controls first, then in the plan's order."""
        found = [key.method for key in self.groups if key.student == student]
        return list(dict.fromkeys([m for m in (PLAIN, SLICES, *SELF_TRAINED) if m in found] + found))

    def lengths(self, student: str, method: str) -> list[float]:
        """Lengths with a report, rising."""
        return sorted(key.length for key in self.groups if key[1:3] == (student, method))

    def compared_lengths(self, student: str, method: str) -> list[float]:
        """Lengths at which the method is compared with a control, rising."""
        return sorted({c.length for c in self.results.comparisons if (c.student, c.method) == (student, method)})

    def comparison(self, student: str, method: str, length: float, score: Metric, control: str) -> Comparison | None:
        """The method against a control, by a score; None if they were not compared."""
        return self._comparisons.get((student, method, length, score.name, control))

    def controls(self, students: Iterable[str]) -> list[str]:
        """Controls that any of the students' methods is compared with."""
        students = set(students)
        return [c for c in CONTROLS if any(k[0] in students and k[4] == c for k in self._comparisons)]

    def cost(self, student: str, method: str, length: float = 1.0) -> float | None:
        """Training MACs over those of the plain student at length 1; None where one of them has no report."""
        own, plain = self.group(student, method, length), self.group(student, PLAIN)
        return own.training_macs / plain.training_macs if own and plain else None

    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """Method -> the values that it varies, from the plan's ``SETTINGS``; a ``ValueError`` where there are none."""
        return self.of_plan("SETTINGS", "SETTINGS: {k64: {K: 64, N: 6000}, k128: {K: 128, N: 6000}}")

    def settings_over_plain(self, student: str) -> dict[str, Comparison]:
        """Method of ``SETTINGS`` -> it against the plain student, both at length 1, by the main score."""
        found = {method: self.comparison(student, method, 1.0, self.main, PLAIN) for method in self.settings()}
        return {method: comparison for method, comparison in found.items() if comparison is not None}

    def of_plan(self, key: str, what: str) -> Mapping[str, Any]:
        """A mapping from methods that the plan's file must have for one of its forms of tables.

        Args:
            key: of the plan's file.
            what: an example for the error.

        Raises:
            ValueError: it is missing or empty, or names a method that no run has.
        """
        found = self.setting(key, None)
        table = self.setting("TABLE", "overview")
        if not isinstance(found, Mapping) or not found:
            raise ValueError(f"{key}: a plan with TABLE: {table} needs it, got {found!r}; add {what}")
        known = {run.method for run in self.results.runs}
        for method in found:
            if method not in known:
                raise ValueError(f"{key}.{method}: no run has this method; {nearest_name(method, known)}")
        return found
