"""A street that a vehicle drives through: where everything is at every moment of a scene, in a fixed frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pcdet.datasets.simulated import clutter
from pcdet.datasets.simulated.layout import footprint
from pcdet.datasets.simulated.nuscenes.classes import CLASSES, WORLD_REACH, Look, ObjectClass
from pcdet.datasets.simulated.scene import Sculptor

CLUTTER = {  # least and largest number within WORLD_REACH metres, as for the classes
    "facade": (2, 4),
    "crate": (0, 2),
    "low_wall": (0, 2),
    "tree": (2, 5),
    "bush": (2, 6),
    "post": (2, 6),
    "pole": (2, 5),
}
ALONG_ROAD = 0.7  # share of the vehicles and walls that point along the road
EGO_LENGTH, EGO_WIDTH, EGO_GAP = 4.6, 1.9, 1.2  # metres; nothing comes nearer to the ego vehicle than the gap
TIME_STEP = 0.25  # seconds between two looks at whether things run into one another


@dataclass(frozen=True)
class Drive:
    """The ego vehicle's way: an arc at constant speed. Metres and radians of the global frame, m/s, rad/s."""

    x: float
    y: float
    heading: float
    speed: float
    turn_rate: float

    def pose(self, seconds: float) -> tuple[float, float, float]:
        """(x, y, heading) so many seconds after the scene's begin."""
        turn = self.turn_rate * seconds
        # The chord of an arc: sinc keeps it right where the way is straight.
        chord = self.speed * seconds * np.sinc(0.5 * turn / np.pi)
        middle = self.heading + 0.5 * turn
        return float(self.x + chord * np.cos(middle)), float(self.y + chord * np.sin(middle)), self.heading + turn


@dataclass(frozen=True)
class Actor:
    """Something in the street. It moves straight on along its heading, or stands.

    Attributes:
        name: detection class; None for clutter, which has no annotation.
        attribute: nuScenes' name; None where there is none.
        shape: what it is made of.
        x, y: where the middle of its ground is when the scene begins, metres, global frame.
        heading: radians, global frame.
        speed: m/s.
    """

    name: str | None
    attribute: str | None
    shape: Sculptor
    x: float
    y: float
    heading: float
    speed: float = 0.0

    def place(self, seconds: float) -> tuple[float, float]:
        """(x, y) so many seconds after the scene's begin."""
        way = self.speed * seconds
        return self.x + way * float(np.cos(self.heading)), self.y + way * float(np.sin(self.heading))


@dataclass(frozen=True)
class World:
    """The ego vehicle's way and all that stands or moves about; the ground is the plane z = 0."""

    drive: Drive
    actors: tuple[Actor, ...]


def draw_world(rng: np.random.Generator, *, duration: float, reach: float) -> World:
    """A random street. What finds no free ground in twenty tries is left out.

    Args:
        rng: where all randomness comes from.
        duration: of the scene, seconds.
        reach: everything comes that near to the ego vehicle at some moment, metres.
    """
    return _Planner(rng, duration, reach).plan()


class _Floor:
    """Remembers the taken ground as discs, for every moment at which it looks: (T, K, 3) [x, y, radius]."""

    def __init__(self, times: np.ndarray):
        self.discs = np.zeros((len(times), 0, 3))

    def take(self, discs: np.ndarray, gap: float) -> bool:
        """Takes the ground if it is free at all times, with ``gap`` metres to spare."""
        reach_x = self.discs[:, :, None, 0] - discs[:, None, :, 0]
        reach_y = self.discs[:, :, None, 1] - discs[:, None, :, 1]
        wanted = self.discs[:, :, None, 2] + discs[:, None, :, 2] + gap
        if np.any(reach_x**2 + reach_y**2 < wanted**2):
            return False
        self.discs = np.concatenate([self.discs, discs], axis=1)
        return True


class _Planner:
    def __init__(self, rng: np.random.Generator, duration: float, reach: float):
        self.rng, self.duration, self.reach = rng, duration, reach
        self.times = np.arange(0.0, duration + TIME_STEP, TIME_STEP)
        self.floor, self.actors = _Floor(self.times), []
        self.drive = self._drive()

    def plan(self) -> World:
        ego = [self._discs(EGO_LENGTH, EGO_WIDTH, *self.drive.pose(t)) for t in self.times]
        self.floor.take(np.stack(ego), 0.0)
        wanted = [(name, moves) for name, kind in CLASSES.items() for moves in self._who_moves(kind)]
        for name, moves in sorted(wanted, key=lambda one: not one[1]):  # moving ones first: they need free ways
            self._add_object(name, CLASSES[name], moves)
        for name, count in CLUTTER.items():
            for _ in range(self._count(count)):
                spot = self._spot_beside if name == "facade" else self._spot
                self._put(None, Look(clutter.BUILDERS[name]), spot, gap=0.15)
        return World(self.drive, tuple(self.actors))

    def _drive(self) -> Drive:
        x, y = self.rng.uniform(200.0, 2000.0, 2)
        heading, turn_rate = self.rng.uniform(-np.pi, np.pi), self.rng.uniform(-0.08, 0.08)
        speed = self.rng.uniform(2.0, 9.0) if self.rng.random() < 0.8 else 0.0
        return Drive(float(x), float(y), float(heading), float(speed), float(turn_rate) if speed else 0.0)

    def _count(self, span: tuple[int, int]) -> int:
        """How many: those around a standing vehicle, and the more the farther it sees and drives."""
        around = int(self.rng.integers(span[0], span[1] + 1))
        stretch = 1.0 + self.drive.speed * self.duration / (2 * self.reach)
        return int(np.floor(around * stretch * self.reach / WORLD_REACH + self.rng.random()))

    def _who_moves(self, kind: ObjectClass) -> list[bool]:
        return [bool(self.rng.random() < kind.share_moving) for _ in range(self._count(kind.count))]

    def _add_object(self, name: str, kind: ObjectClass, moves: bool) -> None:
        looks = kind.moving if moves else kind.standing
        look = looks[int(self.rng.integers(len(looks)))]
        speed = float(self.rng.uniform(*kind.speeds)) if moves else 0.0
        last = self._put(name, look, self._spot, speed=speed, gap=0.3)
        for _ in range(int(self.rng.integers(kind.row)) if last else 0):
            last = last and self._put_beside(last)

    def _heading(self, name: str | None, road: float) -> float:
        if name not in ("pedestrian", "traffic_cone") and self.rng.random() < ALONG_ROAD:
            return float(road + self.rng.normal(0.0, 0.06) + np.pi * self.rng.integers(2))
        return float(self.rng.uniform(-np.pi, np.pi))

    def _spot(self) -> tuple[float, float]:
        """(ahead, left) of the ego vehicle, anywhere within reach."""
        radius, angle = self.reach * np.sqrt(self.rng.random()), self.rng.uniform(-np.pi, np.pi)
        return float(radius * np.cos(angle)), float(radius * np.sin(angle))

    def _spot_beside(self) -> tuple[float, float]:
        """(ahead, left) of the ego vehicle, at the edge of the street."""
        side = 1.0 if self.rng.random() < 0.5 else -1.0
        return float(self.rng.uniform(-self.reach, self.reach)), float(side * self.rng.uniform(0.7, 1.1) * self.reach)

    def _put(self, name, look: Look, spot: Callable, *, gap: float, speed: float = 0.0) -> Actor | None:
        """Adds an actor that is at a spot drawn at some moment of the scene; None where no spot was free."""
        shape = look.build(self.rng)
        for _ in range(20):
            moment = float(self.rng.uniform(0.0, self.duration))
            ego_x, ego_y, road = self.drive.pose(moment)
            ahead, left = spot()
            heading = self._heading(name, road)
            x = ego_x + ahead * np.cos(road) - left * np.sin(road) - speed * moment * np.cos(heading)
            y = ego_y + ahead * np.sin(road) + left * np.cos(road) - speed * moment * np.sin(heading)
            actor = Actor(name, look.attribute, shape, float(x), float(y), heading, speed)
            if self._take(actor, gap):
                return actor
        return None

    def _put_beside(self, first: Actor) -> Actor | None:
        """Adds another like the first, close to its left side."""
        step = first.shape.width + 0.35
        x, y = first.x - step * np.sin(first.heading), first.y + step * np.cos(first.heading)
        actor = Actor(first.name, first.attribute, first.shape, float(x), float(y), first.heading)
        return actor if self._take(actor, 0.0) else None

    def _take(self, actor: Actor, gap: float) -> bool:
        shape = actor.shape
        ways = [self._discs(shape.length, shape.width, *actor.place(t), actor.heading) for t in self.times[:2]]
        step = ways[1] - ways[0]
        discs = ways[0] + step * np.arange(len(self.times))[:, None, None]
        free = self.floor.take(discs, gap)
        if free:
            self.actors.append(actor)
        return free

    @staticmethod
    def _discs(length: float, width: float, x: float, y: float, heading: float) -> np.ndarray:
        """(K, 3) discs over a footprint; one that is wider than long is covered across."""
        if width > length:
            return footprint(width, length, x, y, heading + 0.5 * np.pi)
        return footprint(length, width, x, y, heading)
