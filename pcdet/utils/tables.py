"""Tables as aligned text for terminals and logs, and as Markdown; numbers and times as their cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]], text: int = 1) -> str:
    """A table with its columns lined up: the first ``text`` to the left, the others to the right, two spaces between.

    Args:
        header: one title per column.
        rows: cells are turned into text by ``str``; a row of another length than the header is a ``ValueError``.
        text: how many columns are text.
    """
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    for line in lines:
        if len(line) != len(header):
            raise ValueError(f"every row must have {len(header)} cells, got {len(line)}: {line}")
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def join(line: Sequence[str]) -> str:
        names = (cell.ljust(width) for cell, width in zip(line[:text], widths[:text], strict=True))
        numbers = (cell.rjust(width) for cell, width in zip(line[text:], widths[text:], strict=True))
        return "  ".join((*names, *numbers)).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([join(lines[0]), rule, *map(join, lines[1:])])


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]], text: int = 1) -> str:
    """A Markdown table whose first ``text`` columns are text, to the left, and whose others are numbers, to the right.

    Args:
        header: one title per column.
        rows: cells are turned into text by ``str``; a row of another length than the header is a ``ValueError``.
        text: how many columns are text.
    """
    lines = [[str(cell).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    for line in lines:
        if len(line) != len(header):
            raise ValueError(f"every row must have {len(header)} cells, got {len(line)}: {line}")
    rule = ["---"] * text + ["---:"] * (len(header) - text)
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def mean_and_spread(values: Sequence[float], digits: int = 1) -> str:
    """``mean`` of one value, or ``mean +-s`` with the sample standard deviation of several."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    spread = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    return f"{mean:.{digits}f} +-{spread:.{digits}f}"


def human_count(value: float) -> str:
    """``1.22 M``-like text of a large count (k, M, G, T, P, E by powers of a thousand)."""
    for factor, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.2f} {unit}"
    return f"{value:.0f}"


def clock(seconds: float) -> str:
    """``m:ss``, or ``h:mm:ss`` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@dataclass(frozen=True)
class Table:
    """A table with its heading.

    Attributes:
        heading: one line.
        header: one title a column.
        rows: of cells.
        text_columns: how many columns, from the left, are text.
        note: a paragraph below; empty for none.
    """

    heading: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1
    note: str = ""

    def as_text(self) -> str:
        """The table for a terminal."""
        return "\n".join(
            filter(None, [self.heading, format_table(self.header, self.rows, self.text_columns), self.note])
        )

    def as_markdown(self) -> str:
        """The table for a page."""
        table = markdown_table(self.header, self.rows, self.text_columns)
        return "\n\n".join(filter(None, [f"## {self.heading}", table, self.note]))
