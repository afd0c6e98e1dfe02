"""Whether a database of objects holds what gt_sampling reads, told when it is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pcdet.datasets.errors import DataError
from pcdet.datasets.file_names import is_inside

ADVICE = "make the database again with the tool that wrote it"
LARGEST_COUNT = 2**31 - 1  # points of an object, and levels of difficulty
BOX_COLUMNS = 7  # what follows them is a velocity


def check_database(database: Any, path: Path, class_names: Sequence[str]) -> None:
    """Raises DataError with everything that is wrong with the entries of these classes in a database file."""
    if not isinstance(database, Mapping):
        raise DataError(f"{path} must hold a mapping of class to objects, got {type(database).__name__}")
    problems = []
    for class_name in class_names:
        entries = database.get(class_name, [])
        if not isinstance(entries, list):
            problems.append(f"{path}, {class_name}: must be a list of objects, got {type(entries).__name__}")
            continue
        boxes = [entry.get("box3d_lidar") for entry in entries if isinstance(entry, dict)]
        columns = {len(box) for box in boxes if isinstance(box, np.ndarray) and box.ndim == 1}
        if len(columns) > 1:
            problems.append(f"{path}, {class_name}: the boxes have different numbers of columns, {sorted(columns)}")
        for number, entry in enumerate(entries):
            problem = _entry_problem(entry)
            if problem:
                problems.append(f"{path}, {class_name}, object {number}: {problem}")
    if problems:
        raise DataError([f"{problem}; {ADVICE}" for problem in problems])


def _entry_problem(entry: Any) -> str | None:
    """What is wrong with an object's entry, or None."""
    if not isinstance(entry, dict):
        return f"must be a mapping, got {type(entry).__name__}"
    lacking = [key for key in ("path", "box3d_lidar", "num_points_in_gt") if key not in entry]
    if lacking:
        return f"has no {', '.join(lacking)}"
    if not is_inside(entry["path"]):
        return f"path must be relative to the data set's folder and stay inside it, got {entry['path']!r}"
    count, difficulty = entry["num_points_in_gt"], entry.get("difficulty", 0)
    if not _is_whole(count) or not 0 <= count <= LARGEST_COUNT:
        return f"num_points_in_gt must be a count of at most {LARGEST_COUNT}, got {count!r}"
    if not _is_whole(difficulty) or abs(int(difficulty)) > LARGEST_COUNT:
        return f"difficulty must be a whole number such as -1, 0, 1 or 2, got {difficulty!r}"
    return _box_problem(entry["box3d_lidar"])


def _is_whole(value: Any) -> bool:
    if isinstance(value, (float, np.floating)):
        return float(value).is_integer()
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _box_problem(box: Any) -> str | None:
    """What is wrong with a box, or None. It is used in float32, and counts as what it is there.

    A velocity that is not known may be NaN, as nuScenes has them; it is pasted as 0.
    """
    if not isinstance(box, np.ndarray):
        return f"box3d_lidar must be an array, got {type(box).__name__}"
    if box.ndim != 1 or len(box) < BOX_COLUMNS or box.dtype.kind not in "fiu":
        return f"box3d_lidar must be at least seven numbers, got an array of {box.dtype}, shape {box.shape}"
    with np.errstate(over="ignore"):
        used = box.astype(np.float32)
    if not np.isfinite(used[:BOX_COLUMNS]).all() or not (used[3:6] > 0).all():
        return f"box3d_lidar must be finite and its sizes above 0, in float32, got {box.tolist()}"
    if np.isinf(used[BOX_COLUMNS:]).any():
        return f"box3d_lidar holds a velocity that is infinite in float32, got {box.tolist()}"
    return None
