"""Whether many infos are sound, told at once: a set of 28,130 takes seconds, frame by frame it takes three times that.

What is refused here may still be allowed, and ``info_checks`` says what is wrong with it; nothing else is let through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pcdet.datasets.file_names import is_inside

BOX_COLUMNS = (7, 9)  # without and with [vx, vy]
LARGEST_COUNT = 2**31 - 1
COUNTS = ("num_lidar_pts", "num_radar_pts")
POSES = ("ref_from_car", "car_from_global")
NUMBERS = frozenset("fiu")  # kinds of dtypes


def are_sound(infos: Sequence[Any], *, num_sweeps: int, velocity: bool) -> bool:
    """Whether ``info_checks`` finds nothing wrong with any of them; False where that takes a closer look."""
    try:
        return _frames_are_sound(infos, num_sweeps) and _labels_are_sound(infos, velocity)
    except (KeyError, TypeError, ValueError):  # lacking keys and odd values: the closer look names them
        return False


def _frames_are_sound(infos: Sequence[Any], num_sweeps: int) -> bool:
    paths: list[Any] = []
    matrices: list[Any] = []
    lags: list[Any] = []
    for info in infos:
        if type(info) is not dict or type(info["token"]) is not str or type(info["sweeps"]) is not list:
            return False
        sweeps = info["sweeps"]
        if len(sweeps) < num_sweeps or not all(type(sweep) is dict for sweep in sweeps):
            return False
        paths.append(info["lidar_path"])
        paths += [sweep["lidar_path"] for sweep in sweeps]
        matrices += [info[key] for key in POSES if key in info]
        matrices += [sweep["transform_matrix"] for sweep in sweeps if sweep["transform_matrix"] is not None]
        lags += [sweep["time_lag"] for sweep in sweeps]
    return all(map(is_inside, paths)) and _are_poses(matrices) and _are_lags(lags)


def _are_poses(matrices: list[Any]) -> bool:
    if not all(type(m) is np.ndarray and m.shape == (4, 4) and m.dtype.kind in NUMBERS for m in matrices):
        return False
    return not matrices or bool(np.isfinite(np.concatenate(matrices)).all())


def _are_lags(lags: list[Any]) -> bool:
    return all(type(lag) is float for lag in lags) and bool(np.isfinite(np.array(lags, dtype=np.float64)).all())


def _labels_are_sound(infos: Sequence[dict], velocity: bool) -> bool:
    boxes: dict[int, list[np.ndarray]] = {columns: [] for columns in BOX_COLUMNS}
    counts: list[np.ndarray] = []
    for info in infos:
        if "gt_boxes" not in info:
            continue
        of_frame, names = info["gt_boxes"], info["gt_names"]
        if type(names) is not np.ndarray or names.ndim != 1 or names.dtype.kind != "U":
            return False
        if type(of_frame) is not np.ndarray or of_frame.dtype.kind not in NUMBERS or of_frame.ndim != 2:
            return False
        if len(of_frame) != len(names):
            return False
        boxes[of_frame.shape[1]].append(of_frame)  # another number of columns is a KeyError
        for key in COUNTS:
            if info.get(key) is not None:
                counts.append(info[key])
                if type(info[key]) is not np.ndarray or info[key].shape != names.shape:
                    return False
    if velocity and any(map(len, boxes[7])):
        return False
    return all(_are_boxes(of_width) for of_width in boxes.values()) and _are_counts(counts)


def _are_boxes(boxes: list[np.ndarray]) -> bool:
    if not boxes:
        return True
    used = float32_of(np.concatenate(boxes))
    return bool(sound_rows(used).all())


def _are_counts(counts: list[np.ndarray]) -> bool:
    if not all(values.dtype.kind in "iu" for values in counts):
        return False
    values = np.concatenate([np.zeros(1, dtype=np.int64), *counts])
    return bool(0 <= values.min() and values.max() <= LARGEST_COUNT)


def float32_of(boxes: np.ndarray) -> np.ndarray:
    """Boxes as networks get them; what float32 cannot hold is infinite."""
    with np.errstate(over="ignore"):
        return boxes.astype(np.float32)


def sound_rows(boxes: np.ndarray) -> np.ndarray:
    """(N,) bool: finite boxes with sizes above 0, and velocities that are finite or unknown (NaN).

    Args:
        boxes: (N, 7 or 9) float32.
    """
    place, velocity = boxes[:, :7], boxes[:, 7:]
    return np.isfinite(place).all(axis=1) & (place[:, 3:6] > 0).all(axis=1) & ~np.isinf(velocity).any(axis=1)
