"""The picture of a sensitivity plan: the gain over the plain student for each value of each setting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pcdet.experiments.results.groups import Reported
from pcdet.experiments.results.plots import DODGE, DPI, heading
from pcdet.experiments.results.schema import Comparison
from pcdet.utils.figures import new_figure
from pcdet.utils.palette import METHODS, Style


def draw_sensitivity(reported: Reported):
    """A panel a student and setting; a line joins methods that share the values of all other settings.

    Each point is the mean gain in the main score over the plain student of length 1, with its 95 % interval. None
    where no method of the plan's ``SETTINGS`` was compared with it.

    Raises:
        ValueError: the plan has no ``SETTINGS``, or more lines in a panel than there are colours.
    """
    settings = reported.settings()
    names = list(dict.fromkeys(name for values in settings.values() for name in values))
    compared = {student: reported.settings_over_plain(student) for student in reported.students()}
    compared = {student: found for student, found in compared.items() if found}
    if not compared:
        return None
    figure = new_figure(1.0 + 4.5 * len(names), 0.4 + 4.0 * len(compared), DPI, layout="constrained")
    panels = figure.subplots(len(compared), len(names), squeeze=False, sharey="row")
    for line, (student, found) in zip(panels, compared.items(), strict=True):
        for axis, name in zip(line, names, strict=True):
            _draw_panel(axis, name, settings, found)
            axis.set_title(reported.title(student), fontsize=10, loc="left")
        line[0].set_ylabel(f"gain in {reported.main.noun} over plain (points)")
    heading(figure, reported)
    return figure


def _draw_panel(axis, name: str, settings: Mapping[str, Mapping[str, Any]], found: Mapping[str, Comparison]) -> None:
    """The gains by the values of one setting, which stand evenly."""
    values = sorted({settings[method][name] for method in found if name in settings[method]})
    lines: dict[str, list[tuple[int, Comparison]]] = {}
    for method, comparison in found.items():
        if name in settings[method]:
            others = ", ".join(f"{key} = {value}" for key, value in settings[method].items() if key != name)
            lines.setdefault(others, []).append((values.index(settings[method][name]), comparison))
    if len(lines) > len(METHODS):
        raise ValueError(f"SETTINGS: at most {len(METHODS)} lines fit a picture, {name} has {len(lines)}; vary fewer")
    for index, ((others, points), style) in enumerate(zip(lines.items(), METHODS, strict=False)):
        aside = DODGE * (index - (len(lines) - 1) / 2)
        _draw_line(axis, sorted((x + aside, comparison) for x, comparison in points), others, style)
    axis.axhline(0.0, color="#000000", linewidth=1.0, zorder=0)
    axis.set_xticks(range(len(values)), [str(value) for value in values])
    axis.margins(x=0.15)
    axis.set_xlabel(name)
    axis.spines[["top", "right"]].set_visible(False)
    if any(lines):
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.05), frameon=False, fontsize=8, ncols=2)


def _draw_line(axis, points: list[tuple[float, Comparison]], others: str, style: Style) -> None:
    """Means joined by a line; hollow where a gain is not shown."""
    at, means = [x for x, _ in points], [comparison.mean for _, comparison in points]
    colour, marker = style.colour, style.marker
    axis.plot(at, means, "-", color=colour, linewidth=1.2, marker=marker, markersize=6, label=others or None)
    for x, comparison in points:
        if comparison.interval is not None:
            axis.plot([x, x], comparison.interval, "-", color=colour, linewidth=0.9)
        if not comparison.shown:
            axis.plot([x], [comparison.mean], marker, color=colour, markerfacecolor="white", markersize=6)
