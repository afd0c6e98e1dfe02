"""Objects that have something in common: class, distance, points, and what else the labels tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pcdet.audit.report import ALL, Group
from pcdet.audit.tables import UNKNOWN, JudgedModel, Objects

DISTANCE_STEPS = (20, 10, 5)  # metres; the first one that fits the data divides it
FAR_SHARE = 0.1  # a step fits if this share of the objects is at least two steps away
LAST_SHARE = 0.05  # and the last group of distances holds this share, else it is joined with the one before
POINTS = (5, 20, 100)  # where groups of points begin


@dataclass(frozen=True, kw_only=True)
class Members:
    """The objects of a group.

    Attributes:
        by: as in the report.
        value: as in the report.
        class_name: as in the report.
        rows: (K,) the objects, ascending; at least one.
    """

    by: str
    value: str
    class_name: str
    rows: np.ndarray


def find_members(objects: Objects, attributes: Mapping[str, Sequence[str]]) -> list[Members]:
    """The groups of the objects that count, those of all classes before each class alone; none is empty.

    Args:
        objects: of all frames.
        attributes: of the labels, each with its values in order.
    """
    names = [ALL, *objects.classes]
    of_class = {name: objects.counted & (objects.class_id == i - 1) for i, name in enumerate(names)}
    of_class[ALL] = objects.counted
    found = [("class", name or "all", name, mask) for name, mask in of_class.items()]
    for by, value, mask in _divisions(objects, attributes):
        found += [(by, value, name, mask & mine) for name, mine in of_class.items()]
    return [
        Members(by=by, value=value, class_name=name, rows=np.flatnonzero(mask))
        for by, value, name, mask in found
        if mask.any()
    ]


def to_groups(members: Sequence[Members], models: Sequence[JudgedModel]) -> list[Group]:
    """The groups with the recall of every model, in the same order."""
    found = {model.name: model.found for model in models}
    return [
        Group(
            by=group.by,
            value=group.value,
            class_name=group.class_name,
            objects=len(group.rows),
            recall={name: float(fraction[group.rows].mean()) for name, fraction in found.items()},
        )
        for group in members
    ]


def _divisions(objects: Objects, attributes: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str, np.ndarray]]:
    """What divides the objects: by what, a value of it, and (M,) bool."""
    distance, points = objects.distance, objects.points
    edges = distance_edges(distance[objects.counted])
    for value, mask in _between(distance, edges, "{}-{} m", "{}+ m"):
        yield "distance", value, mask
    known = points != UNKNOWN
    if known[objects.counted].any():
        for value, mask in _between(points, POINTS, "{}-{}", "{}+", ends_before=1):
            yield "points", value, mask & known
        yield "points", "unknown", ~known
    for name, values in attributes.items():
        for value in values:
            yield name, value, objects.attributes[name] == value


def distance_edges(distance: np.ndarray) -> list[int]:
    """Where groups of distances begin, in metres, without the first one at 0: up to three, by a step that fits.

    Args:
        distance: (M,) of the objects.
    """
    if not len(distance):
        return []
    fitting = (step for step in DISTANCE_STEPS if np.mean(distance >= 2 * step) >= FAR_SHARE)
    step = next(fitting, DISTANCE_STEPS[-1])
    return [edge for edge in (step, 2 * step, 3 * step) if np.mean(distance >= edge) >= LAST_SHARE]


def _between(
    numbers: np.ndarray, edges: Sequence[int], inner: str, last: str, *, ends_before: int = 0
) -> Iterator[tuple[str, np.ndarray]]:
    """The texts of the parts between the edges, and (M,) which of the numbers lie in each."""
    place = np.digitize(numbers, edges)
    for i, (low, high) in enumerate(zip([0, *edges], [*edges, None], strict=True)):
        yield last.format(low) if high is None else inner.format(low, high - ends_before), place == i
