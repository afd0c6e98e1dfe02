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
LARGEST = 1e12  # of a coordinate, as of the ops' boxes; whatever is computed of such numbers fits into float32
SMALLEST = 1e-12  # of a size, and the length of a quaternion
LARGEST_COUNT = 2**31 - 1  # points in a box
LARGEST_TIME = 2**53  # microseconds that float64 tells apart: 285 years


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


def _are_numbers(values: Sequence, low: float = -LARGEST, high: float = LARGEST) -> bool:
    if not set(map(type, values)) <= {int, float}:
        return False
    array = np.array(values)
    is_number = array.dtype.kind in "iuf"  # integers beyond 64 bits are objects
    return is_number and bool(((array >= low) & (array <= high)).all())


def _are_counts(values: Sequence) -> bool:
    return _are(int, values) and _are_numbers(values, 0, LARGEST_COUNT)


def _are_vectors(length: int, values: Sequence, low: float = -LARGEST) -> bool:
    if not (_are(list, values) and set(map(len, values)) <= {length}):
        return False
    return _are_numbers(list(chain.from_iterable(values)), low)


def _are_quaternions(values: Sequence) -> bool:
    return _are_vectors(4, values) and bool((np.linalg.norm(values, axis=1) >= SMALLEST).all())


def _are_matrices(values: Sequence) -> bool:
    return _are(list, values) and set(map(len, values)) <= {3} and _are_vectors(3, list(chain.from_iterable(values)))


TEXT = Kind("a text", partial(_are, str))
FLAG = Kind("true or false", partial(_are, bool))
TIME = Kind("a number of microseconds", partial(_are_numbers, low=0, high=LARGEST_TIME))
COUNT = Kind(f"a whole number from 0 to {LARGEST_COUNT}", _are_counts)
PLACE = Kind(f"three numbers within +-{LARGEST:g}", partial(_are_vectors, 3))
SIZE = Kind(f"three numbers above 0, at most {LARGEST:g}", partial(_are_vectors, 3, low=SMALLEST))
QUATERNION = Kind("a quaternion [w, x, y, z] of finite numbers that are not all 0", _are_quaternions)
TOKENS = Kind("a list of tokens", _are_texts_in_lists)
MATRIX = Kind("a (3, 3) matrix of finite numbers", _are_matrices)  # of cameras; other sensors have []

FIELDS: dict[str, dict[str, Kind]] = {
    "category": {"name": TEXT},
    "attribute": {"name": TEXT},
    "instance": {"category_token": TEXT},
    "sensor": {"channel": TEXT},
    "calibrated_sensor": {"sensor_token": TEXT, "translation": PLACE, "rotation": QUATERNION},
    "ego_pose": {"translation": PLACE, "rotation": QUATERNION},
    "scene": {"name": TEXT, "first_sample_token": TEXT},
    "sample": {"scene_token": TEXT, "timestamp": TIME, "next": TEXT},
    "sample_data": {
        "sample_token": TEXT,
        "ego_pose_token": TEXT,
        "calibrated_sensor_token": TEXT,
        "timestamp": TIME,
        "is_key_frame": FLAG,
        "filename": TEXT,
        "prev": TEXT,
    },
    "sample_annotation": {
        "sample_token": TEXT,
        "instance_token": TEXT,
        "attribute_tokens": TOKENS,
        "translation": PLACE,
        "size": SIZE,
        "rotation": QUATERNION,
        "prev": TEXT,
        "next": TEXT,
        "num_lidar_pts": COUNT,
        "num_radar_pts": COUNT,
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
