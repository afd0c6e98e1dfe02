"""The cloud of a sample: its key frame and earlier sweeps, brought into the key frame's place and time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pcdet.datasets.errors import DataError
from pcdet.datasets.point_files import read_points

FILE_COLUMNS = 5  # x, y, z, intensity, ring
COLUMNS = 5  # x, y, z, intensity, time lag
EGO_REACH = 1.0  # metres around the sensor in x and y: what a sweep sees there is the car itself


def choose_sweeps(number: int, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Which of ``number`` sweeps a sample takes: ``wanted`` of them, drawn without repetition; all in their order."""
    if wanted >= number:
        return np.arange(number)
    return rng.choice(number, wanted, replace=False)


def load_sweeps(root: Path, key_frame: str, sweeps: Sequence[dict]) -> np.ndarray:
    """The points of a key frame and sweeps in the key frame's LiDAR frame.

    The car itself (|x| and |y| below 1 m) is removed from the sweeps, not from the key frame.

    Args:
        root: folder that paths count from.
        key_frame: path of its cloud.
        sweeps: infos of the sweeps: ``lidar_path``, ``transform_matrix`` (4, 4) into the key frame or None, and
            ``time_lag``, seconds before the key frame.

    Returns:
        (N, 5) float32 [x, y, z, intensity, time lag], the key frame's points first.

    Raises:
        DataError: a file is missing.
        BadFrameError: a file is damaged.
    """
    clouds = [_read(root / key_frame), *(_without_ego(_read(root / sweep["lidar_path"])) for sweep in sweeps)]
    points = np.empty((sum(map(len, clouds)), COLUMNS), dtype=np.float32)
    begin = 0
    for cloud, sweep in zip(clouds, [None, *sweeps], strict=True):
        rows = points[begin : begin + len(cloud)]
        begin += len(cloud)
        _move_into(rows, cloud, None if sweep is None else sweep["transform_matrix"])
        rows[:, 4] = 0.0 if sweep is None else sweep["time_lag"]
    return points


def _move_into(rows: np.ndarray, cloud: np.ndarray, matrix: np.ndarray | None) -> None:
    """Writes a cloud, moved by a matrix (4, 4) or not, into rows of the result.

    One product straight into its place: with views of three columns and copies, it takes four times as long.
    """
    if matrix is None:
        rows[:] = cloud
        return
    wide = np.zeros((FILE_COLUMNS, COLUMNS), dtype=np.float32)
    wide[:3, :3] = matrix[:3, :3].T
    wide[3, 3] = 1.0  # the intensity; the ring goes
    np.matmul(cloud, wide, out=rows)
    for column, step in enumerate(matrix[:3, 3].astype(np.float32)):
        rows[:, column] += step


def _read(path: Path) -> np.ndarray:
    try:
        return read_points(path, FILE_COLUMNS, skippable=False)
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist, but the infos name it; copy it from nuScenes' archives, or make the infos again"
        ) from None


def _without_ego(cloud: np.ndarray) -> np.ndarray:
    is_ego = (np.abs(cloud[:, 0]) < EGO_REACH) & (np.abs(cloud[:, 1]) < EGO_REACH)
    return cloud.compress(~is_ego, axis=0)
