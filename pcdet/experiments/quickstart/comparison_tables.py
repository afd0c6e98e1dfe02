"""The tables of a comparison, as text: accuracy and cost, gains over controls, and how long each stage takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pcdet.datasets.metrics import Metric, MetricTable
from pcdet.experiments.quickstart.comparison import Row, Spread, metrics_of
from pcdet.utils.tables import format_table, human_count, mean_and_spread

LEFT_OUT = "-"
STAGES = {"load": "load, voxelise", "network": "network", "decode_nms": "decode, NMS", "total": "all three"}


def comparison_table(rows: Mapping[str, Row]) -> str:
    """Two tables: scores, size, speed and training time of every row; then the scores of each class.

    Means over seeds, with the sample standard deviation where a row has several.
    """
    metrics, summary = metrics_of(rows), []
    sparse = any(row.sparse_macs for row in rows.values())
    for name, row in rows.items():
        known = [t for t in row.train_cpu_s if t is not None]
        macs = human_count(row.macs) + (f" + {human_count(row.sparse_macs)}" if sparse else "")
        cost = [human_count(row.params), macs, f"{row.ms_per_frame:.1f}"]
        cost.append(f"{sum(known) / len(known):.0f}" if known else LEFT_OUT)
        summary.append([name, *_cells(row, metrics.summary), *cost])
    header = [metrics.summary.title, *_titles(metrics.summary)]
    header += ["params", "MACs, dense + sparse" if sparse else "MACs", "ms/frame", "train CPU s"]
    return format_table(header, summary) + "\n\n" + _class_table(rows)


def _class_table(rows: Mapping[str, Row]) -> str:
    table, classes = metrics_of(rows).by_class, list(next(iter(rows.values())).per_class)
    columns = [(name, metric) for name in classes for metric in table.metrics]
    lines = [
        [name, *(mean_and_spread(row.per_class[c][m.name][m.main_level], m.digits) for c, m in columns)]
        for name, row in rows.items()
    ]
    return format_table([table.title, *(table.column_of_class(name, metric.name) for name, metric in columns)], lines)


def accuracy_tables(rows: Mapping[str, Row]) -> str:
    """What ``comparison_table`` leaves out: the further metrics of the data set, and recall."""
    tables = [
        format_table([table.title, *_titles(table)], [[name, *_cells(row, table)] for name, row in rows.items()])
        for table in metrics_of(rows).tables
    ]
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


def _titles(table: MetricTable) -> list[str]:
    return [metric.title(level[:4]) for metric in table.metrics for level in metric.levels]


def _cells(row: Row, table: MetricTable) -> list[str]:
    columns = [(metric.digits, row.values(metric, level)) for metric in table.metrics for level in metric.levels]
    return [mean_and_spread(values, digits) if values else LEFT_OUT for digits, values in columns]


def _percent(shares: Sequence[float] | None) -> str:
    return mean_and_spread([100 * share for share in shares]) if shares else LEFT_OUT


def gain_table(rows: Mapping[str, Row], controls: Sequence[str]) -> str:
    """Gain in each score of every row over each control: the mean, and behind it each seed's where there are several.

    Only rows with as many seeds as the control are compared: the s-th number of both was trained with the same seed.
    Rows without any comparison, such as a teacher of one seed beside students of three, are left out, and so is the
    first control, whose line would repeat the others' with the sign turned.
    """
    lines = []
    for name, row in rows.items():
        if name == controls[0]:
            continue
        for score in metrics_of(rows).scores:
            cells = [LEFT_OUT if name == c else _gains(row, rows[c], score) for c in controls]
            if any(cell != LEFT_OUT for cell in cells):
                lines.append([f"{name}, {score.name}", *cells])
    return format_table([f"gain in {metrics_of(rows).noun}", *(f"over {control}" for control in controls)], lines)


def _gains(row: Row, control: Row, score: Metric) -> str:
    own, base = (one.ap[score.name][score.main_level] for one in (row, control))
    if len(own) != len(base):
        return LEFT_OUT
    gains = [a - b for a, b in zip(own, base, strict=True)]
    each = f" ({' '.join(f'{g:+.1f}' for g in gains)})" if len(gains) > 1 else ""
    return f"{sum(gains) / len(gains):+.1f}{each}"
