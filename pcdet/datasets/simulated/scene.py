"""What a scene consists of: a sloping ground plane and bodies made of primitives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pcdet.datasets.simulated.primitives import Material, Primitive

SENSOR_HEIGHT = 1.73  # metres above the ground, as on the KITTI car


class Ground(NamedTuple):
    """The plane z = -height + slope_x * x + slope_y * y, LiDAR frame, metres."""

    height: float = SENSOR_HEIGHT
    slope_x: float = 0.0
    slope_y: float = 0.0

    def z(self, x: float, y: float) -> float:
        """Height of the ground below (or above) a point, metres in the LiDAR frame."""
        return -self.height + self.slope_x * x + self.slope_y * y


@dataclass(frozen=True)
class Body:
    """A thing in the scene.

    Attributes:
        label: KITTI class name; None for clutter, which has no label.
        box: (7,) [x, y, z, dx, dy, dz, heading] of the upright box around it, LiDAR frame, z at the centre.
        parts: its primitives.
    """

    label: str | None
    box: np.ndarray
    parts: tuple[Primitive, ...]


@dataclass(frozen=True)
class Scene:
    """A ground plane and the bodies that stand on it."""

    ground: Ground
    bodies: tuple[Body, ...]


@dataclass
class Sculptor:
    """Collects parts in a body's own frame (x forward, y left, z up from the ground) and puts them into the scene."""

    length: float
    width: float
    height: float
    parts: list[tuple] = field(default_factory=list)

    def box(self, forward, left, z, half_length, half_width, material, turn=0.0):
        """Adds a box; ``z`` is (bottom, top)."""
        self.parts.append((False, forward, left, z, half_length, half_width, material, turn))

    def cylinder(self, forward, left, z, half_length, half_width, material, turn=0.0):
        """Adds an elliptic cylinder; ``z`` is (bottom, top)."""
        self.parts.append((True, forward, left, z, half_length, half_width, material, turn))

    def place(self, label: str | None, x: float, y: float, ground_z: float, heading: float) -> Body:
        """The body at a pose. ``x, y, ground_z`` is the point of the ground below its centre."""
        cos, sin = np.cos(heading), np.sin(heading)
        parts = tuple(
            Primitive(
                is_round,
                float(x + cos * forward - sin * left),
                float(y + sin * forward + cos * left),
                float(ground_z + z[0]),
                float(ground_z + z[1]),
                float(half_length),
                float(half_width),
                float(heading + turn),
                material,
            )
            for is_round, forward, left, z, half_length, half_width, material, turn in self.parts
        )
        box = np.array([x, y, ground_z + 0.5 * self.height, self.length, self.width, self.height, heading])
        return Body(label, box, parts)


__all__ = ["Body", "Ground", "Material", "Primitive", "Scene", "Sculptor", "SENSOR_HEIGHT"]
