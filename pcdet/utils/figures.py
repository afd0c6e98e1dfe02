"""Figures without pyplot, so that no window, no display and no global state is involved; matplotlib is optional."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pcdet.utils.safe_files import replacing


def new_figure(width: float, height: float, dpi: int = 100, **options: Any):
    """An empty figure.

    Args:
        width: in inches.
        height: in inches.
        dpi: pixels an inch.
        **options: of ``matplotlib.figure.Figure``.

    Raises:
        ImportError: matplotlib is not installed; says how to get it.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("drawing needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(width, height), dpi=dpi, **options)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure, path: str | Path) -> Path:
    """Writes a figure in the form that its name ends in, whole or not at all, and returns the path.

    Args:
        figure: to be written.
        path: ends in .png or another form that matplotlib writes; its folder is made if need be.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        figure.savefig(stream, format=path.suffix.removeprefix(".") or "png")
    return path
