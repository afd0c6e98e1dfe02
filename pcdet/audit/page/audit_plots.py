"""Plots of an audit: precision and recall, false positives over the score, gains by group, and errors by kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pcdet.audit.page.blocks import Plot
from pcdet.audit.page.figures import figure, label, marker, model_styles, rounded
from pcdet.audit.page.groups import class_text, classes_of, group_name, interval_text, pair_text
from pcdet.audit.report import ERRORS, TRUE, Audit, Curve, GroupGain
from pcdet.utils.palette import FALSE, FOUND, Style
from pcdet.utils.tables import Table

VERDICTS = {"gain": FOUND, "loss": FALSE, "not shown": "#777777"}
DASHES = {"teacher": "dash", "control": "dot", "student": "solid"}
PATTERNS = ("", "/", "x", ".", "\\", "-", "+", "|")
LINE = 22  # pixels that a group takes


def curve_plots(audit: Audit) -> list[Plot]:
    """Precision over recall, and false positives over the score; a view a class."""
    recall = Plot(
        "precision-recall", "Precision and recall",
        "Mean over seeds. A marker stands at the score from which a class counts.", ["class"],
    )  # fmt: skip
    positives = Plot(
        "false-positives", "False positives a frame over the score threshold",
        "Student beside distilled student: what a lower threshold costs. A marker stands at a class's own threshold. "
        "A click on a name in the legend hides or shows its line.", ["class"],
    )  # fmt: skip
    for class_name in classes_of(curve.class_name for curve in audit.curves):
        curves = [curve for curve in audit.curves if curve.class_name == class_name]
        traces = [trace for curve in curves for trace in _curve(audit, curve, "recall", "precision")]
        unit = {"range": [0, 1.02]}
        recall.add(
            [class_text(class_name)], figure(traces, {"title": "recall", **unit}, {"title": "precision", **unit})
        )
        traces = [trace for curve in curves for trace in _curve(audit, curve, "scores", "false_positives")]
        axes = {"title": "score threshold", **unit}, {"title": "false positives a frame", "rangemode": "tozero"}
        positives.add([class_text(class_name)], figure(traces, *axes))
    return [recall, positives]


def _curve(audit: Audit, curve: Curve, across: str, up: str) -> list[dict]:
    """The line of a curve, and a marker at the model's threshold."""
    model = next(model for model in audit.models if model.name == curve.model)
    style, name = model_styles(audit.models)[curve.model], label(curve.model)
    x, y, scores = (rounded(getattr(curve, key)) for key in (across, up, "scores"))
    shared = {"type": "scatter", "name": name, "legendgroup": name, "hovertemplate": "%{text}<extra></extra>"}
    said = [
        f"{name}<br>score {s}: {across.rstrip('s')} {a}, {up.replace('_', ' ')} {b}"
        for s, a, b in zip(scores, x, y, strict=True)
    ]
    line = {
        **shared, "mode": "lines", "x": x, "y": y, "text": said,
        "line": {"color": style.colour, "width": 2.2, "dash": DASHES[model.role]},
    }  # fmt: skip
    threshold = model.thresholds.get(curve.class_name)
    above = [i for i, score in enumerate(curve.scores) if threshold is not None and score >= threshold]
    if not above:
        return [line]
    at = above[-1]  # scores fall: the last one that is not below the threshold
    point = {"x": [x[at]], "y": [y[at]], "text": [said[at]], "marker": marker(style, 10), "showlegend": False}
    return [line, {**shared, "mode": "markers", **point}]


# -------------------------------------------------------------------------------------------------------------- gains


def group_gain_plot(audit: Audit) -> Plot:
    """Gain by group, a view a pair and class, with the same as a table."""
    plot = Plot(
        "group-gains", "Gain by group of objects",
        "How many percentage points more of a group's objects the student finds than its control, each from its own "
        "threshold on, with the 95 % interval. Filled: shown. n: objects in the group; few make wide intervals.",
        ["pair", "class"],
    )  # fmt: skip
    for student, control in dict.fromkeys((gain.student, gain.control) for gain in audit.gains):
        of_pair = [gain for gain in audit.gains if (gain.student, gain.control) == (student, control)]
        for class_name in classes_of(audit.groups[gain.group].class_name for gain in of_pair):
            gains = [gain for gain in of_pair if audit.groups[gain.group].class_name == class_name]
            options = [pair_text(student, control), class_text(class_name)]
            plot.add(options, _group_gains(audit, gains), _group_table(audit, gains))
    return plot


def _group_gains(audit: Audit, gains: Sequence[GroupGain]) -> dict[str, Any]:
    traces = []
    for verdict, colour in VERDICTS.items():
        own = [(place, gain) for place, gain in enumerate(gains) if gain.verdict == verdict]
        points = marker(
            Style(colour, {"gain": "^", "loss": "v", "not shown": "o"}[verdict]), 10, verdict != "not shown"
        )
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": verdict,
                "marker": points,
                "x": [100 * gain.gain for _, gain in own] or [None],
                "y": [place for place, _ in own] or [None],
                "text": [_gain_text(audit, gain) for _, gain in own],
                "hovertemplate": "%{text}<extra></extra>",
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "color": colour,
                    "width": 4,
                    "thickness": 1.5,
                    "array": rounded(100 * (gain.interval[1] - gain.gain) for _, gain in own),
                    "arrayminus": rounded(100 * (gain.gain - gain.interval[0]) for _, gain in own),
                },
            }  # fmt: skip
        )
    groups = [audit.groups[gain.group] for gain in gains]
    names = [label(f"{group_name(group)}  (n={group.objects})") for group in groups]
    axis = {
        "tickvals": list(range(len(names))),
        "ticktext": names,
        "range": [len(names) - 0.4, -0.6],
        "zeroline": False,
    }
    x = {"title": "gain in recall (percentage points)", "zerolinewidth": 2, "rangemode": "tozero"}
    return figure(traces, x, axis, height=140 + LINE * len(names))


def _gain_text(audit: Audit, gain: GroupGain) -> str:
    group = audit.groups[gain.group]
    said = f"{label(group_name(group))}: {100 * gain.gain:+.1f} {interval_text(gain)}"
    return f"{said}<br>{group.objects} objects, {gain.verdict}"


def _group_table(audit: Audit, gains: Sequence[GroupGain]) -> Table:
    rows = []
    for gain in gains:
        group = audit.groups[gain.group]
        worse = {True: "yes", False: "no", None: "-"}[gain.teacher_worse]
        found = [
            f"{100 * group.recall[name]:.1f}" if name in group.recall else "-" for name in (gain.student, gain.control)
        ]
        cells = [*found, f"{100 * gain.gain:+.1f}", interval_text(gain), gain.verdict, worse]
        rows.append([group_name(group), str(group.objects), *cells])
    header = [
        "group",
        "objects",
        "student finds %",
        "control finds %",
        "gain",
        "95 % interval",
        "verdict",
        "teacher worse",
    ]
    return Table("The same in numbers", header, rows)


# ------------------------------------------------------------------------------------------------------------- errors


def error_plot(audit: Audit) -> Plot:
    """Errors of each kind for every model, a view a class, with the same as a table."""
    note = "Detections from each model's threshold on, for each frame; missed: objects that no detection finds."
    plot = Plot("errors", "Errors by kind", note, ["class"])
    counts = {(e.class_name, e.model, e.kind): e.per_frame for e in audit.errors}
    known = {e.kind for e in audit.errors}
    kinds = [kind for kind in (TRUE, "missed", *ERRORS) if kind in known]
    kinds += [kind for kind in dict.fromkeys(e.kind for e in audit.errors) if kind not in kinds]
    styles = model_styles(audit.models)
    for class_name in classes_of(e.class_name for e in audit.errors):
        wrong = [kind for kind in kinds if kind != TRUE]
        traces = [
            {
                "type": "bar", "name": label(name), "x": wrong,
                "y": [counts.get((class_name, name, kind)) for kind in wrong],
                "marker": {
                    "color": style.colour, "line": {"color": "#333333", "width": 0.7},
                    "pattern": {"shape": PATTERNS[i % len(PATTERNS)], "fgcolor": "#ffffff", "fillmode": "overlay"},
                },
            }
            for i, (name, style) in enumerate(styles.items())
        ]  # fmt: skip
        rows = [[m, *(_count(counts.get((class_name, m, kind))) for kind in kinds)] for m in styles]
        below = Table("The same in numbers, a frame", ["model", *kinds], rows)
        plot.add([class_text(class_name)], figure(traces, {"title": ""}, {"title": "a frame"}, barmode="group"), below)
    return plot


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
