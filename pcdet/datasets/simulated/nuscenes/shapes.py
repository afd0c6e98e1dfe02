"""Shapes of nuScenes' classes that KITTI has none of. As in ``objects``, parts stay ``MARGIN`` inside the label box.

Sizes are near the means of the nuScenes labels; buses and trailers are at the short end, so that a small scene holds
them.
"""

from __future__ import annotations

import numpy as np

from pcdet.datasets.simulated.objects import (
    CLOTHES,
    GLASS,
    MARGIN,
    PAINTS,
    RUBBER,
    SKIN,
    _material,
    _normal,
    bicycle,
)
from pcdet.datasets.simulated.scene import Material, Sculptor

ORANGE = Material(0.7, rgb=(230, 110, 30))
STEEL = Material(0.3, rgb=(110, 112, 115))


def bus(rng: np.random.Generator) -> Sculptor:
    """One long body with a band of windows, and a low nose."""
    shape = Sculptor(_normal(rng, 9.8, 0.8), _normal(rng, 2.8, 0.08), _normal(rng, 3.3, 0.15))
    paint, glass = _material(rng, 0.15, 0.6, PAINTS), Material(0.1, dropout=0.35, rgb=GLASS)
    half_l, half_w, top = 0.5 * shape.length - MARGIN, 0.5 * shape.width - MARGIN, shape.height - MARGIN
    sill, lintel = 0.4 * top, 0.75 * top
    shape.box(0.0, 0.0, (0.3, sill), half_l, half_w, paint)
    shape.box(-0.2, 0.0, (sill, lintel), half_l - 0.2, half_w - 0.03, glass)
    shape.box(-0.3, 0.0, (lintel, top), half_l - 0.3, half_w, paint)
    return shape


def trailer(rng: np.random.Generator) -> Sculptor:
    """A cargo box on a chassis, with wheels at the rear and a drawbar in front."""
    shape = Sculptor(_normal(rng, 8.6, 0.9), _normal(rng, 2.7, 0.1), _normal(rng, 3.5, 0.2))
    cargo = _material(rng, 0.25, 0.6, PAINTS)
    half_l, half_w, top = 0.5 * shape.length - MARGIN, 0.5 * shape.width - MARGIN, shape.height - MARGIN
    shape.box(-0.5, 0.0, (1.1, top), half_l - 0.5, half_w, cargo)
    shape.box(0.0, 0.0, (0.8, 1.1), half_l, 0.4, STEEL)
    for axle in (0.35, 1.55):
        shape.box(-half_l + axle + 0.35, 0.0, (0.0, 0.9), 0.45, half_w - 0.1, RUBBER)
    return shape


def construction_vehicle(rng: np.random.Generator) -> Sculptor:
    """Tracks, a cab at the rear and a boom with a bucket in front."""
    shape = Sculptor(_normal(rng, 6.2, 0.5), _normal(rng, 2.7, 0.12), _normal(rng, 3.1, 0.15))
    half_l, half_w, top = 0.5 * shape.length - MARGIN, 0.5 * shape.width - MARGIN, shape.height - MARGIN
    for side in (1.0, -1.0):
        shape.box(-0.25 * shape.length, side * (half_w - 0.25), (0.0, 0.8), 0.25 * shape.length - MARGIN, 0.25, RUBBER)
    shape.box(-0.25 * shape.length, 0.0, (0.8, 0.6 * top), 0.25 * shape.length - MARGIN, half_w - 0.1, ORANGE)
    shape.box(-0.2 * shape.length, 0.35 * half_w, (0.6 * top, top), 0.8, 0.5 * half_w, ORANGE)
    boom = 0.25 * shape.length - 0.3
    shape.box(boom, 0.0, (0.55 * top, 0.75 * top), half_l - boom, 0.2, ORANGE)
    shape.box(half_l - 0.35, 0.0, (0.05, 0.75 * top), 0.35, 0.6, STEEL)
    return shape


def _motorcycle(rng: np.random.Generator, height: float) -> Sculptor:
    shape = Sculptor(_normal(rng, 2.05, 0.12), _normal(rng, 0.76, 0.06), height)
    paint, wheel = _material(rng, 0.15, 0.5, PAINTS), 0.32
    axle, half_w = 0.5 * shape.length - MARGIN - wheel, 0.5 * shape.width - MARGIN
    for side in (1.0, -1.0):
        shape.box(side * axle, 0.0, (0.02, 2 * wheel), wheel, 0.08, RUBBER)
    shape.box(0.0, 0.0, (0.3, 0.85), 0.6 * axle, 0.18, paint)
    shape.box(axle - 0.15, 0.0, (0.7, 1.05), 0.08, half_w, paint)
    return shape


def motorcycle(rng: np.random.Generator) -> Sculptor:
    """Without a rider: two thick wheels, an engine with a tank, a handlebar."""
    return _motorcycle(rng, 1.15)


def motorcyclist(rng: np.random.Generator) -> Sculptor:
    """A motorcycle and its rider, upright behind the tank."""
    shape = _motorcycle(rng, _normal(rng, 1.62, 0.06))
    coat, top = _material(rng, 0.1, 0.6, CLOTHES), shape.height - MARGIN
    for side in (1.0, -1.0):
        shape.cylinder(0.05, side * 0.17, (0.25, 0.9), 0.16, 0.09, coat)
    shape.cylinder(-0.2, 0.0, (0.8, top - 0.25), 0.17, 0.24, coat)
    shape.cylinder(-0.15, 0.0, (top - 0.25, top), 0.13, 0.12, SKIN)
    return shape


def parked_bicycle(rng: np.random.Generator) -> Sculptor:
    """A bicycle without its rider."""
    return bicycle(rng, Sculptor(_normal(rng, 1.72, 0.08), _normal(rng, 0.6, 0.05), 1.1))


def sitting_pedestrian(rng: np.random.Generator) -> Sculptor:
    """Someone on the ground: legs ahead, a torso and a head."""
    shape = Sculptor(_normal(rng, 0.95, 0.06), _normal(rng, 0.66, 0.06), _normal(rng, 1.05, 0.07))
    coat, half_l, half_w = _material(rng, 0.1, 0.6, CLOTHES), 0.5 * shape.length - MARGIN, 0.5 * shape.width - MARGIN
    shape.box(0.1, 0.0, (0.0, 0.25), half_l - 0.1, 0.8 * half_w, coat)
    shape.cylinder(-half_l + 0.16, 0.0, (0.2, 0.72 * shape.height), 0.15, half_w, coat)
    shape.cylinder(-half_l + 0.2, 0.0, (0.72 * shape.height, shape.height - MARGIN), 0.11, 0.09, SKIN)
    return shape


def barrier(rng: np.random.Generator) -> Sculptor:
    """A wall element on a wider foot. Its length, as nuScenes has it, is the short side."""
    shape = Sculptor(_normal(rng, 0.52, 0.04), _normal(rng, 2.3, 0.2), _normal(rng, 1.0, 0.05))
    half_l, half_w = 0.5 * shape.length - MARGIN, 0.5 * shape.width - MARGIN
    material = _material(rng, 0.3, 0.8, ((200, 200, 195), (230, 110, 30)))
    shape.box(0.0, 0.0, (0.0, 0.3), half_l, half_w, material)
    shape.box(0.0, 0.0, (0.3, shape.height - MARGIN), 0.5 * half_l, half_w, material)
    return shape


def traffic_cone(rng: np.random.Generator) -> Sculptor:
    """A flat foot and three drums, each narrower than the one below."""
    shape = Sculptor(_normal(rng, 0.46, 0.03), _normal(rng, 0.46, 0.03), _normal(rng, 0.95, 0.1))
    half, top = 0.5 * min(shape.length, shape.width) - MARGIN, shape.height - MARGIN
    shape.box(0.0, 0.0, (0.0, 0.06), half, half, RUBBER)
    for number, share in enumerate((0.8, 0.55, 0.3)):
        low, high = 0.06 + number * (top - 0.06) / 3, 0.06 + (number + 1) * (top - 0.06) / 3
        shape.cylinder(0.0, 0.0, (low, high), share * half, share * half, ORANGE)
    return shape
