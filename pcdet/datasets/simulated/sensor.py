"""A spinning lidar: casts a scene on its beams and tells, of every body, how much of it is hidden."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pcdet.datasets.simulated.scene import Ground, Scene

NOTHING, GROUND = -2, -1  # what a ray hit when it hit no body
NOISE_CUT = 2.0  # standard deviations; keeps the points of a body inside its label box
GROUND_REFLECTIVITY = 0.25


def _beams() -> np.ndarray:
    """64 elevations in two blocks of 32, as on the HDL-64E, over what the KITTI camera sees (+2 to -15.5 degrees).

    The real sensor has 1/3 degree steps down to -8.3 and 1/2 degree steps down to -24.3 degrees, of which cropping to
    the camera's view throws the lowest 17 beams away.
    """
    return np.deg2rad(np.concatenate([np.linspace(2.0, -6.0, 32), np.linspace(-6.3, -15.5, 32)])[::-1])


@dataclass(frozen=True, kw_only=True)
class Lidar:
    """A sensor at the origin of the LiDAR frame.

    Attributes:
        elevations: (R,) radians, ascending.
        azimuths: (A,) radians, ascending, evenly spaced.
        max_range: metres.
        range_noise: standard deviation of the range, metres.
        dropout: share of pulses that never return from a plain surface.
    """

    elevations: np.ndarray = field(default_factory=_beams)
    azimuths: np.ndarray = field(default_factory=lambda: np.deg2rad(np.arange(-41.0, 41.01, 0.25)))
    max_range: float = 80.0
    range_noise: float = 0.02
    dropout: float = 0.03


class Hits(NamedTuple):
    """What the rays met, before any noise.

    Attributes:
        distance: (R, A) horizontal distance in metres, inf for nothing.
        owner: (R, A) index of the body, GROUND or NOTHING.
        part: (R, A) index of the primitive within its body.
        alone: (M,) rays that would meet each body if it stood alone on the ground.
        seen: (M,) rays that meet it in the scene.
    """

    distance: np.ndarray
    owner: np.ndarray
    part: np.ndarray
    alone: np.ndarray
    seen: np.ndarray


class Scan(NamedTuple):
    """A point cloud and where its points come from.

    Attributes:
        points: (N, 4) float32 [x, y, z, intensity], LiDAR frame, metres, intensity 0..1.
        owner: (N,) index of the body, or GROUND.
        ring: (N,) index of the beam, the lowest first.
        alone, seen: (M,) as in :class:`Hits`.
    """

    points: np.ndarray
    owner: np.ndarray
    ring: np.ndarray
    alone: np.ndarray
    seen: np.ndarray


def cast(scene: Scene, lidar: Lidar) -> Hits:
    """First surface on every ray.

    Each primitive is cast only inside its own window of rays, and each body first into a buffer of its own, which
    gives the number of rays it would fill alone without a second pass.
    """
    from pcdet.datasets.simulated.rays import cast_bodies  # imports numba, which only casting needs

    slope, limit = np.tan(lidar.elevations), lidar.max_range * np.cos(lidar.elevations)
    dx, dy = np.cos(lidar.azimuths), np.sin(lidar.azimuths)
    ground = _ground_distance(scene.ground, dx[None], dy[None], slope[:, None])
    distance = np.where(ground < limit[:, None], ground, np.inf)
    owner = np.where(np.isfinite(distance), GROUND, NOTHING)
    part = np.zeros(distance.shape, np.int64)
    first = np.cumsum([0, *(len(body.parts) for body in scene.bodies)])
    shapes = [primitive for body in scene.bodies for primitive in body.parts]
    is_round = np.array([primitive.round for primitive in shapes], bool)
    sizes = np.array([primitive[1:8] for primitive in shapes], np.float64).reshape(-1, 7)  # x to yaw
    solids, windows = _solids(sizes), _windows(sizes, lidar.azimuths, slope)
    alone = cast_bodies(is_round, solids, windows, first, dx, dy, slope, limit, ground, distance, owner, part)
    seen = np.bincount(owner[owner >= 0], minlength=len(scene.bodies))
    return Hits(distance, owner, part, alone, seen)


def _ground_distance(ground: Ground, dx, dy, slope) -> np.ndarray:
    """(R, A) horizontal distance to the ground plane, inf above the horizon."""
    fall = ground.slope_x * dx + ground.slope_y * dy - slope
    return np.where(fall > 1e-6, ground.height / np.maximum(fall, 1e-6), np.inf)


def _solids(sizes: np.ndarray) -> np.ndarray:
    """(P, 8) as ``rays.cast_bodies`` wants them, from (P, 7) [x, y, z_lo, z_hi, half_length, half_width, yaw]."""
    x, y, z_lo, z_hi, half_length, half_width, yaw = sizes.T
    middle, half_height = 0.5 * (z_lo + z_hi), 0.5 * (z_hi - z_lo)
    return np.stack([x, y, np.cos(yaw), np.sin(yaw), half_length, half_width, middle, half_height], axis=1)


def _windows(sizes: np.ndarray, azimuths: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """(P, 4) [top, bottom, left, right] of the rays that can meet each primitive; bottom and right are excluded."""
    x, y, z_lo, z_hi, half_length, half_width, _ = sizes.T
    reach, centre = np.hypot(half_length, half_width), np.hypot(x, y)
    near, far = np.maximum(centre - reach, 1e-3), centre + reach
    top = np.searchsorted(slope, np.minimum(z_lo / near, z_lo / far))
    bottom = np.searchsorted(slope, np.maximum(z_hi / near, z_hi / far), side="right")
    azimuth, half = np.arctan2(y, x), np.arcsin(reach / np.maximum(centre, reach))
    # Where the sensor may be inside the outline any azimuth can meet it, and a window does not go around behind it.
    around = (centre <= reach) | (np.abs(azimuth) + half >= np.pi)
    left = np.where(around, 0, np.searchsorted(azimuths, azimuth - half))
    right = np.where(around, len(azimuths), np.searchsorted(azimuths, azimuth + half))
    return np.stack([top, bottom, left, right], axis=1)


def scan(scene: Scene, lidar: Lidar, rng: np.random.Generator) -> Scan:
    """A noisy point cloud of the scene.

    Args:
        scene: what there is.
        lidar: the sensor.
        rng: range noise, dropout and intensity; the number of draws does not depend on the scene.

    Returns:
        See :class:`Scan`; points are in ring order, azimuth ascending within a ring.
    """
    hits = cast(scene, lidar)
    noise = np.clip(rng.standard_normal(hits.distance.shape), -NOISE_CUT, NOISE_CUT)
    chance, speckle = rng.random(hits.distance.shape), rng.standard_normal(hits.distance.shape)
    reflectivity, roughness, dropout = _surface(scene, hits)
    rows, cols = np.nonzero((hits.owner != NOTHING) & (chance >= lidar.dropout + dropout))
    cos_el, sin_el = np.cos(lidar.elevations[rows]), np.sin(lidar.elevations[rows])
    true_range = hits.distance[rows, cols] / cos_el
    measured = true_range + noise[rows, cols] * (lidar.range_noise + roughness[rows, cols])
    flat = measured * cos_el
    fade = 1.0 - 0.3 * true_range / lidar.max_range
    intensity = np.clip(reflectivity[rows, cols] * fade * (1.0 + 0.25 * speckle[rows, cols]), 0.0, 0.99)
    x, y = flat * np.cos(lidar.azimuths[cols]), flat * np.sin(lidar.azimuths[cols])
    points = np.stack([x, y, measured * sin_el, np.round(intensity, 2)], axis=1)
    return Scan(points.astype(np.float32), hits.owner[rows, cols], rows, hits.alone, hits.seen)


def _surface(scene: Scene, hits: Hits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(R, A) reflectivity, roughness and dropout of what each ray met."""
    table = [(GROUND_REFLECTIVITY, 0.0, 0.0)]
    first = []  # row of a body's first part in the table
    for body in scene.bodies:
        first.append(len(table))
        table += [primitive.material[:3] for primitive in body.parts]
    on_body = hits.owner >= 0
    row = np.zeros(hits.owner.shape, np.int64)
    row[on_body] = np.asarray(first, np.int64)[hits.owner[on_body]] + hits.part[on_body]
    values = np.asarray(table)[row]
    return values[..., 0], values[..., 1], values[..., 2]
