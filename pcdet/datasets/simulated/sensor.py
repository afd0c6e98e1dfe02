"""A spinning lidar: casts a scene on its beams and tells, of every body, how much of it is hidden."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pcdet.datasets.simulated.primitives import Primitive, intersect
from pcdet.datasets.simulated.scene import Body, Ground, Scene

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
        alone, seen: (M,) as in :class:`Hits`.
    """

    points: np.ndarray
    owner: np.ndarray
    alone: np.ndarray
    seen: np.ndarray


def cast(scene: Scene, lidar: Lidar) -> Hits:
    """First surface on every ray.

    Each primitive is cast only inside its own window of rays, and each body first into a buffer of its own, which
    gives the number of rays it would fill alone without a second pass.
    """
    slope = np.tan(lidar.elevations)[:, None]
    dx, dy = np.cos(lidar.azimuths)[None], np.sin(lidar.azimuths)[None]
    ground = _ground_distance(scene.ground, dx, dy, slope)
    limit = lidar.max_range * np.cos(lidar.elevations)[:, None]
    distance = np.where(ground < limit, ground, np.inf)
    owner = np.where(np.isfinite(distance), GROUND, NOTHING)
    part = np.zeros(distance.shape, np.int64)
    alone = np.zeros(len(scene.bodies), np.int64)
    background = np.minimum(ground, limit)
    for index, body in enumerate(scene.bodies):
        window, near, which = _cast_body(body, lidar, dx, dy, slope)
        if near.size == 0:
            continue
        alone[index] = np.count_nonzero(near < background[window])
        closer = near < np.minimum(distance[window], limit[window[0]])
        distance[window] = np.where(closer, near, distance[window])
        owner[window] = np.where(closer, index, owner[window])
        part[window] = np.where(closer, which, part[window])
    seen = np.bincount(owner[owner >= 0], minlength=len(scene.bodies))
    return Hits(distance, owner, part, alone, seen)


def _ground_distance(ground: Ground, dx, dy, slope) -> np.ndarray:
    """(R, A) horizontal distance to the ground plane, inf above the horizon."""
    fall = ground.slope_x * dx + ground.slope_y * dy - slope
    return np.where(fall > 1e-6, ground.height / np.maximum(fall, 1e-6), np.inf)


def _cast_body(body: Body, lidar: Lidar, dx, dy, slope):
    windows = [_window(primitive, lidar, slope[:, 0]) for primitive in body.parts]
    rows = slice(min(w[0].start for w in windows), max(w[0].stop for w in windows))
    cols = slice(min(w[1].start for w in windows), max(w[1].stop for w in windows))
    near = np.full((max(rows.stop - rows.start, 0), max(cols.stop - cols.start, 0)), np.inf)
    which = np.zeros(near.shape, np.int64)
    for number, (primitive, (r, c)) in enumerate(zip(body.parts, windows, strict=True)):
        if r.stop <= r.start or c.stop <= c.start:
            continue
        hit = intersect(primitive, (0.0, 0.0, 0.0), dx[:, c], dy[:, c], slope[r])
        inner = (slice(r.start - rows.start, r.stop - rows.start), slice(c.start - cols.start, c.stop - cols.start))
        closer = hit < near[inner]
        near[inner] = np.where(closer, hit, near[inner])
        which[inner] = np.where(closer, number, which[inner])
    return (rows, cols), near, which


def _window(primitive: Primitive, lidar: Lidar, slope: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the rays that can meet a primitive."""
    reach = np.hypot(primitive.half_length, primitive.half_width)
    centre = np.hypot(primitive.x, primitive.y)
    near, far = max(centre - reach, 1e-3), centre + reach
    low, high = min(primitive.z_lo / near, primitive.z_lo / far), max(primitive.z_hi / near, primitive.z_hi / far)
    rows = slice(int(np.searchsorted(slope, low)), int(np.searchsorted(slope, high, side="right")))
    if centre <= reach:
        return rows, slice(0, len(lidar.azimuths))
    azimuth, half = np.arctan2(primitive.y, primitive.x), np.arcsin(reach / centre)
    left, right = np.searchsorted(lidar.azimuths, [azimuth - half, azimuth + half])
    return rows, slice(int(left), int(right))


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
    return Scan(points.astype(np.float32), hits.owner[rows, cols], hits.alone, hits.seen)


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
