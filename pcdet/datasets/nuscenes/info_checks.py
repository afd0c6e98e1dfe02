"""Whether info files hold what the data set reads, told once when they are opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pcdet.datasets.errors import DataError
from pcdet.datasets.file_names import is_inside
from pcdet.datasets.nuscenes.sound_infos import (
    BOX_COLUMNS,
    COUNTS,
    LARGEST_COUNT,
    POSES,
    are_sound,
    float32_of,
    sound_rows,
)

ADVICE = "make it again with create_nuscenes_infos"
TOGETHER = 500  # frames whose values are looked at together


def check_infos(infos: Any, path: str | Path, *, num_sweeps: int, velocity: bool) -> None:
    """Checks a whole info file: its form, paths of clouds, poses, and the boxes of its objects.

    Args:
        infos: what the file holds.
        path: of the file, for messages.
        num_sweeps: sweeps that a frame must have beside its key frame.
        velocity: whether boxes must end with [vx, vy], which may be NaN where nobody knows them.

    Raises:
        DataError: with everything that is wrong, as ``<file>, frame <number> (<token>): <key> <rule>``.
    """
    if not isinstance(infos, list):
        raise DataError(f"{path} must hold a list of frames, got {_kind(infos)}; {ADVICE}")
    problems: list[str] = []
    for begin in range(0, len(infos), TOGETHER):
        some = infos[begin : begin + TOGETHER]
        if are_sound(some, num_sweeps=num_sweeps, velocity=velocity):
            continue
        for number, info in enumerate(some, begin):
            where = f"{path}, frame {number}{_name_of(info)}"
            problems += [f"{where}: {problem}; {ADVICE}" for problem in _problems(info, num_sweeps, velocity)]
    if problems:
        raise DataError(problems)


def _problems(info: Any, num_sweeps: int, velocity: bool) -> list[str]:
    try:
        return [*_frame_problems(info, num_sweeps)] or [*_label_problems(info, velocity)]
    except (TypeError, ValueError) as error:  # what numpy makes of ragged or odd values
        return [f"cannot be read: {error}"]


def _frame_problems(info: Any, num_sweeps: int) -> Iterator[str]:
    """What is wrong with a frame apart from its labels."""
    if not isinstance(info, dict):
        yield f"must be a mapping, got {_kind(info)}"
        return
    lacking = [key for key in ("lidar_path", "token", "sweeps") if key not in info]
    if lacking:
        yield f"is not of nuScenes' form: it has no {', '.join(lacking)}, but {', '.join(map(str, info)) or 'nothing'}"
        return
    if not isinstance(info["token"], str):
        yield f"token must be a text, got {_kind(info['token'])}"
    if not is_inside(info["lidar_path"]):
        yield f"lidar_path must be relative to the release's folder and stay inside it, got {info['lidar_path']!r}"
    for key in POSES:
        if key in info and not is_pose(info[key]):
            yield f"{key} must be a matrix of (4, 4) finite numbers, got {_kind(info[key])}"
    sweeps = info["sweeps"]
    if not isinstance(sweeps, list) or not all(isinstance(sweep, dict) for sweep in sweeps):
        yield f"sweeps must be a list of mappings, got {_kind(sweeps)}"
        return
    if len(sweeps) < num_sweeps:
        yield (
            f"has {len(sweeps)} sweeps, MAX_SWEEPS: {num_sweeps + 1} needs {num_sweeps}; lower it, or use infos "
            "of as many sweeps"
        )
    for number, sweep in enumerate(sweeps):
        yield from (f"sweeps[{number}].{problem}" for problem in _sweep_problems(sweep))


def _sweep_problems(sweep: dict) -> Iterator[str]:
    if not is_inside(sweep.get("lidar_path")):
        yield f"lidar_path must be relative to the release's folder and stay inside it, got {sweep.get('lidar_path')!r}"
    if "transform_matrix" not in sweep:
        yield "transform_matrix is missing; it must be None or (4, 4) numbers"
    matrix, lag = sweep.get("transform_matrix"), sweep.get("time_lag")
    if matrix is not None and not is_pose(matrix):
        yield f"transform_matrix must be None or (4, 4) finite numbers, got {_kind(matrix)}"
    if not isinstance(lag, (int, float, np.integer, np.floating)) or not np.isfinite(lag):
        yield f"time_lag must be a number of seconds, got {lag!r}"


def _label_problems(info: dict, velocity: bool) -> Iterator[str]:
    """What is wrong with the labels of a frame, where it has some."""
    if "gt_boxes" not in info:
        return
    boxes, names = info["gt_boxes"], info.get("gt_names")
    if not isinstance(names, np.ndarray) or names.ndim != 1 or (names.size and names.dtype.kind != "U"):
        yield f"gt_names must be an array of text, (N,), got {_kind(names)}"
        return
    if not isinstance(boxes, np.ndarray) or boxes.dtype.kind not in "fiu" or boxes.size == 0 != len(names):
        yield f"gt_boxes must be an array of numbers with a row for each of {len(names)} names, got {_kind(boxes)}"
        return
    if boxes.size and (boxes.ndim != 2 or len(boxes) != len(names) or boxes.shape[1] not in BOX_COLUMNS):
        yield f"gt_boxes must have shape ({len(names)}, 7 or 9), a row for each name, got {_kind(boxes)}"
        return
    if boxes.size and velocity and boxes.shape[1] != 9:
        yield "gt_boxes have no velocities, which PRED_VELOCITY: True needs; set it to False"
    for key in COUNTS:
        counts = info.get(key)
        if counts is not None and not _are_counts(counts, len(names)):
            yield f"{key} must be {len(names)} counts, one for each name, got {_kind(counts)}"
    if boxes.size:
        yield from _box_problems(boxes, names)


def _box_problems(boxes: np.ndarray, names: np.ndarray) -> Iterator[str]:
    for row in np.flatnonzero(~sound_rows(float32_of(boxes))):
        yield (
            f"object {row} ({names[row]}) must have finite numbers, sizes above 0 and a finite or NaN velocity, "
            f"got {boxes[row].tolist()}"
        )


def is_pose(value: Any) -> bool:
    """Whether it is a (4, 4) matrix of finite numbers."""
    return (
        isinstance(value, np.ndarray)
        and value.shape == (4, 4)
        and value.dtype.kind in "fiu"
        and bool(np.isfinite(value).all())
    )


def _are_counts(value: Any, number: int) -> bool:
    if not isinstance(value, np.ndarray) or value.shape != (number,) or value.dtype.kind not in "iu":
        return False
    return not number or (0 <= value.min() and value.max() <= LARGEST_COUNT)


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}, shape {value.shape}"
    return "nothing" if value is None else type(value).__name__


def _name_of(info: Any) -> str:
    """The frame's token in brackets, where it has one."""
    token = info.get("token") if isinstance(info, dict) else None
    return f" ({token[:40]})" if isinstance(token, str) and token.isprintable() and token else ""
