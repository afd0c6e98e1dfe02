"""The quickstart's closing paragraph: what its table means, in sentences made from its numbers."""

from __future__ import annotations

from collections.abc import Mapping

from pcdet.datasets.kitti.metrics import KITTI_METRICS
from pcdet.datasets.metrics import Metric

TEACHER, STUDENT, LONGER, SLICES = "teacher", "student", "student+longer", "student+slices"
DISTILLED = "student+pointdistiller"
SCORES = "main scores"  # a row's, one number a seed
CHANCE = 4.0  # points of mAP between two seeds of one student, as docs/benchmarks/quickstart.md has them


def what_it_means(results: Mapping, score: Metric = KITTI_METRICS.main) -> str:
    """The paragraph.

    Args:
        results: rows of results.json, one a model: the score's name -> level -> [value of each seed], ``params``,
            ``train_cpu_s``.
        score: by which models are compared, the main one of the data set's metrics.
    """
    rows = {name: {**row, SCORES: row[score.name][score.main_level]} for name, row in results.items()}
    student = rows[STUDENT]
    share = student["params"] / rows[TEACHER]["params"]
    lost = _mean(rows[TEACHER]) - _mean(student)
    sentences = [
        f"The student has {share:.0%} of the teacher's weights and {abs(lost):.1f} points of {score.said} "
        f"{'less' if lost > 0 else 'more'} than its {_mean(rows[TEACHER]):.1f}.",
        f"Trained for {_cost(rows, LONGER, STUDENT)} the CPU time it gains {_gain(rows, LONGER, STUDENT)}; beginning "
        f"with slices of the teacher's weights, at {_cost(rows, SLICES, STUDENT)} the CPU time, "
        f"{_gain(rows, SLICES, STUDENT)}.",
        f"PointDistiller takes {_cost(rows, DISTILLED, STUDENT)} the student's CPU time: "
        f"{_gain(rows, DISTILLED, STUDENT)} over the student that saw as many samples, "
        f"{_gain(rows, DISTILLED, LONGER)} over the one that trained as long.",
    ]
    for name in rows:
        if name.startswith(f"{SLICES}+"):
            what = name.removeprefix(f"{SLICES}+")
            brings, cost = _gain(rows, name, SLICES), _cost(rows, name, SLICES)
            sentences.append(f"On top of slices, {what} brings {brings} at {cost} their CPU time.")
    students = [name for name in rows if name != TEACHER]
    best = max(students, key=lambda name: _mean(rows[name]))
    sentences.append(f"Highest of the students: {best}, {_mean(rows[best]):.1f}.")
    if len(_scores(student)) == 1:
        sentences.append(
            f"This is one seed, and seeds of one student lie up to about {CHANCE:.0f} points apart: smaller "
            "differences say nothing."
        )
    return " ".join(sentences)


def _scores(row: Mapping) -> list[float]:
    return row[SCORES]


def _mean(row: Mapping) -> float:
    return sum(_scores(row)) / len(_scores(row))


def _gain(rows: Mapping, name: str, control: str) -> str:
    return f"{_mean(rows[name]) - _mean(rows[control]):+.1f}"


def _cost(rows: Mapping, name: str, control: str) -> str:
    seconds, base = rows[name]["train_cpu_s"], rows[control]["train_cpu_s"]
    return f"{seconds / base:.1f} times" if seconds and base else "an unknown share of"
