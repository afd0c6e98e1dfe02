"""Boxes of many samples as one table, in the global frame of nuScenes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """N boxes, in the order in which they were labelled or detected. Global frame, metres, radians.

    Attributes:
        sample: (N,) number of the sample.
        class_id: (N,) places in ``rules.CLASSES``.
        center: (N, 3).
        size: (N, 3) width, length, height.
        yaw: (N,) of the length, about the z axis.
        velocity: (N, 2) m/s over the ground; of an object NaN where it is not known.
        attribute: (N,) places in ``rules.ATTRIBUTES``; ``NO_ATTRIBUTE``.
        score: (N,); None for objects.
    """

    sample: np.ndarray
    class_id: np.ndarray
    center: np.ndarray
    size: np.ndarray
    yaw: np.ndarray
    velocity: np.ndarray
    attribute: np.ndarray
    score: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.sample)

    def __getitem__(self, which: np.ndarray) -> Boxes:
        """The boxes that a mask chooses, or those with these numbers, in their order."""
        columns = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Boxes(**{name: None if values is None else values[which] for name, values in columns.items()})


def yaw_of(rotation: np.ndarray) -> np.ndarray:
    """(N,) angle of the turned x axis over the ground, of quaternions (N, 4) [w, x, y, z] of any length but 0."""
    w, x, y, z = np.asarray(rotation, dtype=np.float64).reshape(-1, 4).T
    return np.arctan2(2 * (w * z + x * y), w * w + x * x - y * y - z * z)
