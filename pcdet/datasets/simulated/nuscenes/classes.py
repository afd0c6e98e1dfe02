"""The ten detection classes: how many there are, what they look like, how fast they move and what they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pcdet.datasets.simulated import objects
from pcdet.datasets.simulated.nuscenes import shapes
from pcdet.datasets.simulated.scene import Sculptor


@dataclass(frozen=True)
class Look:
    """A shape and the attribute of an object that has it; None where nuScenes knows no attribute."""

    build: Callable[[np.random.Generator], Sculptor]
    attribute: str | None = None


@dataclass(frozen=True, kw_only=True)
class ObjectClass:
    """How objects of a class come about.

    Attributes:
        category: nuScenes' name, as in the table ``category``.
        count: least and largest number around a vehicle that stands still, within ``WORLD_REACH`` metres.
        standing: looks of those that stand; one is drawn.
        moving: looks of those that move.
        share_moving: of all.
        speeds: least and largest, m/s.
        row: so many stand side by side at the most.
    """

    category: str
    count: tuple[int, int]
    standing: tuple[Look, ...]
    moving: tuple[Look, ...] = ()
    share_moving: float = 0.0
    speeds: tuple[float, float] = (0.0, 0.0)
    row: int = 1


WORLD_REACH = 25.0  # metres, for which the counts hold


def _vehicle(category, count, share_moving, *builders) -> ObjectClass:
    standing = tuple(Look(build, f"vehicle.{what}") for build in builders for what in ("parked", "parked", "stopped"))
    moving = tuple(Look(build, "vehicle.moving") for build in builders)
    return ObjectClass(
        category=category,
        count=count,
        standing=standing,
        moving=moving,
        share_moving=share_moving,
        speeds=(2.0, 9.0),
    )


def _cycle(category, count, speeds, rider, empty) -> ObjectClass:
    standing = (Look(empty, "cycle.without_rider"), Look(rider, "cycle.with_rider"))
    moving = (Look(rider, "cycle.with_rider"),)
    return ObjectClass(
        category=category, count=count, standing=standing, moving=moving, share_moving=0.55, speeds=speeds
    )


CLASSES = {
    "car": _vehicle("vehicle.car", (6, 9), 0.4, objects.car, objects.car, objects.van),
    "truck": _vehicle("vehicle.truck", (1, 2), 0.4, objects.truck),
    "construction_vehicle": _vehicle("vehicle.construction", (0, 2), 0.2, shapes.construction_vehicle),
    "bus": _vehicle("vehicle.bus.rigid", (0, 2), 0.5, shapes.bus),
    "trailer": _vehicle("vehicle.trailer", (0, 2), 0.3, shapes.trailer),
    "barrier": ObjectClass(category="movable_object.barrier", count=(1, 2), standing=(Look(shapes.barrier),), row=4),
    "motorcycle": _cycle("vehicle.motorcycle", (2, 4), (2.0, 8.0), shapes.motorcyclist, shapes.motorcycle),
    "bicycle": _cycle("vehicle.bicycle", (2, 4), (1.5, 5.0), objects.cyclist, shapes.parked_bicycle),
    "pedestrian": ObjectClass(
        category="human.pedestrian.adult",
        count=(5, 9),
        standing=(
            Look(objects.pedestrian, "pedestrian.standing"),
            Look(objects.pedestrian, "pedestrian.standing"),
            Look(shapes.sitting_pedestrian, "pedestrian.sitting_lying_down"),
        ),
        moving=(Look(objects.pedestrian, "pedestrian.moving"),),
        share_moving=0.65,
        speeds=(0.6, 1.8),
    ),
    "traffic_cone": ObjectClass(
        category="movable_object.trafficcone", count=(4, 7), standing=(Look(shapes.traffic_cone),)
    ),
}
