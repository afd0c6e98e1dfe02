"""Which points lie in which boxes [x, y, z, dx, dy, dz, heading], with OpenPCDet's names and margins, on any device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

import pcdet.ops  # noqa: F401  (loads the native library)
from pcdet.utils.common_utils import check_numpy_to_torch


def points_in_boxes_cpu(points: np.ndarray | Tensor, boxes: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """Which points lie in which boxes, each widened by 1 cm at its four sides. Any device, in spite of the name.

    Args:
        points: (P, 3) [x, y, z], metres; array or tensor. A point with a NaN coordinate lies in no box.
        boxes: (N, 7) [x, y, z, dx, dy, dz, heading], z the centre.

    Returns:
        (N, P) int32, 1 for a point inside; an array if ``points`` is one. Boundaries: strict at the sides, inclusive at
        the top and the bottom.
    """
    p, was_numpy = check_numpy_to_torch(points)
    b, _ = check_numpy_to_torch(boxes)
    mask = torch.ops.pcdet.points_in_boxes_mask(p.detach(), b.detach())
    return mask.numpy() if was_numpy else mask


def points_in_boxes_gpu(points: Tensor, boxes: Tensor) -> Tensor:
    """The first box that holds each point. Any device, in spite of the name.

    Args:
        points: (B, P, 3) [x, y, z], metres. A point with a NaN coordinate lies in no box.
        boxes: (B, T, 7) [x, y, z, dx, dy, dz, heading]; their sides are moved out by 1e-5 m, as in OpenPCDet.

    Returns:
        (B, P) int32, the smallest index of a box with the point inside, -1 for none.
    """
    return torch.ops.pcdet.points_in_boxes_index(points.detach(), boxes.detach())


@torch.library.register_fake("pcdet::points_in_boxes_mask")
def _fake_mask(points, boxes):
    return points.new_empty(boxes.shape[0], points.shape[0], dtype=torch.int32)


@torch.library.register_fake("pcdet::points_in_boxes_index")
def _fake_index(points, boxes):
    return points.new_empty(points.shape[0], points.shape[1], dtype=torch.int32)
