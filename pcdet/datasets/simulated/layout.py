"""Draws a street scene: which bodies there are and where they stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pcdet.datasets.simulated import clutter, objects
from pcdet.datasets.simulated.scene import Body, Ground, Scene, Sculptor

Range = tuple[int, int]  # how many, both ends included


@dataclass(frozen=True, kw_only=True)
class SceneSettings:
    """How full a scene is. Ranges of counts include both ends; lengths in metres.

    Attributes:
        cars, pedestrians, cyclists, vans, trucks: labelled bodies between ``near`` and ``far``.
        distant: cars and vans beyond ``far``, which KITTI's difficulty levels leave out.
        poles ... facades: clutter.
        occluders: pieces of clutter put between the sensor and a labelled body.
        near, far, side: labelled bodies stand at x in [near, far], abs(y) <= side.
        nearness: exponent of the uniform number that x is drawn with; 1 crowds the near part of the wedge, 0.5 fills it
            evenly.
        half_angle: and within this angle of the x axis, radians; those near it are cut by the image border.
        slope: largest slope of the ground along x; across it is half of that.
        along_road: share of vehicles and cyclists that point along the road.
    """

    cars: Range = (5, 8)
    pedestrians: Range = (5, 9)
    cyclists: Range = (5, 7)
    vans: Range = (0, 2)
    trucks: Range = (0, 1)
    distant: Range = (0, 2)
    poles: Range = (2, 5)
    posts: Range = (3, 7)
    bushes: Range = (2, 6)
    trees: Range = (1, 4)
    crates: Range = (1, 2)
    parked_bicycles: Range = (1, 3)
    low_walls: Range = (0, 2)
    facades: Range = (1, 3)
    occluders: Range = (1, 3)
    near: float = 4.0
    far: float = 39.5
    side: float = 19.5
    nearness: float = 0.7
    half_angle: float = float(np.deg2rad(40.0))
    slope: float = 0.015
    along_road: float = 0.7


def footprint(length: float, width: float, x: float, y: float, heading: float) -> np.ndarray:
    """(K, 3) discs [x, y, radius] along the length that cover a rectangle."""
    radius = 0.5 * width + 0.1
    reach = max(0.5 * length - radius, 0.0)
    along = np.linspace(-reach, reach, 1 + int(np.ceil(2 * reach / radius)))
    return np.stack([x + along * np.cos(heading), y + along * np.sin(heading), np.full_like(along, radius)], axis=1)


class _Floor:
    """Remembers the taken ground as discs."""

    def __init__(self):
        self.discs = np.zeros((0, 3))

    def take(self, discs: np.ndarray, gap: float) -> bool:
        """Takes the ground if it is free with ``gap`` metres to spare."""
        offset = self.discs[:, None, :2] - discs[None, :, :2]
        wanted = self.discs[:, None, 2] + discs[None, :, 2] + gap
        if np.any((offset**2).sum(-1) < wanted**2):
            return False
        self.discs = np.concatenate([self.discs, discs])
        return True


def draw_scene(rng: np.random.Generator, settings: SceneSettings | None = None) -> Scene:
    """A random scene; a body that finds no free ground in twenty tries is left out.

    Args:
        rng: where all randomness comes from.
        settings: how full it is.

    Returns:
        The scene, labelled bodies first.
    """
    settings = settings or SceneSettings()
    return _Planner(rng, settings).plan()


class _Planner:
    def __init__(self, rng: np.random.Generator, settings: SceneSettings):
        self.rng, self.settings = rng, settings
        self.floor, self.bodies = _Floor(), []
        slope = rng.uniform(-1.0, 1.0, 2) * [settings.slope, 0.5 * settings.slope]
        self.ground = Ground(slope_x=float(slope[0]), slope_y=float(slope[1]))
        self.road = float(rng.normal(0.0, 0.15))  # the road's direction

    def plan(self) -> Scene:
        s = self.settings
        traffic = dict(Car=s.cars, Van=s.vans, Truck=s.trucks, Cyclist=s.cyclists, Pedestrian=s.pedestrians)
        for name, count in traffic.items():
            for _ in range(self._count(count)):
                shape = objects.BUILDERS[name](self.rng)
                self._put(name, shape, self._spot_in_view(shape), gap=0.25)
        for _ in range(self._count(s.distant)):
            name = "Car" if self.rng.random() < 0.7 else "Van"
            self._put(name, objects.BUILDERS[name](self.rng), self._spot_far_away, gap=0.5)
        self._occlude(self._count(s.occluders))
        for name, count in (
            ("facade", s.facades),
            ("crate", s.crates),
            ("low_wall", s.low_walls),
            ("tree", s.trees),
            ("bush", s.bushes),
            ("post", s.posts),
            ("parked_bicycle", s.parked_bicycles),
            ("pole", s.poles),
        ):
            for _ in range(self._count(count)):
                shape = clutter.BUILDERS[name](self.rng)
                self._put(None, shape, self._spot_behind if name == "facade" else self._spot_in_view(shape), gap=0.15)
        return Scene(self.ground, tuple(self.bodies))

    def _count(self, span: Range) -> int:
        return int(self.rng.integers(span[0], span[1] + 1))

    def _heading(self, label: str | None) -> float:
        if label != "Pedestrian" and self.rng.random() < self.settings.along_road:
            heading = self.road + self.rng.normal(0.0, 0.06) + np.pi * self.rng.integers(2)
        else:
            heading = self.rng.uniform(-np.pi, np.pi)
        return float((heading + np.pi) % (2 * np.pi) - np.pi)

    def _spot_in_view(self, shape: Sculptor) -> Callable[[], tuple[float, float]]:
        """Draws spots for a body: the longer it is the farther off, or one near lorry would hide half the scene."""
        s = self.settings
        near = s.near + 1.2 * shape.length

        def draw() -> tuple[float, float]:
            x = near + (s.far - near) * self.rng.random() ** s.nearness
            reach = min(s.side, x * np.tan(s.half_angle))
            return float(x), float(self.rng.uniform(-reach, reach))

        return draw

    def _spot_far_away(self) -> tuple[float, float]:
        return float(self.rng.uniform(55.0, 68.0)), float(self.rng.uniform(-25.0, 25.0))

    def _spot_behind(self) -> tuple[float, float]:
        side = 1.0 if self.rng.random() < 0.5 else -1.0
        return float(self.rng.uniform(12.0, 60.0)), float(side * self.rng.uniform(15.0, 26.0))

    def _put(self, label: str | None, shape: Sculptor, spot, *, gap: float) -> bool:
        for _ in range(20):
            (x, y), heading = spot(), self._heading(label)
            if self.floor.take(footprint(shape.length, shape.width, x, y, heading), gap):
                self.bodies.append(shape.place(label, x, y, self.ground.z(x, y), heading))
                return True
        return False

    def _occlude(self, count: int) -> None:
        """Puts clutter on the line between the sensor and a labelled body."""
        labelled: list[Body] = list(self.bodies)
        for _ in range(count if labelled else 0):
            target = labelled[int(self.rng.integers(len(labelled)))].box
            kind = ("post", "bush", "low_wall", "pole")[int(self.rng.integers(4))]

            def between(target=target):
                share = self.rng.uniform(0.5, 0.9)
                return float(share * target[0]), float(share * target[1] + self.rng.normal(0.0, 0.7))

            self._put(None, clutter.BUILDERS[kind](self.rng), between, gap=0.15)
