"""Rotations and poses of nuScenes' tables; poses are (4, 4) float64 matrices that act on column vectors."""

from __future__ import annotations

import numpy as np

from pcdet.datasets.errors import DataError
from pcdet.datasets.nuscenes.tables import Row


def matrices_of(rotations: np.ndarray) -> np.ndarray:
    """(N, 3, 3) rotations of quaternions (N, 4) [w, x, y, z] of any length but 0.

    Raises:
        DataError: a quaternion is 0 or not finite.
    """
    rotations = np.asarray(rotations, dtype=np.float64).reshape(-1, 4)
    lengths = np.linalg.norm(rotations, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise DataError("a rotation must be a quaternion [w, x, y, z] of finite numbers that are not all 0")
    w, x, y, z = (rotations / lengths).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)


def yaw_of(rotation: np.ndarray) -> np.ndarray:
    """(N,) angle of the turned x axis over the ground, of quaternions (N, 4) [w, x, y, z] of any length but 0."""
    w, x, y, z = np.asarray(rotation, dtype=np.float64).reshape(-1, 4).T
    return np.arctan2(2 * (w * z + x * y), w * w + x * x - y * y - z * z)


def pose_of(row: Row) -> np.ndarray:
    """(4, 4) from the frame that a row of ``ego_pose`` or ``calibrated_sensor`` places to the one it stands in."""
    matrix = np.eye(4)
    matrix[:3, :3] = matrices_of(row["rotation"])[0]
    matrix[:3, 3] = row["translation"]
    return matrix


def inverse(pose: np.ndarray) -> np.ndarray:
    """(4, 4) the way back."""
    matrix = np.eye(4)
    matrix[:3, :3] = pose[:3, :3].T
    matrix[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return matrix
