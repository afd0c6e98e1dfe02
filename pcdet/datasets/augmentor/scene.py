"""What augmentors do to a scene: move all of it at once, or the inside of one box.

A sample's ``points`` are (N, 3 + C) float32, its ``gt_boxes`` (M, 7) or (M, 9) with velocities [vx, vy] at the end.
"""

from __future__ import annotations

import numpy as np


def matrix_of(linear: np.ndarray | None = None, shift: np.ndarray | None = None) -> np.ndarray:
    """(4, 4) float64 that acts on column vectors: first ``linear`` (3, 3), then ``shift`` (3,) metres."""
    matrix = np.eye(4)
    if linear is not None:
        matrix[:3, :3] = linear
    if shift is not None:
        matrix[:3, 3] = shift
    return matrix


def rotation_about_z(angle: float) -> np.ndarray:
    """(3, 3), counter-clockwise by ``angle`` radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def transform_scene(sample: dict, matrix: np.ndarray) -> dict:
    """Moves points, boxes and velocities together, and writes the move down.

    Modified: ``points``, ``gt_boxes``, and ``lidar_aug_matrix`` (4, 4) float32, which leads from the sensor's frame to
    the sample's: every move is multiplied on where it happens, so the order is the true one.

    Args:
        sample: with ``points`` and ``gt_boxes``.
        matrix: (4, 4); its linear part is a scaling times a rotation or reflection that keeps z upright.
    """
    sample["points"] = transform_points(sample["points"], matrix)
    sample["gt_boxes"] = transform_boxes(sample["gt_boxes"], matrix)
    before = sample.get("lidar_aug_matrix", np.eye(4, dtype=np.float32))
    sample["lidar_aug_matrix"] = (matrix @ before.astype(np.float64)).astype(np.float32)
    return sample


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points (N, 3 + C) after a move by a matrix (4, 4), in their own dtype; their features stay as they are.

    One product with a matrix as wide as the points: on views of three columns, numpy takes six times as long.
    """
    wide = np.eye(points.shape[1], dtype=points.dtype)
    wide[:3, :3] = matrix[:3, :3].T
    moved = points @ wide
    for column, step in enumerate(matrix[:3, 3].astype(points.dtype)):
        if step:
            moved[:, column] += step
    return moved


def transform_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Boxes after a move as ``transform_scene`` makes it; headings follow as directions, velocities as vectors."""
    linear, shift = matrix[:3, :3], matrix[:3, 3]
    moved = boxes.copy()
    moved[:, :3] = boxes[:, :3] @ linear.T + shift
    moved[:, 3:6] = boxes[:, 3:6] * np.cbrt(abs(np.linalg.det(linear)))
    direction = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6])], axis=1) @ linear[:2, :2].T
    moved[:, 6] = np.arctan2(direction[:, 1], direction[:, 0])
    if boxes.shape[1] > 8:
        moved[:, 7:9] = boxes[:, 7:9] @ linear[:2, :2].T
    return moved


def uniform(rng: np.random.Generator, limits: list[float] | float) -> float:
    """A number from [low, high]; one number stands for [-number, number]."""
    low, high = (-limits, limits) if isinstance(limits, (int, float)) else limits
    return float(rng.uniform(low, high))


def check_limits(limits: list[float] | float, key: str) -> list[float] | float:
    """``limits``; ValueError unless it is [low, high] or one number."""
    if isinstance(limits, (list, tuple)) and (len(limits) != 2 or limits[0] > limits[1]):
        raise ValueError(f"{key}: must be [low, high] with low <= high, got {limits}")
    return limits


def check_names(names: list[str], known: tuple[str, ...], key: str) -> None:
    """ValueError unless all names are known."""
    wrong = [name for name in names if name not in known]
    if wrong:
        raise ValueError(f"{key}: {wrong[0]!r} is none of {', '.join(known)}")
