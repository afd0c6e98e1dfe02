"""Pictures of a plan's results: gains over their controls, and learning curves over training cost.

Colours, markers and the order of controls are those of ``pcdet.utils.palette``. Names stand at the axes or in a legend,
never among the points.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from pcdet.experiments.results.groups import Reported
from pcdet.experiments.results.schema import CONTROLS, PLAIN, Comparison
from pcdet.utils.figures import new_figure
from pcdet.utils.palette import METHODS, Style, styles_of
from pcdet.utils.tables import human_count

FEW_SEEDS = 2
BETWEEN_METHODS = 0.7  # empty lines of the forest plot between two methods
SEEDS_BELOW = 0.3  # of a line: the dots of single seeds stand below their mean
DODGE = 0.06  # by which lines of the sensitivity plot stand beside each other
DPI = 130


# -------------------------------------------------------------------------------------------------------------- gains


def draw_gains(reported: Reported):
    """A forest plot: a row for each method and control, with mean, 95 % interval over seeds, and each seed as a dot.

    A marker is filled where the gain is shown, hollow where it is not. Comparisons of few seeds are left out where
    there are others: their intervals, tens of points wide, would hide the rest. None where nothing was compared.
    """
    comparisons = [c for c in reported.results.comparisons if c.control in CONTROLS]  # no method against another
    if not comparisons:
        return None
    if max(c.seeds for c in comparisons) > FEW_SEEDS:
        comparisons = [c for c in comparisons if c.seeds > FEW_SEEDS]
    rows = list(dict.fromkeys((c.student, c.method, c.length) for c in comparisons))
    scores = [s for s in reported.metrics.scores if any(c.metric == s.name for c in comparisons)]
    controls = [c for c in styles_of(CONTROLS) if any(own.control == c for own in comparisons)]
    places = _places(rows, comparisons, controls)
    lines = max(places.values()) + 1
    figure = new_figure(3.5 + 3.5 * len(scores), 1.9 + 0.17 * lines, DPI, layout="constrained")
    panels = figure.subplots(1, len(scores), sharex=True, sharey=True, squeeze=False)[0]
    for axis, score in zip(panels, scores, strict=True):
        for comparison in comparisons:
            if comparison.metric == score.name:
                place = places[comparison.student, comparison.method, comparison.length, comparison.control]
                _draw_gain(axis, comparison, place)
        axis.axvline(0.0, color="#888888", linewidth=1.0, zorder=0)
        axis.set_xlabel(f"gain in {score.noun_with_level} (points)")
        axis.tick_params(axis="y", length=0)
        axis.spines[["top", "right"]].set_visible(False)
    several = len({student for student, _, _ in rows}) > 1
    centres = [statistics.mean(places[k] for k in places if k[:3] == row) for row in rows]
    panels[0].set_yticks(centres, [_row_name(reported, *row, several) for row in rows], fontsize=9)
    panels[0].set_ylim(lines - 0.3, -0.7)  # the first row at the top
    _gain_legend(figure, controls)
    heading(figure, reported)
    return figure


def _places(rows: Sequence[tuple], comparisons: Sequence[Comparison], controls: Sequence[str]) -> dict[tuple, float]:
    """Where each (student, method, length, control) stands, from the top."""
    compared = {(c.student, c.method, c.length, c.control) for c in comparisons}
    places, place = {}, 0.0
    for row in rows:
        for control in controls:
            if (*row, control) in compared:
                places[(*row, control)] = place
                place += 1.0
        place += BETWEEN_METHODS
    return places


def _draw_gain(axis, comparison: Comparison, place: float) -> None:
    style = styles_of(CONTROLS)[comparison.control]
    colour, marker = style.colour, style.marker
    gains, below = comparison.gains, [place + SEEDS_BELOW] * len(comparison.gains)
    axis.plot(gains, below, "o", color=colour, alpha=0.4, markersize=3, markeredgewidth=0, zorder=1)
    if comparison.interval is not None:
        axis.plot(comparison.interval, [place, place], "-", color=colour, linewidth=1.4, zorder=2)
    face = colour if comparison.shown else "white"
    axis.plot([comparison.mean], [place], marker, color=colour, markerfacecolor=face, markersize=5.5, zorder=3)


def _row_name(reported: Reported, student: str, method: str, length: float, several: bool) -> str:
    name = reported.title(method) if length == 1 else f"{reported.title(method)}, x{length:.3g}"
    return f"{reported.title(student)}: {name}" if several else name


def _gain_legend(figure, controls: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    def entry(colour: str, marker: str, label: str, **style):
        return Line2D([], [], color=colour, marker=marker, linestyle="", label=label, **style)

    styles = styles_of(CONTROLS)
    entries = [entry(styles[control].colour, styles[control].marker, f"over {control}") for control in controls]
    entries.append(entry("#666666", "o", "hollow: not shown", markerfacecolor="white"))
    entries.append(entry("#666666", "o", "one seed", alpha=0.4, markersize=3))
    figure.legend(handles=entries, loc="outside lower center", ncols=2, frameon=False, fontsize=8)


# ------------------------------------------------------------------------------------------------------------- curves


def draw_curves(reported: Reported):
    """The main score over the MACs of the training: a line a method, mean and standard deviation of its seeds.

    A student's methods are spread over panels of as many as there are colours, those of several lengths first. None
    where no student has a report.
    """
    panels = []
    for student in reported.students():
        if reported.lengths(student, PLAIN):
            methods = [m for m in reported.methods(student) if m != PLAIN]
            methods.sort(key=lambda method: len(reported.lengths(student, method)) == 1)
            parts = range(0, max(len(methods), 1), len(METHODS))
            panels += [(student, methods[start : start + len(METHODS)]) for start in parts]
    if not panels:
        return None
    figure = new_figure(9.0, 0.4 + 3.8 * len(panels), DPI, layout="constrained")
    for axis, (student, methods) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        for method, style in styles_of([PLAIN, *methods]).items():
            _draw_curve(axis, reported, student, method, style)
        _mark_best_length(axis, reported, student)
        _cost_axis(axis, reported, student, methods)
        axis.set_title(reported.title(student), fontsize=10, loc="left")
        axis.set_ylabel(reported.main.axis)
        handles = [*axis.containers, *(line for line in axis.lines if not line.get_label().startswith("_"))]
        axis.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    heading(figure, reported)
    return figure


def _draw_curve(axis, reported: Reported, student: str, method: str, style: Style) -> None:
    groups = [reported.group(student, method, length) for length in reported.lengths(student, method)]
    costs = [group.training_macs for group in groups]
    means = [statistics.mean(group.scores(reported.main)) for group in groups]
    spread = [statistics.stdev(group.scores(reported.main)) if len(group.runs) > 1 else 0.0 for group in groups]
    axis.errorbar(
        costs, means, spread, color=style.colour, marker=style.marker, markersize=5, linewidth=1.4, elinewidth=0.9,
        capsize=2, label=reported.title(method),
    )  # fmt: skip


def _mark_best_length(axis, reported: Reported, student: str) -> None:
    """A ring around the plain student's best length, where it was chosen and has a report."""
    choice = reported.results.choices.best_length.get(student)
    group = reported.group(student, PLAIN, choice.chosen) if choice else None
    if group is None:
        return
    longest = max((tried.length for tried in choice.lengths), default=choice.chosen)
    label = f"best length of {reported.title(PLAIN)}"
    label += ",\nthe longest that was tried" if choice.chosen == longest else ":\nlonger ones gain no more"
    where = [group.training_macs], [statistics.mean(group.scores(reported.main))]
    axis.plot(
        *where,
        "o",
        color=styles_of([PLAIN])[PLAIN].colour,
        markerfacecolor="none",
        markersize=13,
        linestyle="",
        label=label,
    )


def _cost_axis(axis, reported: Reported, student: str, methods: Sequence[str]) -> None:
    """A logarithmic axis with a tick at the plain student's cost of length 1, and at its halvings and doublings."""
    groups = [reported.group(student, m, x) for m in (PLAIN, *methods) for x in reported.lengths(student, m)]
    costs = [group.training_macs for group in groups]
    plain = reported.group(student, PLAIN) or reported.group(student, PLAIN, reported.lengths(student, PLAIN)[0])
    unit = plain.training_macs
    steps = range(math.floor(math.log2(min(costs) / unit)), math.ceil(math.log2(max(costs) / unit)) + 1)
    axis.set_xscale("log")
    axis.set_xlim(min(costs) / 1.25, max(costs) * 1.25)
    axis.set_xticks([], minor=True)
    ticks = [t for t in (unit * 2.0**step for step in steps) if min(costs) / 1.25 <= t <= max(costs) * 1.25]
    axis.set_xticks(ticks, [human_count(tick) for tick in ticks])
    axis.set_xlabel("MACs of the training")


def heading(figure, reported: Reported) -> None:
    """The plan's title above a picture."""
    figure.suptitle(reported.results.title or reported.results.name, fontsize=10)
