"""Shapes of the labelled road users: what they are made of and how much they vary.

Every part stays ``MARGIN`` inside its label box, as a human annotator leaves it, so that range noise does not carry
points out of the box. Sizes follow the means and spreads of the KITTI labels.
"""

from __future__ import annotations

import numpy as np

from pcdet.datasets.simulated.scene import Material, Sculptor

MARGIN = 0.05  # metres between a surface and its label box; the range noise is cut at 0.04 m
PAINTS = ((170, 30, 30), (40, 60, 150), (200, 200, 205), (60, 62, 66), (25, 25, 28), (120, 130, 120))
CLOTHES = ((150, 60, 50), (50, 80, 140), (70, 70, 75), (160, 150, 60), (60, 110, 70), (190, 190, 190))
RUBBER = Material(0.12, rgb=(30, 30, 30))
SKIN = Material(0.35, rgb=(205, 165, 140))
GLASS = (60, 75, 90)


def _normal(rng: np.random.Generator, mean: float, std: float) -> float:
    """A normal number cut at two standard deviations."""
    return mean + std * float(np.clip(rng.standard_normal(), -2.0, 2.0))


def _material(rng: np.random.Generator, low: float, high: float, palette) -> Material:
    return Material(float(rng.uniform(low, high)), rgb=palette[int(rng.integers(len(palette)))])


def car(rng: np.random.Generator) -> Sculptor:
    """A body and a cabin set back on it: the bonnet is always longer than the boot, so direction can be learnt."""
    shape = Sculptor(_normal(rng, 3.9, 0.32), _normal(rng, 1.63, 0.09), _normal(rng, 1.53, 0.09))
    paint = _material(rng, 0.08, 0.6, PAINTS)
    glass = Material(0.1, dropout=0.35, rgb=GLASS)
    half_l, half_w, top = 0.5 * shape.length - MARGIN, 0.5 * shape.width - MARGIN, shape.height - MARGIN
    belt = rng.uniform(0.54, 0.62) * shape.height
    boot, cabin = rng.uniform(0.03, 0.15) * shape.length, rng.uniform(0.46, 0.56) * shape.length
    shape.box(0.0, 0.0, (0.22, belt), half_l, half_w, paint)
    shape.box(-half_l + boot + 0.5 * cabin, 0.0, (belt, top), 0.5 * cabin, half_w - 0.08, glass)
    return shape


def van(rng: np.random.Generator) -> Sculptor:
    """Longer and taller than a car, with a short bonnet."""
    shape = Sculptor(_normal(rng, 5.0, 0.4), _normal(rng, 1.88, 0.08), _normal(rng, 2.12, 0.13))
    paint = _material(rng, 0.15, 0.6, PAINTS)
    half_l, half_w, top = 0.5 * shape.length - MARGIN, 0.5 * shape.width - MARGIN, shape.height - MARGIN
    cabin = rng.uniform(0.78, 0.88) * shape.length
    shape.box(0.0, 0.0, (0.25, 0.5 * shape.height), half_l, half_w, paint)
    shape.box(-half_l + 0.5 * cabin, 0.0, (0.5 * shape.height, top), 0.5 * cabin, half_w - 0.05, paint)
    return shape


def truck(rng: np.random.Generator) -> Sculptor:
    """A cab and a cargo box with a gap between them."""
    shape = Sculptor(_normal(rng, 8.5, 1.0), _normal(rng, 2.5, 0.08), _normal(rng, 3.2, 0.2))
    paint, cargo = _material(rng, 0.15, 0.6, PAINTS), Material(0.45, rgb=(200, 200, 195))
    half_l, half_w, top = 0.5 * shape.length - MARGIN, 0.5 * shape.width - MARGIN, shape.height - MARGIN
    cab = 1.9
    shape.box(half_l - 0.5 * cab, 0.0, (0.35, 0.85 * top), 0.5 * cab, half_w - 0.05, paint)
    shape.box(-0.5 * (cab + 0.3), 0.0, (0.7, top), half_l - 0.5 * (cab + 0.3), half_w, cargo)
    shape.box(0.0, 0.0, (0.3, 0.7), half_l - 0.2, 0.5 * half_w, RUBBER)
    return shape


def pedestrian(rng: np.random.Generator) -> Sculptor:
    """Two legs in mid-stride, a torso wider than it is deep, two swinging arms and a head."""
    shape = Sculptor(_normal(rng, 0.82, 0.13), _normal(rng, 0.64, 0.07), _normal(rng, 1.74, 0.1))
    trousers, coat = _material(rng, 0.08, 0.45, CLOTHES), _material(rng, 0.1, 0.6, CLOTHES)
    hip, neck, top = 0.47 * shape.height, 0.84 * shape.height, shape.height - MARGIN
    stride = (0.5 * shape.length - MARGIN - 0.09) * rng.uniform(0.4, 1.0) * (1.0 if rng.random() < 0.5 else -1.0)
    arm = 0.5 * shape.width - MARGIN - 0.05
    for side in (1.0, -1.0):
        shape.cylinder(side * stride, side * 0.1, (0.0, hip), 0.09, 0.07, trousers)
        shape.cylinder(-0.6 * side * stride, side * arm, (hip - 0.05, neck - 0.08), 0.05, 0.05, coat)
    shape.cylinder(0.02, 0.0, (hip, neck), 0.13, arm - 0.03, coat)
    shape.cylinder(0.05, 0.0, (neck, top), 0.1, 0.08, SKIN)
    return shape


def bicycle(rng: np.random.Generator, shape: Sculptor) -> Sculptor:
    """The two wheels, the frame and the handlebar, added to ``shape``."""
    metal = _material(rng, 0.15, 0.5, PAINTS)
    wheel = 0.31
    axle = 0.5 * shape.length - MARGIN - wheel
    for side in (1.0, -1.0):
        shape.box(side * axle, 0.0, (0.02, 2 * wheel), wheel, 0.035, RUBBER)
    shape.box(0.0, 0.0, (0.45, 0.62), axle, 0.04, metal)
    shape.box(axle - 0.12, 0.0, (0.95, 1.03), 0.05, min(0.28, 0.5 * shape.width - MARGIN), metal)
    shape.box(axle - 0.1, 0.0, (0.6, 0.95), 0.04, 0.04, metal)
    return shape


def cyclist(rng: np.random.Generator) -> Sculptor:
    """A bicycle and a rider leaning forward over it."""
    shape = bicycle(rng, Sculptor(_normal(rng, 1.76, 0.09), _normal(rng, 0.62, 0.07), _normal(rng, 1.74, 0.07)))
    trousers, coat = _material(rng, 0.08, 0.45, CLOTHES), _material(rng, 0.1, 0.6, CLOTHES)
    shoulder, top = 0.83 * shape.height, shape.height - MARGIN
    lean = rng.uniform(0.1, 0.22)
    half_w = 0.5 * shape.width - MARGIN
    for side in (1.0, -1.0):
        shape.cylinder(0.05 * side, 0.12 * side, (0.3, 0.95), 0.1, 0.07, trousers)
        shape.box(lean + 0.18, (half_w - 0.04) * side, (1.05, 1.2), 0.2, 0.04, coat)
    shape.cylinder(-0.12, 0.0, (0.85, 1.15), 0.15, 0.8 * half_w, coat)
    shape.cylinder(-0.12 + lean, 0.0, (1.15, shoulder), 0.15, 0.9 * half_w, coat)
    shape.cylinder(-0.02 + lean, 0.0, (shoulder, top), 0.11, 0.09, SKIN)
    return shape


BUILDERS = {"Car": car, "Van": van, "Truck": truck, "Pedestrian": pedestrian, "Cyclist": cyclist}
