"""Augmentors that cut a slice off one side of the scene or of each object, as occlusion and missing beams do."""

from __future__ import annotations

import numpy as np

from pcdet.datasets.augmentor.local import MARGIN
from pcdet.datasets.augmentor.scene import check_limits, check_names, uniform
from pcdet.registry import AUGMENTORS
from pcdet.utils.box_utils import points_in_boxes_mask

# direction -> (axis, which end is cut off)
SIDES = {"top": (2, 1), "bottom": (2, -1), "left": (1, 1), "right": (1, -1)}


class _FrustumDropout:
    """Args of both: ``intensity_range`` [low, high], the part of the extent that is cut off; ``direction`` sides."""

    def __init__(self, *, intensity_range: list[float], direction: list[str]):
        check_limits(intensity_range, "INTENSITY_RANGE")
        check_names(direction, tuple(SIDES), "DIRECTION")
        if intensity_range[0] < 0 or intensity_range[1] > 1:
            raise ValueError(f"INTENSITY_RANGE: must lie in [0, 1], got {intensity_range}")
        self.limits, self.directions = intensity_range, direction

    @staticmethod
    def _beyond(values: np.ndarray, low: float, high: float, end: int, part: float) -> np.ndarray:
        """Mask of what lies in the last ``part`` of [low, high], counted from the given end."""
        if end > 0:
            return values >= high - part * (high - low)
        return values <= low + part * (high - low)


@AUGMENTORS.register(name="random_world_frustum_dropout")
class RandomWorldFrustumDropout(_FrustumDropout):
    """Drops the points, and the boxes whose centre lies there, in a slice at one side of the scene.

    Args:
        intensity_range: [low, high], the part of the points' extent that is cut off.
        direction: "top", "bottom", "left" (+y), "right": each is done, in this order.
    """

    def __call__(self, sample: dict, rng: np.random.Generator) -> dict:
        """Modified: ``points``, ``gt_boxes``, ``gt_names``."""
        for direction in self.directions:
            axis, end = SIDES[direction]
            part, values = uniform(rng, self.limits), sample["points"][:, axis]
            if len(values) == 0 or part == 0:
                continue
            limits = (float(values.min()), float(values.max()), end, part)
            sample["points"] = sample["points"][~self._beyond(values, *limits)]
            keep = ~self._beyond(sample["gt_boxes"][:, axis], *limits)
            for key in ("gt_boxes", "gt_names", "gt_boxes2d"):
                if key in sample:
                    sample[key] = sample[key][keep]
        return sample


@AUGMENTORS.register(name="random_local_frustum_dropout")
class RandomLocalFrustumDropout(_FrustumDropout):
    """Drops the points in a slice at one side of every object; the boxes stay.

    Args:
        intensity_range: [low, high], the part of the box's extent (dz, or dy along the y axis) that is cut off.
        direction: "top", "bottom", "left" (+y), "right": each is done, in this order.
    """

    def __call__(self, sample: dict, rng: np.random.Generator) -> dict:
        """Modified: ``points``."""
        for direction in self.directions:
            axis, end = SIDES[direction]
            points, boxes = sample["points"], sample["gt_boxes"]
            dropped = np.zeros(len(points), dtype=bool)
            for box, inside in zip(boxes, points_in_boxes_mask(points, boxes, MARGIN), strict=True):
                half, part = box[3 + axis] / 2, uniform(rng, self.limits)
                if part > 0:
                    dropped |= inside & self._beyond(points[:, axis], box[axis] - half, box[axis] + half, end, part)
            sample["points"] = points[~dropped]
        return sample
