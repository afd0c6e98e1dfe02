"""Plots of a plan's results: gains over controls, accuracy against cost, learning curves, and sensitivity."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pcdet.audit.page.blocks import Plot
from pcdet.audit.page.figures import errors_of, figure, label, marker, rounded
from pcdet.datasets.metrics import Metric
from pcdet.experiments.results.groups import Group, Reported
from pcdet.experiments.results.plots import FEW_SEEDS
from pcdet.experiments.results.schema import CONTROLS, TEACHER, Comparison
from pcdet.utils.palette import FIXED, Style, styles_of

LINE = 16  # pixels a line of a forest plot takes
BETWEEN = 0.7  # lines between two trainings


def training_name(reported: Reported, method: str, length: float) -> str:
    """A method, and its length where that is not 1."""
    return reported.title(method) + ("" if length == 1 else f", x{length:.3g}")


# -------------------------------------------------------------------------------------------------------------- gains


def forest_plot(reported: Reported) -> Plot:
    """A view a student and metric: for each training and control the mean gain, its interval and each seed."""
    plot = Plot(
        "forest",
        "Paired gains over every control",
        f"Points of {reported.metrics.noun}, with the 95 % interval over seeds. A marker is filled where the gain is "
        "shown, hollow where it is not; a small dot is one seed. Where other comparisons have more, those of two "
        "seeds are left out: the table has them.",
        ["student", "metric"],
    )
    for student in reported.students():
        for score in reported.metrics.scores:
            found = [
                c
                for c in reported.results.comparisons
                if (c.student, c.metric) == (student, score.name) and c.control in CONTROLS
            ]
            if any(c.seeds > FEW_SEEDS for c in found):
                found = [c for c in found if c.seeds > FEW_SEEDS]
            if found:
                plot.add([reported.title(student), score.shown], _forest(reported, found, score))
    return plot


def _forest(reported: Reported, found: Sequence[Comparison], score: Metric) -> dict[str, Any]:
    places: dict[tuple, float] = {}
    centres: dict[str, float] = {}
    place = 0.0
    for training in dict.fromkeys((c.method, c.length) for c in found):
        own = [
            control
            for control in CONTROLS
            if any((c.method, c.length, c.control) == (*training, control) for c in found)
        ]
        places.update({(*training, control): place + i for i, control in enumerate(own)})
        centres[label(training_name(reported, *training))] = place + (len(own) - 1) / 2
        place += len(own) + BETWEEN
    traces = [t for control in CONTROLS for t in _gains_over(control, found, places)]
    axis = {
        "tickvals": list(centres.values()), "ticktext": list(centres), "range": [place - 0.3, -0.9], "zeroline": False,
    }  # fmt: skip
    x = {"title": f"gain in {score.noun_with_level} (points)", "zerolinewidth": 2, "rangemode": "tozero"}
    legend = {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0}
    return figure(traces, x, axis, height=int(150 + LINE * place), legend=legend, margin={"t": 60, "r": 20, "b": 50})


def _gains_over(control: str, found: Sequence[Comparison], places: Mapping[tuple, float]) -> list[dict]:
    own = [c for c in found if c.control == control]
    if not own:
        return []
    style, name = FIXED[control], f"over {control}"
    y = [places[c.method, c.length, control] for c in own]
    ends = [c.interval or (c.mean, c.mean) for c in own]
    said = [f"{c.mean:+.2f} {_interval(c)}<br>{c.seeds} seeds, {'shown' if c.shown else 'not shown'}" for c in own]
    points = marker(style, 9)
    points["color"] = [style.colour if c.shown else "#ffffff" for c in own]
    points["line"] = {"color": style.colour, "width": 1.6}
    return [
        {
            "type": "scatter", "mode": "markers", "x": [g for c in own for g in c.gains], "legendgroup": name,
            "y": [at + 0.3 for at, c in zip(y, own, strict=True) for _ in c.gains], "showlegend": False,
            "marker": {"size": 3, "color": style.colour, "opacity": 0.45}, "hoverinfo": "skip",
        },
        {
            "type": "scatter", "mode": "markers", "name": name, "legendgroup": name, "x": [c.mean for c in own], "y": y,
            "marker": points, "text": said, "hovertemplate": "%{text}<extra></extra>", "showlegend": False,
            "error_x": {
                "type": "data", "symmetric": False, "array": [e[1] - c.mean for c, e in zip(own, ends, strict=True)],
                "arrayminus": [c.mean - e[0] for c, e in zip(own, ends, strict=True)], "color": style.colour,
                "thickness": 1.4, "width": 0,
            },
        },
        {
            "type": "scatter", "mode": "markers", "name": name, "legendgroup": name, "x": [None], "y": [None],
            "marker": marker(style, 9),
        },
    ]  # fmt: skip


def _interval(comparison: Comparison) -> str:
    return "(no interval)" if comparison.interval is None else "[{:+.2f}, {:+.2f}]".format(*comparison.interval)


# ------------------------------------------------------------------------------------------------- cost and learning


def _styles(reported: Reported, student: str) -> dict[str, Style]:
    methods = reported.methods(student)
    return dict(zip(methods, styles_of(methods).values(), strict=True))


def _cpu_seconds(group: Group) -> float | None:
    known = [run.train_cpu_s for run in group.runs if run.train_cpu_s is not None]
    return sum(known) / len(known) if known else None


COSTS = {  # what stands on the axis -> a group's number
    "parameters": lambda group: group.row.params,
    "MACs of a frame": lambda group: group.row.macs,
    "MACs of the training": lambda group: group.training_macs,
    "CPU seconds of the training": _cpu_seconds,
}


def cost_plot(reported: Reported) -> Plot:
    """Accuracy of every training, a view a cost and metric; all students and their teachers together."""
    note = "Mean over seeds, with one standard deviation; the axis of costs is logarithmic. Every training of the plan."
    plot = Plot("plan-cost", "Accuracy against cost: the plan", note, ["cost", "metric"])
    for cost, number in COSTS.items():
        for score in reported.metrics.scores:
            traces = [t for t in _cost_traces(reported, number, score) if t["x"]]
            if traces:
                axis = {"title": cost, "type": "log"}
                plot.add([cost, score.shown], figure(traces, axis, {"title": score.axis}, height=480))
    return plot


def _cost_traces(reported: Reported, number: Any, score: Metric) -> list[dict]:
    lines: dict[str, tuple[Style, list[tuple[str, Group]]]] = {}
    for key, group in reported.groups.items():
        if key.method == TEACHER:
            lines[f"teacher {reported.title(key.teacher)}"] = FIXED["teacher"], [("", group)]
            continue
        name = f"{reported.title(key.student)}: {reported.title(key.method)}"
        style = _styles(reported, key.student)[key.method]
        lines.setdefault(name, (style, []))[1].append((f"x{key.length:.3g}", group))
    found = []
    for name, (style, groups) in lines.items():
        known = [(length, number(group), group.scores(score)) for length, group in groups if number(group) is not None]
        found.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": label(name),
                "marker": marker(style, 9),
                "x": [x for _, x, _ in known],
                "y": [statistics.mean(scores) for _, _, scores in known],
                "error_y": errors_of([scores for _, _, scores in known]),
                "text": [f"{label(name)} {length}" for length, _, _ in known],
                "hovertemplate": "%{text}<br>%{x:.4s}: %{y:.1f}<extra></extra>",
            }  # fmt: skip
        )
    return found


def curves_plot(reported: Reported) -> Plot:
    """Learning curves: accuracy over the length of the training, and over its MACs."""
    note = (
        "At equal samples, trainings of one length stand above each other; at equal compute, those of as many MACs, "
        "the teacher's forward passes counted. The dashed line is the teacher."
    )
    plot = Plot("curves", "Learning curves", note, ["student", "compared", "metric"])
    for student in reported.students():
        for compared in ("at equal compute", "at equal samples"):
            for score in reported.metrics.scores:
                traces = _curve_traces(reported, student, compared, score)
                if traces:
                    title = "MACs of the training" if compared == "at equal compute" else "length of the training"
                    drawn = figure(traces, {"title": title, "type": "log"}, {"title": score.axis}, height=480)
                    plot.add([reported.title(student), compared, score.shown], drawn)
    return plot


def _curve_traces(reported: Reported, student: str, compared: str, score: Metric) -> list[dict]:
    found, every_x = [], []
    for method, style in _styles(reported, student).items():
        groups = [(x, reported.group(student, method, x)) for x in reported.lengths(student, method)]
        x = [group.training_macs if compared == "at equal compute" else length for length, group in groups]
        every_x += x
        found.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": label(reported.title(method)),
                "x": x,
                "y": [statistics.mean(group.scores(score)) for _, group in groups],
                "marker": marker(style),
                "line": {"color": style.colour, "width": 1.5},
                "error_y": errors_of([group.scores(score) for _, group in groups]),
                "text": [f"{label(training_name(reported, method, length))}" for length, _ in groups],
                "hovertemplate": "%{text}<br>%{x:.4s}: %{y:.1f}<extra></extra>",
            }  # fmt: skip
        )
    teacher = reported.group_of_teacher(reported.teacher_of(student))
    if found and teacher:
        mean = statistics.mean(teacher.scores(score))
        line = {"color": FIXED["teacher"].colour, "width": 3, "dash": "dash"}
        found.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "teacher",
                "x": [min(every_x), max(every_x)],
                "y": [mean] * 2,
                "line": line,
            }  # fmt: skip
        )
    return found


# -------------------------------------------------------------------------------------------------------- sensitivity


def sensitivity_plot(reported: Reported) -> Plot:
    """A view a student and setting, such as K and N; empty where the plan varies none."""
    gain = f"Gain in {reported.main.noun} over plain at length 1, with its 95 % interval over seeds."
    note = f"{gain} A line joins equal other settings."
    plot = Plot("sensitivity", "Sensitivity to settings", note, ["student", "setting"])
    if not reported.setting("SETTINGS", None):
        return plot
    settings = reported.settings()
    for student in reported.students():
        compared = reported.settings_over_plain(student)
        for name in dict.fromkeys(name for method in compared for name in settings[method]):
            axis = {"title": name, "type": "category"}
            gained = {"title": f"gain in {reported.main.noun} (points)"}
            drawn = figure(_sensitivity(name, settings, compared), axis, gained)
            plot.add([reported.title(student), name], drawn)
    return plot


def _sensitivity(name: str, settings: Mapping[str, Mapping], compared: Mapping[str, Comparison]) -> list[dict]:
    lines: dict[str, list[tuple[Any, Comparison]]] = {}
    for method, comparison in compared.items():
        if name in settings[method]:
            others = ", ".join(f"{key} = {value}" for key, value in settings[method].items() if key != name)
            lines.setdefault(others, []).append((settings[method][name], comparison))
    styles = styles_of(f"setting {line}" for line in lines).values()
    found = []
    for (others, points), style in zip(lines.items(), styles, strict=True):
        points.sort(key=lambda pair: pair[0])
        own = [comparison for _, comparison in points]
        ends = [c.interval or (c.mean, c.mean) for c in own]
        found.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": label(others or name),
                "marker": marker(style),
                "x": [label(str(value)) for value, _ in points],
                "y": [c.mean for c in own],
                "line": {"color": style.colour},
                "showlegend": bool(others),
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "thickness": 1,
                    "array": rounded(e[1] - c.mean for c, e in zip(own, ends, strict=True)),
                    "arrayminus": rounded(c.mean - e[0] for c, e in zip(own, ends, strict=True)),
                },
            }  # fmt: skip
        )
    return found
