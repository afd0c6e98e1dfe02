"""The rows of nuScenes' tables: what they must hold, as far as it is read here, and a field of many as an array."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """What a field holds.

    Attributes:
        says: for a message.
        fits: whether all of some values are of this kind; one call for a whole table, of which some have millions of
            rows.
    """

    says: str
    fits: Callable[[Sequence], bool]


def _are(kind: type, values: Sequence) -> bool:
    return set(map(type, values)) <= {kind}


def _are_texts_in_lists(values: Sequence) -> bool:
    return _are(list, values) and _are(str, list(chain.from_iterable(values)))


def _are_numbers(values: Sequence) -> bool:
    if not set(map(type, values)) <= {int, float}:
        return False
    array = np.array(values)
    return array.dtype.kind in "iuf" and bool(np.isfinite(array).all())  # integers beyond 64 bits are objects


def _are_vectors(length: int, values: Sequence) -> bool:
    if not (_are(list, values) and set(map(len, values)) <= {length}):
        return False
    return _are_numbers(list(chain.from_iterable(values)))


def _are_quaternions(values: Sequence) -> bool:
    return _are_vectors(4, values) and all(map(any, values))


def _are_matrices(values: Sequence) -> bool:
    return _are(list, values) and set(map(len, values)) <= {3} and _are_vectors(3, list(chain.from_iterable(values)))


TEXT = Kind("a text", partial(_are, str))
FLAG = Kind("true or false", partial(_are, bool))
NUMBER = Kind("a finite number", _are_numbers)
VECTOR = Kind("three finite numbers", partial(_are_vectors, 3))
QUATERNION = Kind("a quaternion [w, x, y, z] of finite numbers that are not all 0", _are_quaternions)
TOKENS = Kind("a list of tokens", _are_texts_in_lists)
MATRIX = Kind("a (3, 3) matrix of finite numbers", _are_matrices)  # of cameras; [] of other sensors

FIELDS: dict[str, dict[str, Kind]] = {
    "category": {"name": TEXT},
    "attribute": {"name": TEXT},
    "instance": {"category_token": TEXT},
    "sensor": {"channel": TEXT},
    "calibrated_sensor": {"sensor_token": TEXT, "translation": VECTOR, "rotation": QUATERNION},
    "ego_pose": {"translation": VECTOR, "rotation": QUATERNION},
    "scene": {"name": TEXT, "first_sample_token": TEXT},
    "sample": {"timestamp": NUMBER, "next": TEXT},
    "sample_data": {
        "sample_token": TEXT,
        "ego_pose_token": TEXT,
        "calibrated_sensor_token": TEXT,
        "timestamp": NUMBER,
        "is_key_frame": FLAG,
        "filename": TEXT,
        "prev": TEXT,
    },
    "sample_annotation": {
        "sample_token": TEXT,
        "instance_token": TEXT,
        "attribute_tokens": TOKENS,
        "translation": VECTOR,
        "size": VECTOR,
        "rotation": QUATERNION,
        "prev": TEXT,
        "next": TEXT,
        "num_lidar_pts": NUMBER,
        "num_radar_pts": NUMBER,
    },
}


def column(rows: Sequence[Row], field: str, width: int) -> np.ndarray:
    """(N, width) float64 of a field that is a vector."""
    return np.array([row[field] for row in rows], dtype=np.float64).reshape(len(rows), width)


def row_problems(file: Path, rows: Sequence[Row]) -> list[str]:
    """One sentence for each field that rows of a table lack or hold something else in.

    Args:
        file: of the table, after which it is named.
        rows: each with a token.
    """
    fields = {"token": TEXT, **FIELDS.get(file.stem, {})}
    return [problem for field, kind in fields.items() for problem in field_problems(file, rows, field, kind)]


def field_problems(file: Path, rows: Sequence[Row], field: str, kind: Kind) -> list[str]:
    """A sentence that names the first row whose field is not of a kind, and says how many more there are; or none."""
    if not rows or kind.fits([row.get(field) for row in rows]):
        return []
    wrong = [row for row in rows if not kind.fits([row.get(field)])]
    first, more = wrong[0], len(wrong) - 1
    got = f"got {str(first[field])[:80]!r}" if field in first else "and is not there"
    return [
        f"{file}: the row {first['token']!r}: {field} must be {kind.says}, {got}"
        f"{f', nor is it in {more} more rows' if more else ''}; copy the table again from the release"
    ]
