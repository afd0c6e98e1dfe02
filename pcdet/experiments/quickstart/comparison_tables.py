"""The tables of a comparison, as text: accuracy and cost, gains over controls, and how long each stage takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pcdet.experiments.quickstart.comparison import DIFFICULTIES, METRICS, OVERLAPS, POINTS, Row, Spread
from pcdet.utils.tables import format_table, human_count, mean_and_spread

SHOWN = (*METRICS, "aos")  # of the metrics; that of boxes in the image is in the JSON
LEFT_OUT = "-"
STAGES = {"load": "load, voxelise", "network": "network", "decode_nms": "decode, NMS", "total": "all three"}


def comparison_table(rows: Mapping[str, Row]) -> str:
    """Two tables: mAP, size, speed and training time of every row; then the AP of each class.

    Means over seeds, with the sample standard deviation where a row has several.
    """
    summary = []
    sparse = any(row.sparse_macs for row in rows.values())
    for name, row in rows.items():
        known = [t for t in row.train_cpu_s if t is not None]
        macs = human_count(row.macs) + (f" + {human_count(row.sparse_macs)}" if sparse else "")
        cost = [human_count(row.params), macs, f"{row.ms_per_frame:.1f}"]
        summary.append([name, *_map_cells(row), *cost, f"{sum(known) / len(known):.0f}" if known else LEFT_OUT])
    header = [*_map_header("mAP (R40)"), "params", "MACs, dense + sparse" if sparse else "MACs", "ms/frame"]
    classes = list(next(iter(rows.values())).per_class)
    by_class = [
        [name, *(mean_and_spread(row.per_class[c][m]["moderate"]) for c in classes for m in METRICS)]
        for name, row in rows.items()
    ]
    class_header = ["AP (R40), moderate", *(f"{c} {m}" for c in classes for m in METRICS)]
    return format_table([*header, "train CPU s"], summary) + "\n\n" + format_table(class_header, by_class)


def accuracy_tables(rows: Mapping[str, Row]) -> str:
    """What ``comparison_table`` leaves out: mAP at other recall points and looser overlaps, and recall."""
    tables = []
    for overlaps in OVERLAPS:
        for points in POINTS:
            if (overlaps, points) != ("strict", "R40"):
                cells = [[name, *_map_cells(row, points, overlaps)] for name, row in rows.items()]
                loose = ", loose" if overlaps == "loose" else ""
                tables.append(format_table(_map_header(f"mAP ({points}){loose}"), cells))
    names = list(dict.fromkeys(name for row in rows.values() for name in row.recalls()))
    if names:
        cells = [[name, *(_percent(row.recalls().get(key)) for key in names)] for name, row in rows.items()]
        tables.append(format_table(["recall (%)", *names], cells))
    return "\n\n".join(tables)


def stage_table(rows: Mapping[str, Row]) -> str:
    """Milliseconds per frame of each stage, median and quartiles, and peak memory, for each batch size."""
    lines = []
    for name, row in rows.items():
        for size, stages in row.ms_by_stage.items():
            peak = f"{row.peak_memory[size] / 2**20:.0f}" if size in row.peak_memory else LEFT_OUT
            lines.append([name, size, *(_spread(stages[stage]) for stage in STAGES), peak])
    return format_table(["ms per frame (quartiles)", "batch", *STAGES.values(), "peak MiB"], lines)


def _spread(times: Spread) -> str:
    return f"{times.median:.1f} ({times.low:.1f}-{times.high:.1f})"


def _map_header(title: str) -> list[str]:
    return [title, *(f"{m} {d[:4]}" for m in SHOWN for d in DIFFICULTIES)]


def _map_cells(row: Row, points: str = "R40", overlaps: str = "strict") -> list[str]:
    values = [row.mean_ap(m, d, points, overlaps) for m in SHOWN for d in DIFFICULTIES]
    return [mean_and_spread(v) if v else LEFT_OUT for v in values]


def _percent(shares: Sequence[float] | None) -> str:
    return mean_and_spread([100 * share for share in shares]) if shares else LEFT_OUT


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
            cells = [LEFT_OUT if name == c else _gains(row, rows[c], metric) for c in controls]
            if any(cell != LEFT_OUT for cell in cells):
                lines.append([f"{name}, {metric}", *cells])
    return format_table(["gain in moderate mAP", *(f"over {control}" for control in controls)], lines)


def _gains(row: Row, control: Row, metric: str) -> str:
    own, base = row.ap[metric]["moderate"], control.ap[metric]["moderate"]
    if len(own) != len(base):
        return LEFT_OUT
    gains = [a - b for a, b in zip(own, base, strict=True)]
    each = f" ({' '.join(f'{g:+.1f}' for g in gains)})" if len(gains) > 1 else ""
    return f"{sum(gains) / len(gains):+.1f}{each}"
