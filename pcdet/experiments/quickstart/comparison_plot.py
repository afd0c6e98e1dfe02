"""The picture of a comparison: the scores of every row, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pcdet.experiments.quickstart.comparison import Row, metrics_of
from pcdet.utils.figures import new_figure, save_figure
from pcdet.utils.palette import Style, styles_of

DPI = 130
PALER = 0.4  # how opaque the bars of a score are beside those of the score before it
BARS = 0.76  # width of a row's bars together; names stand one apart
EDGE = "#000000"  # of bars and markers, since yellow on white is pale


def plot_comparison(rows: Mapping[str, Row], path: str | Path, title: str = "") -> None:
    """Writes a PNG: bars of two scores (a dot per seed) beside accuracy against cost. Needs no display.

    The cost is that of the training, which tells students of one size apart; where it is not known for every row, the
    MACs of one frame. Names stand in a legend beside the axes.

    Args:
        rows: in the order of drawing.
        path: of the picture.
        title: above it.
    """
    save_figure(draw_comparison(rows, title), path)


def draw_comparison(rows: Mapping[str, Row], title: str = ""):
    """The figure of ``plot_comparison``."""
    figure = new_figure(6.2 + 0.75 * len(rows), 4.2, DPI, layout="constrained")
    bars, cost = figure.subplots(1, 2, width_ratios=(3, 2))
    styles = styles_of(rows)
    _draw_bars(bars, rows, styles)
    _draw_costs(cost, rows, styles)
    for axis in (bars, cost):
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(handles=_entries(styles), loc="outside right center", frameon=False, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _draw_bars(axis, rows: Mapping[str, Row], styles: Mapping[str, Style]) -> None:
    """A bar a score and row, with the mean above and a dot for each seed where there are several."""
    metrics = metrics_of(rows)
    width = BARS / len(metrics.scores)
    aside = [(k - (len(metrics.scores) - 1) / 2) * width for k in range(len(metrics.scores))]
    for place, (name, row) in enumerate(rows.items()):
        for k, score in enumerate(metrics.scores):
            x, values = place + aside[k], row.ap[score.name][score.main_level]
            mean = sum(values) / len(values)
            axis.bar(x, mean, 0.95 * width, color=styles[name].colour, alpha=PALER**k, zorder=1)
            axis.bar(x, mean, 0.95 * width, fill=False, edgecolor=EDGE, linewidth=0.6, zorder=2)
            if len(values) > 1:
                axis.plot([x] * len(values), values, "o", color="white", markeredgecolor=EDGE, markersize=3.5, zorder=3)
            above = (0, 4 if len(values) > 1 else 1)  # points above the highest seed's dot
            axis.annotate(f"{mean:.1f}", (x, max(values)), above, textcoords="offset points", ha="center", fontsize=8)
    axis.set_xticks([place + own for place in range(len(rows)) for own in aside])
    axis.set_xticklabels([score.shown for _ in rows for score in metrics.scores], fontsize=7)
    axis.tick_params(axis="x", length=0)
    axis.set_ylabel(f"{metrics.noun} (%)")


def _draw_costs(axis, rows: Mapping[str, Row], styles: Mapping[str, Style]) -> None:
    """A marker a row; its name is in the legend."""
    costs, label = costs_of(rows)
    for name, row in rows.items():
        values, style = row.main_scores, styles[name]
        axis.plot(
            [costs[name]], [sum(values) / len(values)], style.marker, color=style.colour, markeredgecolor=EDGE,
            markeredgewidth=0.6, markersize=8, label=name,
        )  # fmt: skip
    axis.set_xlabel(label)
    axis.set_ylabel(metrics_of(rows).main.axis)
    axis.margins(0.15)


def costs_of(rows: Mapping[str, Row]) -> tuple[dict[str, float], str]:
    """What each row's training took, or what its forward pass does where that is unknown, and the axis's label."""
    if all(row.train_cpu_s and None not in row.train_cpu_s for row in rows.values()):
        return {n: sum(r.train_cpu_s) / len(r.train_cpu_s) for n, r in rows.items()}, "CPU seconds of training"
    return {n: (r.macs + r.sparse_macs) / 1e9 for n, r in rows.items()}, "GMACs per frame"


def _entries(styles: Mapping[str, Style]) -> list:
    """The legend: each name with its colour and marker."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=style.colour, marker=style.marker, linestyle="", markersize=8, markeredgecolor=EDGE,
               markeredgewidth=0.6, label=name)
        for name, style in styles.items()
    ]  # fmt: skip
