"""What the lidar on the roof of the ego vehicle sees of the world at one moment, in its own frame.

nuScenes' sensor frame is x right, y forward, z up. The vehicle's is x forward, y left, z up on the ground, and the
casting happens in a third: the sensor's, turned to x forward. All three are level, as the street is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pcdet.datasets.simulated.nuscenes.world import Actor, World
from pcdet.datasets.simulated.scene import Ground, Scene
from pcdet.datasets.simulated.sensor import Lidar, scan

MOUNT = (0.94, 0.0, 1.84)  # metres, the sensor in the vehicle's frame
MOUNT_YAW = float(np.deg2rad(-90.0 + 0.6))  # the sensor's frame in the vehicle's: no mounting is exact
MAX_RANGE = 100.0  # metres
BEAMS = np.deg2rad(np.linspace(-30.67, 10.67, 32))  # as on nuScenes' sensor
FARTHEST_SIZE = 15.0  # metres; no shape reaches that far from its middle


class Sweep(NamedTuple):
    """One turn of the sensor.

    Attributes:
        points: (N, 5) float32 [x, y, z, intensity, ring], sensor frame, metres, intensity 0..255 in whole numbers.
        seen: (M,) share of the rays that an actor would fill alone and that meet it; 0 for one out of range.
    """

    points: np.ndarray
    seen: np.ndarray


def lidar_with(azimuths: int) -> Lidar:
    """The sensor, with so many rays of each beam in a turn."""
    turn = (np.arange(azimuths) + 0.5) * (2 * np.pi / azimuths) - np.pi
    return Lidar(elevations=BEAMS, azimuths=turn, max_range=MAX_RANGE)


def sensor_pose(ego: tuple[float, float, float]) -> tuple[float, float, float]:
    """(x, y, yaw) of nuScenes' sensor frame in the global one, from the vehicle's."""
    x, y, heading = ego
    cos, sin = np.cos(heading), np.sin(heading)
    return x + cos * MOUNT[0] - sin * MOUNT[1], y + sin * MOUNT[0] + cos * MOUNT[1], heading + MOUNT_YAW


def take_sweep(world: World, seconds: float, lidar: Lidar, rng: np.random.Generator) -> Sweep:
    """The sweep at a moment: everything stands still while the sensor turns.

    Args:
        world: what there is.
        seconds: since the scene's begin.
        lidar: see :func:`lidar_with`.
        rng: for noise, dropout and intensity.
    """
    pose = sensor_pose(world.drive.pose(seconds))
    bodies, which = [], []
    for index, actor in enumerate(world.actors):
        ahead, left, heading = _seen_from(pose, actor, seconds)
        if np.hypot(ahead, left) < lidar.max_range + FARTHEST_SIZE:
            bodies.append(actor.shape.place(actor.name, ahead, left, -MOUNT[2], heading))
            which.append(index)
    result = scan(Scene(Ground(MOUNT[2]), tuple(bodies)), lidar, rng)
    seen = np.zeros(len(world.actors))
    seen[which] = result.seen / np.maximum(result.alone, 1)
    x, y, z, intensity = result.points.T
    points = np.stack([-y, x, z, np.round(intensity * 255.0), result.ring], axis=1).astype(np.float32)
    return Sweep(points, seen)


def _seen_from(pose: tuple[float, float, float], actor: Actor, seconds: float) -> tuple[float, float, float]:
    """(ahead, left, heading) of an actor in the sensor's frame after its turn to x forward."""
    forward = pose[2] + 0.5 * np.pi
    x, y = actor.place(seconds)
    cos, sin = np.cos(forward), np.sin(forward)
    east, north = x - pose[0], y - pose[1]
    return float(cos * east + sin * north), float(cos * north - sin * east), float(actor.heading - forward)


def points_in_boxes(points: np.ndarray, ego: tuple[float, float, float], boxes: Sequence[np.ndarray]) -> list[int]:
    """How many points lie in each box; its surface counts.

    Args:
        points: (N, 5) as in :class:`Sweep`.
        ego: (x, y, heading) of the vehicle when they were taken.
        boxes: (7,) [x, y, z, dx, dy, dz, heading], global frame, z at the centre.
    """
    pose = sensor_pose(ego)
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    x, y = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
    x, y, z = pose[0] + cos * x - sin * y, pose[1] + sin * x + cos * y, points[:, 2].astype(np.float64) + MOUNT[2]
    counts = []
    for box in boxes:
        cos, sin = np.cos(box[6]), np.sin(box[6])
        along, across = cos * (x - box[0]) + sin * (y - box[1]), cos * (y - box[1]) - sin * (x - box[0])
        inside = (np.abs(along) <= 0.5 * box[3]) & (np.abs(across) <= 0.5 * box[4])
        counts.append(int((inside & (np.abs(z - box[2]) <= 0.5 * box[5])).sum()))
    return counts
