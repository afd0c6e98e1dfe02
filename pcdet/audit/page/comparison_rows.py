"""A comparison of models, as ``compare.py --json`` wrote it: its rows, controls, tables and gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pcdet.audit.report import Audit
from pcdet.datasets.kitti.metrics import KITTI_METRICS
from pcdet.datasets.metrics import EvaluationMetrics, Metric
from pcdet.experiments.plans.statistics import Gain, paired_gain
from pcdet.utils.palette import ALSO_CALLED, FIXED, Style, styles_of
from pcdet.utils.tables import Table, human_count, mean_and_spread

NEEDED = ("per_class", "params", "macs", "ms_per_frame", "train_cpu_s")  # beside its scores


class Compared:
    """The rows of a comparison. The first one is the teacher, as in ``compare.py``.

    Args:
        content: of the JSON file: ``{"rows": {name: row}, "metrics": ..., ...}``; without metrics they are KITTI's.
        audit: its roles say which rows are controls. Without one that has these rows, those are rows with the names of
            controls, or, where there are none, the second row.

    Raises:
        ValueError: there are no rows, or one lacks a key.
    """

    def __init__(self, content: Mapping[str, Any], audit: Audit | None = None):
        self.rows: Mapping[str, Mapping] = content.get("rows", {})
        if not self.rows:
            raise ValueError("comparison: needs rows, one a model, as compare.py --json writes them; got none")
        told = content.get("metrics")
        self.metrics = EvaluationMetrics.from_json(told) if told else KITTI_METRICS
        for name, row in self.rows.items():
            needed = [*(score.name for score in self.metrics.scores), *NEEDED]
            if missing := [key for key in needed if key not in row]:
                raise ValueError(
                    f"comparison: row {name!r} lacks {', '.join(missing)}; write it with compare.py --json"
                )
        self.teacher, *others = self.rows
        roles = {model.name: model.role for model in audit.models} if audit else {}
        if any(name in roles for name in others):
            self.controls: Sequence[str] = [name for name in others if roles.get(name) == "control"]
        else:
            self.controls = [name for name in others if ALSO_CALLED.get(name, name) in FIXED] or others[:1]
        self.students = [name for name in others if name not in self.controls]

    def scores(self, name: str, score: Metric | None = None) -> Sequence[float]:
        """A score of a row, one number a seed; by default the main one."""
        score = score or self.metrics.main
        return self.rows[name][score.name][score.main_level]

    def mean(self, name: str) -> float:
        """Mean of a row's main score over its seeds."""
        return sum(self.scores(name)) / len(self.scores(name))

    def gains(self) -> list[tuple[str, str, Metric, Gain]]:
        """(row, control, score, gain) of every row over each control that has as many seeds."""
        first, *_ = [*self.controls, None]
        return [
            (name, control, score, paired_gain(self.scores(name, score), self.scores(control, score)))
            for name in self.rows
            if name not in (self.teacher, first)
            for score in self.metrics.scores
            for control in self.controls
            if control != name and len(self.scores(name, score)) == len(self.scores(control, score))
        ]

    def styles(self) -> dict[str, Style]:
        """Row -> style, the one that its model has in the audit's plots: the first row has the teacher's."""
        return {self.teacher: FIXED["teacher"], **styles_of([*self.controls, *self.students])}

    def cost(self, name: str, control: str) -> float | None:
        """CPU seconds of a row's training over those of another; None where one is not known."""
        own, other = self.rows[name]["train_cpu_s"], self.rows[control]["train_cpu_s"]
        return own / other if own and other else None


def interval_of(gain: Gain) -> str:
    """``[+0.3, +2.1]``, or why there is none."""
    if gain.interval is None:
        return "(one seed, so no interval)"
    return "[{:+.1f}, {:+.1f}]".format(*gain.interval)


def comparison_tables(compared: Compared) -> list[Table]:
    """Accuracy and cost of every row, accuracy by class, and gains over the controls."""
    return [_summary(compared), _by_class(compared), *_gains(compared)]


def _summary(compared: Compared) -> Table:
    columns = [(score, level) for score in compared.metrics.scores for level in score.levels]
    header = ["model", *(score.title(level, score.shown) for score, level in columns), "params", "MACs"]
    header += ["ms a frame", "train CPU s"]
    lines = []
    for name, row in compared.rows.items():
        scores = [mean_and_spread(row[score.name][level]) for score, level in columns]
        macs = human_count(row["macs"] + row.get("sparse_macs", 0))
        seconds = "-" if row["train_cpu_s"] is None else f"{row['train_cpu_s']:.0f}"
        lines.append([name, *scores, human_count(row["params"]), macs, f"{row['ms_per_frame']:.1f}", seconds])
    return Table(f"Models beside each other: {compared.metrics.summary.heading}; size and speed", header, lines)


def _by_class(compared: Compared) -> Table:
    classes = list(next(iter(compared.rows.values()))["per_class"])
    table = compared.metrics.by_class
    header = ["model", *(table.column_of_class(c, m.shown) for c in classes for m in table.metrics)]
    lines = [
        [name, *(mean_and_spread(row["per_class"][c][m.name][m.main_level]) for c in classes for m in table.metrics)]
        for name, row in compared.rows.items()
    ]
    return Table(table.heading, header, lines)


def _gains(compared: Compared) -> list[Table]:
    lines = []
    for name, control, score, gain in compared.gains():
        cost = compared.cost(name, control)
        cells = [f"{gain.mean:+.1f}", interval_of(gain), "yes" if gain.shown else "not shown"]
        lines.append([name, control, score.shown, str(gain.seeds), *cells, "-" if cost is None else f"{cost:.2f}"])
    header = ["model", "over", "metric", "seeds", "gain", "95 % interval over seeds", "shown", "cost"]
    note = (
        f"Gains are points of {compared.metrics.noun}, seed by seed. Cost: CPU seconds of training over the control's."
    )
    return [Table("Gains of models over their controls", header, lines, 3, note)] if lines else []
