"""Comparison of a teacher with its students, one row a model, one number a seed: what is measured, and its JSON.

``comparison_tables`` prints it, ``comparison_plot`` draws it.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pcdet.datasets.kitti.metrics import DIFFICULTIES, KITTI_METRICS
from pcdet.datasets.metrics import EvaluationMetrics, Metric, MetricTable

POINTS = ("R40", "R11")  # recall points over which precision is averaged
OVERLAPS = {"strict": "", "loose": "_loose"}  # of detection and object -> what a key of the evaluation has of it
RECALL = "recall/"
EVALUATED_AS = {"3d": "3d", "bev": "bev", "aos": "aos", "bbox": "image"}  # metric -> its name in these keys


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing.

    Attributes:
        median: half of them are smaller.
        low: a quarter of them is smaller.
        high: a quarter of them is larger.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """That of one value or more."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass
class Row:
    """One model of the comparison, measured once per seed.

    Attributes:
        metrics: of the data set's evaluation.
        ap: score -> level -> value of all classes, one number a seed; of KITTI metric -> difficulty -> mAP in percent
            (40 recall points, strict).
        per_class: class -> score -> level -> the class's value, one number a seed, of scores that classes have.
        results: all that each seed's evaluation says, by the keys of ``test.py``.
        params: learnable values.
        macs: multiply-accumulates of one forward pass on the frame named in the report, sparse convolutions left out.
        sparse_macs: those of its sparse convolutions.
        ms_per_frame: median milliseconds for one frame, network and post-processing, at the first batch size.
        ms_by_stage: batch size -> stage -> milliseconds for one frame.
        peak_memory: batch size -> bytes that a forward pass takes beyond weights and batch.
        train_cpu_s: CPU seconds of training, one number a seed; ``None`` where no record of the training was found.
    """

    metrics: EvaluationMetrics = KITTI_METRICS
    ap: dict = field(default_factory=dict)
    per_class: dict = field(default_factory=dict)
    results: list = field(default_factory=list)
    params: int = 0
    macs: int = 0
    sparse_macs: int = 0
    ms_per_frame: float = 0.0
    ms_by_stage: dict = field(default_factory=dict)
    peak_memory: dict = field(default_factory=dict)
    train_cpu_s: list = field(default_factory=list)

    def __post_init__(self):
        self.ap = self.ap or {score.name: {level: [] for level in score.levels} for score in self.metrics.scores}

    def add(self, result: Mapping[str, float], class_names: Sequence[str]) -> None:
        """Takes one evaluation: the flat results of the data set, which must have every score of every class."""
        self.results.append(dict(result))
        for score in self.metrics.scores:
            for level in score.levels:
                for name in class_names if score.of_class else ():
                    of_class = self.per_class.setdefault(name, {}).setdefault(score.name, {})
                    of_class.setdefault(level, []).append(score.value_of_class(result, name, level))
                self.ap[score.name][level].append(score.value(result, class_names, level))

    @property
    def main_scores(self) -> list[float]:
        """The data set's main score, one number a seed."""
        return self.ap[self.metrics.main.name][self.metrics.main.main_level]

    def values(self, metric: Metric, level: str) -> list[float]:
        """Any metric's value of all classes, one number a seed; empty where a seed's evaluation does not have it."""
        found = [metric.value(result, list(self.per_class), level) for result in self.results]
        return [] if None in found else found

    def mean_ap(self, metric: str, difficulty: str, points: str = "R40", overlaps: str = "strict") -> list[float]:
        """Percent of KITTI's mAP over the classes, one number a seed; empty where a seed's evaluation has none.

        Args:
            metric: of ``EVALUATED_AS``. An evaluation has no aos where a detection has no observation angle.
            difficulty: of ``DIFFICULTIES``.
            points: of ``POINTS``.
            overlaps: of ``OVERLAPS``.
        """
        keys = [key_of(name, metric, difficulty, points, overlaps) for name in self.per_class]
        if not all(key in result for result in self.results for key in keys):
            return []
        return [sum(float(result[key]) for key in keys) / len(keys) for result in self.results]

    def recalls(self) -> dict[str, list[float]]:
        """``roi_<overlap>`` and ``rcnn_<overlap>`` -> share of objects that boxes cover so far, one number a seed.

        Those of ``test.py``: of the proposals, which one-stage detectors have none of, and of the boxes of the end.
        """
        names = [key for key in (self.results[0] if self.results else ()) if key.startswith(RECALL)]
        return {key.removeprefix(RECALL): [result[key] for result in self.results] for key in names}


def key_of(class_name: str, metric: str, difficulty: str, points: str = "R40", overlaps: str = "strict") -> str:
    """The key under which KITTI's evaluation has a number, such as ``Car_image_loose/easy_R11``."""
    return f"{class_name}_{EVALUATED_AS[metric]}{OVERLAPS[overlaps]}/{difficulty}_{points}"


def rows_to_json(rows: Mapping[str, Row]) -> dict:
    """Name -> what docs/COMPARE.md lists: scores, further metrics, recall, results, size, times, memory."""
    out = {}
    for name, row in rows.items():
        entry = asdict(row)
        del entry["metrics"]
        entry.update(entry.pop("ap"))
        entry["tables"] = {table.title: _by_metric(row, table) for table in row.metrics.tables}
        if row.metrics == KITTI_METRICS:
            entry["mean_ap"] = _kitti_maps(row)
        entry["recall"] = row.recalls()
        entry["train_cpu_s_per_seed"] = row.train_cpu_s
        known = [t for t in row.train_cpu_s if t is not None]
        entry["train_cpu_s"] = sum(known) / len(known) if known else None
        out[name] = entry
    return out


def _by_metric(row: Row, table: MetricTable) -> dict:
    return {metric.name: {level: row.values(metric, level) for level in metric.levels} for metric in table.metrics}


def _kitti_maps(row: Row) -> dict:
    return {
        overlaps: {
            points: {m: {d: row.mean_ap(m, d, points, overlaps) for d in DIFFICULTIES} for m in EVALUATED_AS}
            for points in POINTS
        }
        for overlaps in OVERLAPS
    }


def metrics_of(rows: Mapping[str, Row]) -> EvaluationMetrics:
    """Those of the rows, which all have the same."""
    return next(iter(rows.values())).metrics


def comparison_to_json(rows: Mapping[str, Row], **facts) -> dict:
    """``{"rows": ..., "metrics": ..., **facts}``: the metrics tell a reader what the rows' scores are."""
    return {"rows": rows_to_json(rows), "metrics": metrics_of(rows).to_json(), **facts}


def write_json(path: str | Path, rows: Mapping[str, Row], **facts) -> None:
    """Writes what ``comparison_to_json`` returns."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(comparison_to_json(rows, **facts), indent=2) + "\n")
