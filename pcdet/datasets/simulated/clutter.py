"""Things without a label: what stands about in a street, and what a small network takes for a road user."""

from __future__ import annotations

import numpy as np

from pcdet.datasets.simulated.objects import PAINTS, _material, bicycle
from pcdet.datasets.simulated.scene import Material, Sculptor

WOOD = Material(0.2, 0.01, 0.05, (95, 75, 55))
WALLS = ((170, 160, 145), (150, 95, 75), (185, 185, 180), (120, 120, 125))


def _leaves(rng: np.random.Generator) -> Material:
    return Material(float(rng.uniform(0.1, 0.4)), 0.06, 0.25, (50, int(rng.integers(85, 130)), 45))


def pole(rng: np.random.Generator) -> Sculptor:
    """A lamp post or sign post, some with a sign on top."""
    radius, height = rng.uniform(0.05, 0.14), rng.uniform(2.2, 6.0)
    metal = _material(rng, 0.2, 0.6, WALLS)
    shape = Sculptor(2 * radius, 2 * radius, height)
    shape.cylinder(0.0, 0.0, (0.0, height), radius, radius, metal)
    if rng.random() < 0.4:
        shape.box(0.0, 0.0, (height - 0.7, height), 0.04, 0.3, Material(0.9, rgb=(220, 220, 225)))
    return shape


def post(rng: np.random.Generator) -> Sculptor:
    """Person-sized: a bollard, bin, hydrant or ticket machine, of one to three stacked drums or boxes."""
    height = rng.uniform(1.1, 2.0)
    width = rng.uniform(0.14, 0.32)
    shape = Sculptor(2 * width, 2 * width, height)
    levels = np.linspace(0.0, height, int(rng.integers(1, 4)) + 1)
    for low, high in zip(levels[:-1], levels[1:], strict=True):
        half = width * rng.uniform(0.55, 1.0)
        add = shape.cylinder if rng.random() < 0.6 else shape.box
        add(0.0, 0.0, (low, high), half, width * rng.uniform(0.6, 1.0), _material(rng, 0.08, 0.6, WALLS))
    return shape


def bush(rng: np.random.Generator) -> Sculptor:
    """A handful of ragged drums, between a person and a car in size."""
    size, height = rng.uniform(0.35, 1.3), rng.uniform(0.8, 1.9)
    shape = Sculptor(2 * size, 2 * size, height)
    leaves = _leaves(rng)
    for _ in range(int(rng.integers(3, 6))):
        forward, left = rng.uniform(-0.5, 0.5, 2) * size
        top = height * rng.uniform(0.6, 1.0)
        shape.cylinder(forward, left, (0.0, top), size * rng.uniform(0.3, 0.55), size * rng.uniform(0.3, 0.55), leaves)
    return shape


def tree(rng: np.random.Generator) -> Sculptor:
    """A trunk and a crown that starts above head height."""
    radius, crown = rng.uniform(0.12, 0.28), rng.uniform(0.9, 1.9)
    shape = Sculptor(4 * radius, 4 * radius, 5.0)
    shape.cylinder(0.0, 0.0, (0.0, 3.0), radius, radius, WOOD)
    shape.cylinder(0.0, 0.0, (rng.uniform(1.9, 2.6), 5.0), crown, crown, _leaves(rng))
    return shape


def crate(rng: np.random.Generator) -> Sculptor:
    """Car-sized: a skip, trailer or stack, one box, or a box with a centred lid, without a front or a back."""
    shape = Sculptor(rng.uniform(2.8, 4.8), rng.uniform(1.3, 2.0), rng.uniform(0.9, 1.9))
    paint = _material(rng, 0.08, 0.6, PAINTS)
    half_l, half_w = 0.5 * shape.length, 0.5 * shape.width
    if rng.random() < 0.5:
        shape.box(0.0, 0.0, (rng.uniform(0.0, 0.25), shape.height), half_l, half_w, paint)
    else:
        lid = rng.uniform(0.45, 0.75) * shape.height
        shape.box(0.0, 0.0, (0.15, lid), half_l, half_w, paint)
        shape.box(0.0, 0.0, (lid, shape.height), half_l * rng.uniform(0.7, 0.95), half_w * 0.9, paint)
    return shape


def parked_bicycle(rng: np.random.Generator) -> Sculptor:
    """A cyclist without the rider."""
    return bicycle(rng, Sculptor(rng.uniform(1.55, 1.9), rng.uniform(0.5, 0.7), 1.05))


def low_wall(rng: np.random.Generator) -> Sculptor:
    """A garden wall, hedge or fence that hides the lower part of what stands behind it."""
    shape = Sculptor(rng.uniform(1.5, 6.0), 0.3, rng.uniform(0.6, 1.3))
    material = _leaves(rng) if rng.random() < 0.4 else _material(rng, 0.15, 0.5, WALLS)
    shape.box(0.0, 0.0, (0.0, shape.height), 0.5 * shape.length, 0.15, material)
    return shape


def facade(rng: np.random.Generator) -> Sculptor:
    """The front of a house."""
    shape = Sculptor(rng.uniform(7.0, 18.0), 1.0, rng.uniform(3.5, 7.0))
    shape.box(0.0, 0.0, (0.0, shape.height), 0.5 * shape.length, 0.5, _material(rng, 0.2, 0.5, WALLS))
    return shape


BUILDERS = {
    "pole": pole,
    "post": post,
    "bush": bush,
    "tree": tree,
    "crate": crate,
    "parked_bicycle": parked_bicycle,
    "low_wall": low_wall,
    "facade": facade,
}
