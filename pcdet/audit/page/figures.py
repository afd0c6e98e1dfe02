"""Figures as the dictionaries that plotly's JavaScript takes: texts made safe, colours of the palette, one layout."""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pcdet.audit.report import Model
from pcdet.utils.palette import FIXED, Style, styles_of

SYMBOLS = {  # matplotlib's marker -> plotly's symbol
    "o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down", "P": "cross", "X": "x",
    "*": "star", "p": "pentagon", "<": "triangle-left", ">": "triangle-right",
}  # fmt: skip
LONGEST = 70  # characters of a label
OUTLINE = "#333333"
GRID = "#e4e4e4"


def label(words: str) -> str:
    """A name as a label of plotly, which would take ``<b>`` and ``<a href>`` in it for markup; cut where it is long."""
    cut = words if len(words) <= LONGEST else f"{words[: LONGEST - 3]}..."
    return html.escape(cut, quote=False)


def rounded(values: Iterable[float], digits: int = 5) -> list[float | None]:
    """Numbers for JSON; None for what is not finite."""
    return [round(float(v), digits) if math.isfinite(v) else None for v in values]


def marker(style: Style, size: int = 8, filled: bool = True) -> dict[str, Any]:
    """A marker of the palette with a dark edge, so that pale ones are seen on white."""
    edge = {"color": OUTLINE if filled else style.colour, "width": 0.7 if filled else 1.6}
    return {
        "symbol": SYMBOLS[style.marker], "size": size, "color": style.colour if filled else "#ffffff", "line": edge,
    }  # fmt: skip


def figure(traces: Sequence[Mapping], x: Mapping, y: Mapping, height: int = 420, **layout: Any) -> dict[str, Any]:
    """A figure with two axes.

    Args:
        traces: for plotly.
        x: settings of the axis, ``title`` among them as a text.
        y: the same.
        height: in pixels.
        **layout: more settings of plotly's layout.
    """
    shared = {
        "height": height, "margin": {"l": 60, "r": 20, "t": 20, "b": 50}, "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff", "font": {"size": 12, "color": "#222222"}, "legend": {"font": {"size": 11}},
        "hovermode": "closest",
    }  # fmt: skip
    return {"data": list(traces), "layout": {**shared, "xaxis": _axis(x), "yaxis": _axis(y), **layout}}


def _axis(settings: Mapping) -> dict[str, Any]:
    shared = {"gridcolor": GRID, "zerolinecolor": "#777777", "automargin": True}
    return {**shared, **settings, "title": {"text": label(settings.get("title", ""))}}


def errors_of(values: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Error bars of one standard deviation over seeds; none where there is one seed."""
    spread = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values]
    return {"type": "data", "array": rounded(spread), "thickness": 1, "width": 3}


def model_styles(models: Sequence[Model]) -> dict[str, Style]:
    """Model -> style: every teacher has the teacher's, whatever its name."""
    styles = styles_of(model.name for model in models if model.role != "teacher")
    return {model.name: styles.get(model.name, FIXED["teacher"]) for model in models}
