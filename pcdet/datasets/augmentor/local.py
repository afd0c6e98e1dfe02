"""Augmentors that move each box with the points inside it: translation, rotation, scaling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pcdet.datasets.augmentor.scene import (
    check_limits,
    check_names,
    matrix_of,
    rotation_about_z,
    transform_boxes,
    uniform,
)
from pcdet.registry import AUGMENTORS
from pcdet.utils.box_utils import points_in_boxes_mask

MARGIN = 0.1  # metres in x and y: points at the surface belong to the object though a label is a little tight
AXES = ("x", "y", "z")


def transform_objects(sample: dict, draw: Callable[[], np.ndarray]) -> dict:
    """Moves every box and its points about the box's centre by a matrix (4, 4) of its own.

    Points are assigned before anything moves, so no object picks up points of one that was moved beside it.
    """
    points, boxes = sample["points"].copy(), sample["gt_boxes"].copy()
    for i, inside in enumerate(points_in_boxes_mask(points, boxes, MARGIN)):
        centre = boxes[i, :3].astype(np.float64)
        matrix = matrix_of(shift=centre) @ draw() @ matrix_of(shift=-centre)
        points[inside, :3] = points[inside, :3] @ matrix[:3, :3].T + matrix[:3, 3]
        boxes[i : i + 1] = transform_boxes(boxes[i : i + 1], matrix)
    sample["points"], sample["gt_boxes"] = points, boxes
    return sample


@AUGMENTORS.register(name="random_local_translation")
class RandomLocalTranslation:
    """Shifts each object.

    Args:
        local_translation_range: [low, high] metres, drawn for every axis.
        along_axis_list: "x", "y" and "z" of the LiDAR frame.
    """

    def __init__(self, *, local_translation_range: list[float], along_axis_list: list[str]):
        check_limits(local_translation_range, "LOCAL_TRANSLATION_RANGE")
        check_names(along_axis_list, AXES, "ALONG_AXIS_LIST")
        self.limits = local_translation_range
        self.moves = np.array([axis in along_axis_list for axis in AXES])

    def __call__(self, sample: dict, rng: np.random.Generator) -> dict:
        """Modified: ``points``, ``gt_boxes``."""
        return transform_objects(sample, lambda: matrix_of(shift=rng.uniform(*self.limits, size=3) * self.moves))


@AUGMENTORS.register(name="random_local_rotation")
class RandomLocalRotation:
    """Turns each object about its own z axis; its velocity turns with it.

    Args:
        local_rot_angle: [low, high] radians; one number stands for [-number, number].
    """

    def __init__(self, *, local_rot_angle: list[float] | float):
        self.limits = check_limits(local_rot_angle, "LOCAL_ROT_ANGLE")

    def __call__(self, sample: dict, rng: np.random.Generator) -> dict:
        """Modified: ``points``, ``gt_boxes``."""
        return transform_objects(sample, lambda: matrix_of(rotation_about_z(uniform(rng, self.limits))))


@AUGMENTORS.register(name="random_local_scaling")
class RandomLocalScaling:
    """Scales each object about its centre; its velocity stays.

    Args:
        local_scale_range: [low, high].
    """

    def __init__(self, *, local_scale_range: list[float]):
        self.limits = check_limits(local_scale_range, "LOCAL_SCALE_RANGE")

    def __call__(self, sample: dict, rng: np.random.Generator) -> dict:
        """Modified: ``points``, ``gt_boxes``."""
        velocities = sample["gt_boxes"][:, 7:].copy()  # a larger car is not a faster one
        sample = transform_objects(sample, lambda: matrix_of(np.diag([uniform(rng, self.limits)] * 3)))
        sample["gt_boxes"][:, 7:] = velocities
        return sample
