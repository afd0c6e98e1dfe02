"""A comparison of models, as ``compare.py --json`` wrote it: its rows, controls, tables and gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pcdet.audit.report import Audit
from pcdet.experiments.plans.statistics import Gain, paired_gain
from pcdet.experiments.quickstart.comparison import DIFFICULTIES, METRICS
from pcdet.utils.palette import ALSO_CALLED, FIXED, Style, styles_of
from pcdet.utils.tables import Table, human_count, mean_and_spread

NEEDED = (*METRICS, "per_class", "params", "macs", "ms_per_frame", "train_cpu_s")


class Compared:
    """The rows of a comparison. The first one is the teacher, as in ``compare.py``.

    Args:
        content: of the JSON file: ``{"rows": {name: row}, ...}``.
        audit: its roles say which rows are controls. Without one that has these rows, those are rows with the names of
            controls, or, where there are none, the second row.

    Raises:
        ValueError: there are no rows, or one lacks a key.
    """

    def __init__(self, content: Mapping[str, Any], audit: Audit | None = None):
        self.rows: Mapping[str, Mapping] = content.get("rows", {})
        if not self.rows:
            raise ValueError("comparison: needs rows, one a model, as compare.py --json writes them; got none")
        for name, row in self.rows.items():
            if missing := [key for key in NEEDED if key not in row]:
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

    def scores(self, name: str, metric: str = "3d", difficulty: str = "moderate") -> Sequence[float]:
        """MAP of a row, one number a seed."""
        return self.rows[name][metric][difficulty]

    def mean(self, name: str, metric: str = "3d") -> float:
        """Mean moderate mAP of a row over its seeds."""
        return sum(self.scores(name, metric)) / len(self.scores(name, metric))

    def gains(self) -> list[tuple[str, str, str, Gain]]:
        """(row, control, metric, gain) of every row over each control that has as many seeds."""
        first, *_ = [*self.controls, None]
        return [
            (name, control, metric, paired_gain(self.scores(name, metric), self.scores(control, metric)))
            for name in self.rows
            if name not in (self.teacher, first)
            for metric in METRICS
            for control in self.controls
            if control != name and len(self.scores(name, metric)) == len(self.scores(control, metric))
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
    header = ["model", *(f"{m.upper()} {d}" for m in METRICS for d in DIFFICULTIES), "params", "MACs"]
    header += ["ms a frame", "train CPU s"]
    lines = []
    for name, row in compared.rows.items():
        scores = [mean_and_spread(row[m][d]) for m in METRICS for d in DIFFICULTIES]
        macs = human_count(row["macs"] + row.get("sparse_macs", 0))
        seconds = "-" if row["train_cpu_s"] is None else f"{row['train_cpu_s']:.0f}"
        lines.append([name, *scores, human_count(row["params"]), macs, f"{row['ms_per_frame']:.1f}", seconds])
    return Table("Models beside each other: mAP (R40, %), size and speed", header, lines)


def _by_class(compared: Compared) -> Table:
    classes = list(next(iter(compared.rows.values()))["per_class"])
    header = ["model", *(f"{c} {m.upper()}" for c in classes for m in METRICS)]
    lines = [
        [name, *(mean_and_spread(row["per_class"][c][m]["moderate"]) for c in classes for m in METRICS)]
        for name, row in compared.rows.items()
    ]
    return Table("AP by class (R40, %), moderate", header, lines)


def _gains(compared: Compared) -> list[Table]:
    lines = []
    for name, control, metric, gain in compared.gains():
        cost = compared.cost(name, control)
        cells = [f"{gain.mean:+.1f}", interval_of(gain), "yes" if gain.shown else "not shown"]
        lines.append([name, control, metric.upper(), str(gain.seeds), *cells, "-" if cost is None else f"{cost:.2f}"])
    header = ["model", "over", "metric", "seeds", "gain", "95 % interval over seeds", "shown", "cost"]
    note = "Gains are points of moderate mAP, seed by seed. Cost: CPU seconds of training over the control's."
    return [Table("Gains of models over their controls", header, lines, 3, note)] if lines else []
