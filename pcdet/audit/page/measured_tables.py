"""Tables of all that compare.py measures beside the first: other recall points and overlaps, recall, times, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pcdet.audit.page.comparison_rows import Compared
from pcdet.datasets.metrics import MetricTable
from pcdet.experiments.quickstart.comparison_tables import STAGES
from pcdet.utils.tables import Table, mean_and_spread

NOT_THERE = "-"


def measured_tables(compared: Compared) -> list[Table]:
    """The tables; none of what an older file does not have."""
    found = [_further(compared, table) for table in compared.metrics.tables]
    found += [_recall(compared), _stages(compared)]
    return [table for table in found if table.rows]


def _further(compared: Compared, table: MetricTable) -> Table:
    columns = [(metric, level) for metric in table.metrics for level in metric.levels]
    lines = []
    for name, row in compared.rows.items():
        if values := row.get("tables", {}).get(table.title):
            cells = [(metric.digits, values[metric.name][level]) for metric, level in columns]
            lines.append([name, *(mean_and_spread(cell, digits) if cell else NOT_THERE for digits, cell in cells)])
    return Table(table.heading, ["model", *(metric.title(level, metric.shown) for metric, level in columns)], lines)


def _recall(compared: Compared) -> Table:
    found = {name: row["recall"] for name, row in compared.rows.items() if row.get("recall")}
    keys = list(dict.fromkeys(key for values in found.values() for key in values))
    lines = [[name, *(_percent(values.get(key)) for key in keys)] for name, values in found.items()]
    note = "The share of objects that a proposal (roi) or a box at the end (rcnn) overlaps by so much."
    return Table("Recall (%)", ["model", *keys], lines, note=note)


def _percent(shares: Sequence[float] | None) -> str:
    return mean_and_spread([100 * share for share in shares]) if shares else NOT_THERE


def _stages(compared: Compared) -> Table:
    lines = []
    for name, row in compared.rows.items():
        peaks = {str(size): peak for size, peak in row.get("peak_memory", {}).items()}
        for size, stages in row.get("ms_by_stage", {}).items():
            peak = f"{peaks[str(size)] / 2**20:.0f}" if str(size) in peaks else NOT_THERE
            lines.append([name, str(size), *(_spread(stages[stage]) for stage in STAGES), peak])
    note = "Median and quartiles over the timed batches. Peak: what a forward pass takes beyond weights and batch."
    return Table("Milliseconds a frame by stage", ["model", "batch", *STAGES.values(), "peak MiB"], lines, note=note)


def _spread(times: Mapping[str, float]) -> str:
    return f"{times['median']:.1f} ({times['low']:.1f}-{times['high']:.1f})"
