"""Upright boxes and elliptic cylinders that rays can be cast at.

Both shapes are the unit square or the unit circle after an affine map of the ground plane, times an interval of
heights. A ray is therefore tested in the plane and in height separately, and broadcasting does the rest: a lidar hands
over one row of azimuths and one column of elevations, a camera a full picture of directions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

PARALLEL = 1e-12  # stands in for a zero direction component: the slab is then met at +-infinity, without a warning


class Material(NamedTuple):
    """How a surface answers a laser pulse and what it looks like.

    Attributes:
        reflectivity: mean intensity of a return, 0..1.
        roughness: extra standard deviation of the range in metres (foliage).
        dropout: share of pulses that never come back (glass, foliage), 0..1.
        rgb: colour in the rendered image, 0..255.
    """

    reflectivity: float = 0.3
    roughness: float = 0.0
    dropout: float = 0.0
    rgb: tuple[int, int, int] = (140, 140, 140)


class Primitive(NamedTuple):
    """An upright box or elliptic cylinder, LiDAR frame, metres and radians.

    Attributes:
        round: True for the cylinder.
        x, y: centre on the ground plane.
        z_lo, z_hi: bottom and top.
        half_length, half_width: half axes along ``yaw`` and across it.
        yaw: counter-clockwise from +x.
        material: see :class:`Material`.
    """

    round: bool
    x: float
    y: float
    z_lo: float
    z_hi: float
    half_length: float
    half_width: float
    yaw: float
    material: Material


def intersect(primitive: Primitive, origin, dx: np.ndarray, dy: np.ndarray, dz: np.ndarray) -> np.ndarray:
    """Ray parameter of the first hit, +inf where a ray misses.

    Args:
        primitive: the shape.
        origin: (3,) where all rays start, outside the shape.
        dx: direction components along x; the three broadcast with one another, and no direction may be zero.
        dy: along y.
        dz: along z.

    Returns:
        ``t`` with origin + t * direction on the surface, in the broadcast shape.
    """
    cos, sin = np.cos(primitive.yaw), np.sin(primitive.yaw)
    rel_x, rel_y = origin[0] - primitive.x, origin[1] - primitive.y
    ox = (cos * rel_x + sin * rel_y) / primitive.half_length
    oy = (cos * rel_y - sin * rel_x) / primitive.half_width
    ux = (cos * dx + sin * dy) / primitive.half_length
    uy = (cos * dy - sin * dx) / primitive.half_width
    t_in, t_out = _unit_circle(ox, oy, ux, uy) if primitive.round else _unit_square(ox, oy, ux, uy)
    middle, half_height = 0.5 * (primitive.z_lo + primitive.z_hi), 0.5 * (primitive.z_hi - primitive.z_lo)
    z_in, z_out = _slab(origin[2] - middle, dz, half_height)
    t_in = np.maximum(t_in, z_in)
    return np.where((t_in <= np.minimum(t_out, z_out)) & (t_in > 0.0), t_in, np.inf)


def _slab(o, d, half):
    d = np.where(np.abs(d) < PARALLEL, PARALLEL, d)
    a, b = (-half - o) / d, (half - o) / d
    return np.minimum(a, b), np.maximum(a, b)


def _unit_square(ox, oy, ux, uy):
    x_in, x_out = _slab(ox, ux, 1.0)
    y_in, y_out = _slab(oy, uy, 1.0)
    return np.maximum(x_in, y_in), np.minimum(x_out, y_out)


def _unit_circle(ox, oy, ux, uy):
    a = np.maximum(ux * ux + uy * uy, PARALLEL)
    b = ox * ux + oy * uy
    disc = b * b - a * (ox * ox + oy * oy - 1.0)
    root = np.sqrt(np.maximum(disc, 0.0))
    return np.where(disc < 0.0, np.inf, (-b - root) / a), np.where(disc < 0.0, -np.inf, (-b + root) / a)


def normals(primitive: Primitive, points: np.ndarray) -> np.ndarray:
    """Outward unit normals at points on the surface.

    Args:
        primitive: the shape.
        points: (N, 3) on its surface, LiDAR frame.

    Returns:
        (N, 3).
    """
    cos, sin = np.cos(primitive.yaw), np.sin(primitive.yaw)
    rel_x, rel_y = points[:, 0] - primitive.x, points[:, 1] - primitive.y
    ux = (cos * rel_x + sin * rel_y) / primitive.half_length
    uy = (cos * rel_y - sin * rel_x) / primitive.half_width
    if primitive.round:
        nx, ny = ux / primitive.half_length, uy / primitive.half_width
    else:
        along = np.abs(ux) >= np.abs(uy)
        nx, ny = np.where(along, np.sign(ux), 0.0), np.where(along, 0.0, np.sign(uy))
    flat = np.stack([cos * nx - sin * ny, sin * nx + cos * ny, np.zeros_like(nx)], axis=1)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), PARALLEL)
    rim = np.hypot(ux, uy) if primitive.round else np.maximum(np.abs(ux), np.abs(uy))
    on_cap = rim < 1.0 - 1e-6  # a point inside the outline can only lie on the top or on the bottom
    middle = 0.5 * (primitive.z_lo + primitive.z_hi)
    flat[on_cap] = 0.0
    flat[on_cap, 2] = np.sign(points[on_cap, 2] - middle)
    return flat
