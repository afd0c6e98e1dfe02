"""What a page is made of: sections of texts, lists, tables and plots, as the JSON that ``page.js`` draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pcdet.utils.tables import Table

FOLD_ROWS = 40  # tables of more rows are folded until a reader opens them


@dataclass(frozen=True)
class Section:
    """A part of the page with its heading.

    Attributes:
        id: of its anchor.
        heading: one line.
        missing: the line that stands where there is nothing to show.
        blocks: what is shown, in order; empty where there is nothing.
    """

    id: str
    heading: str
    missing: str
    blocks: Sequence[Mapping[str, Any]]

    def content(self) -> dict[str, Any]:
        """The section for ``page.js``."""
        return {"id": self.id, "heading": self.heading, "missing": self.missing, "blocks": list(self.blocks)}


def text(words: str) -> dict[str, Any]:
    """A paragraph."""
    return {"kind": "text", "text": words}


def sentences(heading: str, items: Sequence[str], shown: int = 10) -> dict[str, Any]:
    """A list of sentences; those after the first ``shown`` are folded."""
    return {"kind": "list", "heading": heading, "items": list(items), "shown": shown}


def table(found: Table) -> dict[str, Any]:
    """A table; one of many rows is folded."""
    return {
        "kind": "table",
        "heading": found.heading,
        "header": list(found.header),
        "rows": [list(map(str, row)) for row in found.rows],
        "text_columns": found.text_columns,
        "note": found.note,
        "folded": len(found.rows) > FOLD_ROWS,
    }


@dataclass
class Plot:
    """A figure with selectors: every choice of their options has its own view.

    Attributes:
        id: unlike any other plot's.
        heading: one line.
        note: how to read it.
        choices: names of the selectors.
        views: (an option of each selector, figure for plotly, table or None).
    """

    id: str
    heading: str
    note: str
    choices: Sequence[str] = ()
    views: list[tuple[tuple[str, ...], Mapping, Table | None]] = field(default_factory=list)

    def add(self, options: Sequence[str], figure: Mapping, below: Table | None = None) -> None:
        """A view; the order of options is that in which they first come.

        Raises:
            ValueError: not one option a selector.
        """
        if len(options) != len(self.choices):
            raise ValueError(f"plot {self.id} needs an option for each of {list(self.choices)}, got {list(options)}")
        self.views.append((tuple(options), figure, below))

    def block(self) -> dict[str, Any]:
        """The plot for ``page.js``."""
        columns = list(zip(*(options for options, _, _ in self.views), strict=True))
        selectors = [
            {"name": name, "options": list(dict.fromkeys(column))}
            for name, column in zip(self.choices, columns, strict=True)
        ]
        views = [
            {"options": list(options), "figure": figure, "table": below and table(below)}
            for options, figure, below in self.views
        ]
        return {
            "kind": "plot", "id": self.id, "heading": self.heading, "note": self.note, "selectors": selectors,
            "views": views,
        }  # fmt: skip


def plots(*found: Plot) -> list[dict[str, Any]]:
    """The plots that have a view."""
    return [plot.block() for plot in found if plot.views]
