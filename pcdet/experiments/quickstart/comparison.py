"""Comparison of a teacher with its students, one row a model, one number a seed: what is measured, and its JSON.

``comparison_tables`` prints it, ``comparison_plot`` draws it.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

METRICS = ("3d", "bev")
DIFFICULTIES = ("easy", "moderate", "hard")
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
        ap: metric -> difficulty -> mAP in percent over the classes (40 recall points, strict), one number a seed.
        per_class: class -> metric -> difficulty -> AP in percent, one number a seed.
        results: all that each seed's evaluation says, by the keys of ``test.py``.
        params: learnable values.
        macs: multiply-accumulates of one forward pass on the frame named in the report, sparse convolutions left out.
        sparse_macs: those of its sparse convolutions.
        ms_per_frame: median milliseconds for one frame, network and post-processing, at the first batch size.
        ms_by_stage: batch size -> stage -> milliseconds for one frame.
        peak_memory: batch size -> bytes that a forward pass takes beyond weights and batch.
        train_cpu_s: CPU seconds of training, one number a seed; ``None`` where no record of the training was found.
    """

    ap: dict = field(default_factory=lambda: {m: {d: [] for d in DIFFICULTIES} for m in METRICS})
    per_class: dict = field(default_factory=dict)
    results: list = field(default_factory=list)
    params: int = 0
    macs: int = 0
    sparse_macs: int = 0
    ms_per_frame: float = 0.0
    ms_by_stage: dict = field(default_factory=dict)
    peak_memory: dict = field(default_factory=dict)
    train_cpu_s: list = field(default_factory=list)

    def add(self, result: Mapping[str, float], class_names: Sequence[str]) -> None:
        """Takes one evaluation: the KITTI result dictionary with keys ``<class>_<metric>/<difficulty>_R40``."""
        self.results.append(dict(result))
        for metric in METRICS:
            for difficulty in DIFFICULTIES:
                values = {c: float(result[key_of(c, metric, difficulty)]) for c in class_names}
                for name, value in values.items():
                    by_metric = self.per_class.setdefault(name, {m: {d: [] for d in DIFFICULTIES} for m in METRICS})
                    by_metric[metric][difficulty].append(value)
                self.ap[metric][difficulty].append(sum(values.values()) / len(values))

    def mean_ap(self, metric: str, difficulty: str, points: str = "R40", overlaps: str = "strict") -> list[float]:
        """Percent of mAP over the classes, one number a seed; empty where a seed's evaluation does not have it.

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
    """Name -> what docs/COMPARE.md lists: mAP by metric, overlaps and points, recall, results, size, times, memory."""
    out = {}
    for name, row in rows.items():
        entry = asdict(row)
        entry.update(entry.pop("ap"))
        entry["mean_ap"] = {
            overlaps: {
                points: {m: {d: row.mean_ap(m, d, points, overlaps) for d in DIFFICULTIES} for m in EVALUATED_AS}
                for points in POINTS
            }
            for overlaps in OVERLAPS
        }
        entry["recall"] = row.recalls()
        entry["train_cpu_s_per_seed"] = row.train_cpu_s
        known = [t for t in row.train_cpu_s if t is not None]
        entry["train_cpu_s"] = sum(known) / len(known) if known else None
        out[name] = entry
    return out


def write_json(path: str | Path, rows: Mapping[str, Row], **facts) -> None:
    """Writes ``{"rows": ..., **facts}``."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps({"rows": rows_to_json(rows), **facts}, indent=2) + "\n")
