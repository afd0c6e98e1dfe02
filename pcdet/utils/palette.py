"""Colours and markers of everything that draws: pictures, plots and pages use the same ones for the same things.

Teacher and controls have colours from Okabe and Ito's palette, methods from Paul Tol's "muted" one; both were made for
colour-blind readers. A marker tells them apart without colour.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """How a row of a table is drawn.

    Attributes:
        colour: hexadecimal.
        marker: by matplotlib's name.
    """

    colour: str
    marker: str


FIXED = {
    "teacher": Style("#F0E442", "p"),
    "plain": Style("#000000", "o"),
    "plain at equal compute": Style("#E69F00", "s"),
    "plain at its best length": Style("#0072B2", "D"),
    "slices": Style("#009E73", "^"),
    "slices at equal compute": Style("#CC79A7", "v"),
    "slices at its best length": Style("#D55E00", "P"),
    "self-training": Style("#999999", "*"),
    "slices+self-training": Style("#56B4E9", "X"),
}
# The quickstart's names of the same rows.
ALSO_CALLED = {
    "student": "plain",
    "student+longer": "plain at equal compute",
    "student+slices": "slices",
}
METHODS = tuple(
    Style(colour, marker)
    for colour, marker in zip(
        ("#332288", "#CC6677", "#117733", "#88CCEE", "#AA4499", "#DDCC77", "#44AA99", "#882255", "#999933"),
        "sD^vPX<>p",
        strict=True,
    )
)
# Boxes: what is labelled, what a model finds, and what it gets wrong.
TRUTH, FOUND, MISSED, FALSE, IGNORED = "#009E73", "#0072B2", "#CC79A7", "#D55E00", "#999999"
# Boxes that a model finds, by class: none is TRUTH's colour, and those of the three differ in lightness too.
CLASSES = {"Car": FOUND, "Pedestrian": "#E69F00", "Cyclist": "#CC79A7"}
OTHER_CLASSES = ("#332288", "#56B4E9", "#882255", "#999933", "#000000")
SEQUENTIAL = "viridis"  # for importance and other amounts, low to high


def styles_of(names: Iterable[str]) -> dict[str, Style]:
    """A style for every name: teacher and controls have their own, others take the methods' in turn.

    Args:
        names: of models or rows, in the order of a table.
    """
    styles: dict[str, Style] = {}
    for name in names:
        fixed = FIXED.get(ALSO_CALLED.get(name, name))
        others = sum(style in METHODS for style in styles.values())
        styles[name] = fixed or METHODS[others % len(METHODS)]
    return styles


def in_order(names: Iterable[str]) -> list[str]:
    """Names in the order in which everything is drawn and listed: teacher, controls, then the others as they come.

    Args:
        names: of models or rows.
    """
    places = {name: place for place, name in enumerate(FIXED)}
    return sorted(names, key=lambda name: places.get(ALSO_CALLED.get(name, name), len(places)))
