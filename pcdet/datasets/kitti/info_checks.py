"""Whether info files hold what the data set reads, told once when they are opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pcdet.datasets.errors import DataError
from pcdet.datasets.file_names import is_frame_name
from pcdet.datasets.kitti.kitti_utils import LARGEST_PNG_SIDE, calibration_of
from pcdet.utils.calibration_kitti import CalibrationError

ADVICE = "make it again with create_kitti_infos"
CALIBRATION = {"P2": (3, 4), "R0_rect": (3, 3), "Tr_velo_to_cam": (3, 4)}  # the least; OpenPCDet's are (4, 4)
NUMBERS = {"truncated": 0, "occluded": 0, "alpha": 0, "bbox": 4, "dimensions": 3, "location": 3, "rotation_y": 0}
OPTIONAL_NUMBERS = {"score": 0, "difficulty": 0, "index": 0, "num_points_in_gt": 0}
BOX_COLUMNS = 7


def check_infos(infos: Any, path: str | Path) -> None:
    """Checks a whole info file: its form, names that lead to files, calibrations, and the boxes of its objects.

    Every object but DontCare must have a finite box whose sizes are above 0, in float32, in which it is used.

    Args:
        infos: what the file holds.
        path: of the file, for messages.

    Raises:
        DataError: with everything that is wrong, as ``<file>, frame <number> (<name>): <key> <rule>``.
    """
    if not isinstance(infos, list):
        raise DataError(f"{path} must hold a list of frames, got {_kind(infos)}; {ADVICE}")
    problems: list[str] = []
    sound: set[tuple] = set()
    for number, info in enumerate(infos):
        try:
            found = [*_frame_problems(info, sound)] or [*_annos_problems(info)]
        except (TypeError, ValueError) as error:  # what numpy makes of ragged or odd values
            found = [f"cannot be read: {error}"]
        problems += [f"{path}, frame {number}{_name_of(info)}: {problem}; {ADVICE}" for problem in found]
    if problems:
        raise DataError(problems)


def _frame_problems(info: Any, sound: set[tuple]) -> Iterator[str]:
    """What is wrong with a frame apart from its labels; ``sound`` are the calibrations that have passed."""
    if not isinstance(info, dict):
        yield f"must be a mapping, got {_kind(info)}"
        return
    lacking = [key for key in ("point_cloud", "image", "calib") if not isinstance(info.get(key), dict)]
    if lacking:
        found = ", ".join(map(str, info)) or "nothing"
        yield f"is not of KITTI's form: it has no mapping {', '.join(lacking)}, but {found}"
        return
    name = info["point_cloud"].get("lidar_idx")
    if not is_frame_name(name):
        yield f"point_cloud.lidar_idx must be the name of the frame's files, text without / \\ or blanks, got {name!r}"
    shape = info["image"].get("image_shape")
    if not _is_numbers(shape, (2,)) or not all(1 <= n <= LARGEST_PNG_SIDE and n % 1 == 0 for n in map(float, shape)):
        yield f"image.image_shape must be two whole numbers in [1, 2^31) (rows, columns), got {shape!r}"
    matrices = [matrix for matrix in map(info["calib"].get, CALIBRATION) if isinstance(matrix, np.ndarray)]
    key = tuple((matrix.dtype.str, matrix.shape, matrix.tobytes()) for matrix in matrices)
    if key not in sound:  # thousands of frames have a handful of calibrations
        problems = [*_calibration_problems(info)]
        yield from problems
        if not problems:
            sound.add(key)


def _calibration_problems(info: dict) -> Iterator[str]:
    """What is wrong with the matrices of a frame, each for itself, then with the calibration that they make."""
    usable = True
    for key, least in CALIBRATION.items():
        matrix = info["calib"].get(key)
        if not (
            isinstance(matrix, np.ndarray)
            and matrix.dtype.kind in "fiu"
            and matrix.ndim == 2
            and matrix.shape[0] >= least[0]
            and matrix.shape[1] >= least[1]
        ):
            usable = False
            yield f"calib.{key} must be a matrix of at least {least}, got {_kind(matrix)}"
        elif not np.isfinite(matrix).all():
            usable = False
            yield f"calib.{key} holds values that are not finite"
    if usable:
        try:
            calibration_of(info)
        except CalibrationError as error:
            yield f"calib: {error}"


def _annos_problems(info: dict) -> Iterator[str]:
    """What is wrong with the labels of a frame, where it has some."""
    if "annos" not in info:
        return
    annos = info["annos"]
    if not isinstance(annos, dict):
        yield f"annos must be a mapping, got {_kind(annos)}"
        return
    names = annos.get("name")
    if not isinstance(names, np.ndarray) or names.ndim != 1 or (names.size and names.dtype.kind != "U"):
        yield f"annos.name must be an array of text, (N,), got {_kind(names)}"
        return
    shaped = True
    for key, columns in (*NUMBERS.items(), *((k, c) for k, c in OPTIONAL_NUMBERS.items() if k in annos)):
        shape = (len(names), columns) if columns else (len(names),)
        if not _is_numbers(annos.get(key), shape):
            shaped = False
            yield f"annos.{key} must be numbers of shape {shape}, a row for each name, got {_kind(annos.get(key))}"
    if shaped:
        yield from _box_problems(annos, names)


def _box_problems(annos: dict, names: np.ndarray) -> Iterator[str]:
    cared = names != "DontCare"
    if "gt_boxes_lidar" in annos:
        boxes, count = annos["gt_boxes_lidar"], int(cared.sum())
        if not _is_numbers(boxes, (count, BOX_COLUMNS)):
            yield f"annos.gt_boxes_lidar must be numbers of shape {(count, BOX_COLUMNS)}, got {_kind(boxes)}"
        elif not np.isfinite(boxes).all():
            yield "annos.gt_boxes_lidar holds values that are not finite"
    if not np.isfinite(annos["bbox"]).all():
        yield "annos.bbox holds values that are not finite"
    with np.errstate(over="ignore"):
        sizes, place = (annos[key].astype(np.float32) for key in ("dimensions", "location"))
    finite = np.isfinite(sizes).all(1) & np.isfinite(place).all(1) & np.isfinite(annos["rotation_y"])
    wrong = cared & ~(finite & (sizes > 0).all(1))
    for row in np.flatnonzero(wrong):
        box = {key: annos[key][row].tolist() for key in ("dimensions", "location", "rotation_y")}
        yield f"object {row} ({names[row]}) must have finite numbers and sizes above 0, got {box}"


def _is_numbers(value: Any, shape: tuple[int, ...]) -> bool:
    """Whether it is an array of numbers of this shape; a tuple of numbers serves for an image's size."""
    if isinstance(value, (list, tuple)) and shape == (2,):
        value = np.asarray(value)
    return isinstance(value, np.ndarray) and value.shape == shape and value.dtype.kind in "fiu"


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}, shape {value.shape}"
    return "nothing" if value is None else type(value).__name__


def _name_of(info: Any) -> str:
    """The frame's name in brackets, where it has one."""
    cloud = info.get("point_cloud") if isinstance(info, dict) else None
    name = cloud.get("lidar_idx") if isinstance(cloud, dict) else None
    return f" ({name})" if is_frame_name(name) else ""
