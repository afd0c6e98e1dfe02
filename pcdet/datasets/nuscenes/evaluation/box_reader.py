"""Turns the boxes of a result file into rows of numbers while its JSON is parsed: a million of them fit in memory."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pcdet.datasets.nuscenes.evaluation.rules import ATTRIBUTE_NUMBER, CLASS_NUMBER, NO_ATTRIBUTE

WIDTHS = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2}
NUMBERS = sum(WIDTHS.values()) + 1  # of a box, the score last
UNKNOWN = -1  # sample of a box that cannot be read


class BoxReader:
    """The hook of a JSON parser that keeps boxes as rows.

    Attributes:
        wrong: row -> what is wrong with the form of that box; its numbers are NaN.
    """

    def __init__(self):
        self.wrong: dict[int, str] = {}
        self._numbers = array("d")
        self._class_ids, self._attribute_ids, self._samples = array("b"), array("b"), array("l")
        self._tokens: dict[str, int] = {}  # sample token -> number, of those that boxes name

    def take(self, entry: dict) -> dict | int:
        """A JSON object: the number of its row if it is a box, else itself."""
        if "sample_token" not in entry:
            return entry
        row = len(self._samples)
        try:
            place, size, rotation, velocity = entry["translation"], entry["size"], entry["rotation"], entry["velocity"]
            fits = len(place) == 3 and len(size) == 3 and len(rotation) == 4 and len(velocity) == 2
            numbers = array("d", (*place, *size, *rotation, *velocity, entry["detection_score"]))
            class_id = CLASS_NUMBER[entry["detection_name"]]
            attribute = ATTRIBUTE_NUMBER[entry["attribute_name"]]
            sample = self._tokens.setdefault(entry["sample_token"], len(self._tokens))
        except (KeyError, TypeError, OverflowError):
            fits = False
        if not fits:
            self.wrong[row] = box_problem(entry)
            numbers, class_id, attribute, sample = array("d", [math.nan] * NUMBERS), 0, NO_ATTRIBUTE, UNKNOWN
        self._numbers.extend(numbers)
        self._class_ids.append(class_id)
        self._attribute_ids.append(attribute)
        self._samples.append(sample)
        return row

    @property
    def num_boxes(self) -> int:
        """Of all samples."""
        return len(self._samples)

    def columns(self) -> list[np.ndarray]:
        """Numbers (N, 3), (N, 3), (N, 4), (N, 2) of the keys of ``WIDTHS`` and (N, 1) scores."""
        numbers = np.array(self._numbers, dtype=np.float64).reshape(-1, NUMBERS)
        return np.split(numbers, np.cumsum(list(WIDTHS.values())), axis=1)

    def class_ids(self) -> np.ndarray:
        """(N,) places in ``rules.CLASSES``."""
        return np.array(self._class_ids, dtype=np.int64)

    def attribute_ids(self) -> np.ndarray:
        """(N,) places in ``rules.ATTRIBUTES``; ``NO_ATTRIBUTE``."""
        return np.array(self._attribute_ids, dtype=np.int64)

    def samples_named(self, listed: Sequence[str]) -> np.ndarray:
        """(N,) the place in ``listed`` of the token that each box names; ``UNKNOWN`` where it is not there."""
        place = {token: i for i, token in enumerate(listed)}
        of_named = np.array([place.get(token, UNKNOWN) for token in self._tokens] + [UNKNOWN], dtype=np.int64)
        return of_named[np.array(self._samples, dtype=np.int64)]


def box_problem(entry: Mapping[str, Any]) -> str:
    """What is wrong with the form of a box."""
    if missing := [key for key in (*WIDTHS, "detection_score", "detection_name", "attribute_name") if key not in entry]:
        return f"it has no {', '.join(missing)}"
    for key, width in WIDTHS.items():
        value = entry[key]
        if not isinstance(value, list) or len(value) != width or not all(map(_is_number, value)):
            return f"{key} must be {width} numbers, got {value!r}"
    if not _is_number(entry["detection_score"]):
        return f"detection_score must be a number, got {entry['detection_score']!r}"
    for key, known in (("detection_name", CLASS_NUMBER), ("attribute_name", ATTRIBUTE_NUMBER)):
        if not isinstance(entry[key], str) or entry[key] not in known:
            names = ", ".join(name or "an empty text" for name in known)
            return f"there is no {key} {entry[key]!r}; there are {names}"
    return f"sample_token must be a text and numbers must be below 1e308, got {dict(entry)!r}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))
