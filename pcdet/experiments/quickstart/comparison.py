"""Comparison of a teacher with its students, one row a model, one number a seed: as JSON, table and picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pcdet.utils.tables import format_table, human_count, mean_and_spread

METRICS = ("3d", "bev")
DIFFICULTIES = ("easy", "moderate", "hard")


@dataclass
class Row:
    """One model of the comparison, measured once per seed.

    Attributes:
        ap: metric -> difficulty -> mAP in percent over the classes (40 recall points), one number a seed.
        per_class: class -> metric -> difficulty -> AP in percent, one number a seed.
        params: learnable values.
        macs: multiply-accumulates of one forward pass on the frame named in the report, sparse convolutions left out.
        sparse_macs: those of its sparse convolutions.
        ms_per_frame: milliseconds for one frame, network and post-processing, batch size 1.
        train_cpu_s: CPU seconds of training, one number a seed; ``None`` where no record of the training was found.
    """

    ap: dict = field(default_factory=lambda: {m: {d: [] for d in DIFFICULTIES} for m in METRICS})
    per_class: dict = field(default_factory=dict)
    params: int = 0
    macs: int = 0
    sparse_macs: int = 0
    ms_per_frame: float = 0.0
    train_cpu_s: list = field(default_factory=list)

    def add(self, result: Mapping[str, float], class_names: Sequence[str]) -> None:
        """Takes one evaluation: the KITTI result dictionary with keys ``<class>_<metric>/<difficulty>_R40``."""
        for metric in METRICS:
            for difficulty in DIFFICULTIES:
                values = {c: float(result[f"{c}_{metric}/{difficulty}_R40"]) for c in class_names}
                for name, value in values.items():
                    by_metric = self.per_class.setdefault(name, {m: {d: [] for d in DIFFICULTIES} for m in METRICS})
                    by_metric[metric][difficulty].append(value)
                self.ap[metric][difficulty].append(sum(values.values()) / len(values))


def rows_to_json(rows: Mapping[str, Row]) -> dict:
    """``name -> {3d, bev, per_class, params, macs, sparse_macs, ms_per_frame, train_cpu_s, train_cpu_s_per_seed}``."""
    out = {}
    for name, row in rows.items():
        entry = asdict(row)
        entry.update(entry.pop("ap"))
        entry["train_cpu_s_per_seed"] = row.train_cpu_s
        known = [t for t in row.train_cpu_s if t is not None]
        entry["train_cpu_s"] = sum(known) / len(known) if known else None
        out[name] = entry
    return out


def write_json(path: str | Path, rows: Mapping[str, Row], **facts) -> None:
    """Writes ``{"rows": ..., **facts}``."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps({"rows": rows_to_json(rows), **facts}, indent=2) + "\n")


def comparison_table(rows: Mapping[str, Row]) -> str:
    """Two aligned tables: mAP, size, speed and training time of every row; then the AP of each class.

    Means over seeds, with the sample standard deviation where a row has several.
    """
    summary = []
    sparse = any(row.sparse_macs for row in rows.values())
    for name, row in rows.items():
        known = [t for t in row.train_cpu_s if t is not None]
        aps = [mean_and_spread(row.ap[m][d]) for m in METRICS for d in DIFFICULTIES]
        macs = human_count(row.macs) + (f" + {human_count(row.sparse_macs)}" if sparse else "")
        cost = [human_count(row.params), macs, f"{row.ms_per_frame:.1f}"]
        summary.append([name, *aps, *cost, f"{sum(known) / len(known):.0f}" if known else "-"])
    header = ["mAP (R40)", *(f"{m} {d[:4]}" for m in METRICS for d in DIFFICULTIES), "params"]
    header += ["MACs, dense + sparse" if sparse else "MACs", "ms/frame"]
    classes = list(next(iter(rows.values())).per_class)
    by_class = [
        [name, *(mean_and_spread(row.per_class[c][m]["moderate"]) for c in classes for m in METRICS)]
        for name, row in rows.items()
    ]
    class_header = ["AP (R40), moderate", *(f"{c} {m}" for c in classes for m in METRICS)]
    return format_table([*header, "train CPU s"], summary) + "\n\n" + format_table(class_header, by_class)


def gain_table(rows: Mapping[str, Row], controls: Sequence[str]) -> str:
    """Gain in moderate mAP of every row over each control: the mean, and behind it each seed's where there are several.

    Only rows with as many seeds as the control are compared: the s-th number of both was trained with the same seed.
    Rows without any comparison, such as a teacher of one seed beside students of three, are left out, and so is the
    first control, whose line would repeat the others' with the sign turned.
    """
    lines = []
    for name, row in rows.items():
        if name == controls[0]:
            continue
        for metric in METRICS:
            cells = ["-" if name == c else _gains(row, rows[c], metric) for c in controls]
            if any(cell != "-" for cell in cells):
                lines.append([f"{name}, {metric}", *cells])
    return format_table(["gain in moderate mAP", *(f"over {control}" for control in controls)], lines)


def _gains(row: Row, control: Row, metric: str) -> str:
    own, base = row.ap[metric]["moderate"], control.ap[metric]["moderate"]
    if len(own) != len(base):
        return "-"
    gains = [a - b for a, b in zip(own, base, strict=True)]
    each = f" ({' '.join(f'{g:+.1f}' for g in gains)})" if len(gains) > 1 else ""
    return f"{sum(gains) / len(gains):+.1f}{each}"
