"""Points in boxes [x, y, z, dx, dy, dz, heading], found or pooled, with OpenPCDet's names and margins, any device."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor, nn

import pcdet.ops  # noqa: F401  (loads the native library)
from pcdet.ops.gradients import register_gradient
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


class RoIAwarePool3d(nn.Module):
    """Features of the points in every part of every region of interest.

    Args:
        out_size: parts along a roi's length, width and height; one number or three.
        max_pts_each_voxel: a part keeps its first ``max_pts_each_voxel - 1`` points by index; one less than the name
            says, as in OpenPCDet.
    """

    def __init__(self, out_size: int | Sequence[int], max_pts_each_voxel: int = 128):
        super().__init__()
        if max_pts_each_voxel < 2:
            raise ValueError(f"max_pts_each_voxel must be at least 2, got {max_pts_each_voxel}")
        sizes = [out_size] * 3 if isinstance(out_size, Integral) else out_size
        if not isinstance(sizes, Sequence) or len(sizes) != 3 or not all(isinstance(n, Integral) for n in sizes):
            raise ValueError(f"out_size must be one whole number or three, got {out_size!r}")
        self.out_size = [int(n) for n in sizes]
        self.max_pts_each_voxel = max_pts_each_voxel

    def forward(self, rois: Tensor, pts: Tensor, pts_feature: Tensor, pool_method: str = "max") -> Tensor:
        """Pools. Differentiable once in ``pts_feature``; the sums' order, and so the gradient, is always the same.

        Args:
            rois: (N, 7) [x, y, z, dx, dy, dz, heading], z the centre; their sides are moved out by 1e-5 m.
            pts: (P, 3) metres, same dtype (float32 or float64) and device.
            pts_feature: (P, C) any floating-point type; half precision is pooled in float32.
            pool_method: 'max' or 'avg'.

        Returns:
            (N, X, Y, Z, C), the type of ``pts_feature``; 0 where a part holds no point.
        """
        if pool_method not in ("max", "avg"):
            raise ValueError(f"pool_method must be 'max' or 'avg', got {pool_method!r}")
        voxel, count = torch.ops.pcdet.roiaware_assign(
            rois.detach(), pts.detach(), self.out_size, self.max_pts_each_voxel - 1
        )
        narrow = pts_feature.dtype in (torch.float16, torch.bfloat16)
        features = pts_feature.float() if narrow else pts_feature
        pooled, _ = torch.ops.pcdet.roiaware_pool3d(features, voxel, count, pool_method == "max")
        return pooled.to(pts_feature.dtype).unflatten(1, self.out_size)


@torch.library.register_fake("pcdet::points_in_boxes_mask")
def _fake_mask(points, boxes):
    return points.new_empty(boxes.shape[0], points.shape[0], dtype=torch.int32)


@torch.library.register_fake("pcdet::points_in_boxes_index")
def _fake_index(points, boxes):
    return points.new_empty(points.shape[0], points.shape[1], dtype=torch.int32)


@torch.library.register_fake("pcdet::roiaware_assign")
def _fake_assign(rois, points, out_size, most_points):
    voxel = rois.new_empty(rois.shape[0], points.shape[0], dtype=torch.int32)
    return voxel, rois.new_empty(rois.shape[0], out_size[0] * out_size[1] * out_size[2], dtype=torch.int32)


@torch.library.register_fake("pcdet::roiaware_pool3d")
def _fake_pool(features, voxel, count, use_max):
    pooled = features.new_empty(count.shape[0], count.shape[1], features.shape[1])
    return pooled, count.new_empty(pooled.shape if use_max else (0,))


@torch.library.register_fake("pcdet::roiaware_pool3d_backward")
def _fake_pool_backward(grad, voxel, count, argmax, use_max):
    return grad.new_empty(voxel.shape[1], grad.shape[2])


def _save_pool(ctx, inputs, output):
    _, voxel, count, ctx.use_max = inputs
    ctx.save_for_backward(voxel, count, output[1])


def _pool_backward(ctx, grad, _):
    voxel, count, argmax = ctx.saved_tensors
    return torch.ops.pcdet.roiaware_pool3d_backward(grad, voxel, count, argmax, ctx.use_max), None, None, None


register_gradient("pcdet::roiaware_pool3d", _pool_backward, setup_context=_save_pool)
