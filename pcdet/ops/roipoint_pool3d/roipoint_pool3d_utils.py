"""The points in each of a frame's boxes, so many a box, with OpenPCDet's names; on any device."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor, nn

import pcdet.ops  # noqa: F401  (loads the native library)
from pcdet.utils.transfer import constant


class RoIPointPool3d(nn.Module):
    """Coordinates and features of the points in each box.

    Args:
        num_sampled_points: K, points a box: the first ones by index; fewer are repeated in turn until there are K.
        pool_extra_width: metres added to a box's length, width and height before pooling; one number or three.
    """

    def __init__(self, num_sampled_points: int = 512, pool_extra_width: float | Sequence[float] = 1.0):
        super().__init__()
        self.num_sampled_points = num_sampled_points
        widths = [pool_extra_width] * 3 if isinstance(pool_extra_width, Real) else pool_extra_width
        if not isinstance(widths, Sequence) or len(widths) != 3 or not all(isinstance(w, Real) for w in widths):
            raise ValueError(f"pool_extra_width must be one number or three, in metres, got {pool_extra_width!r}")
        self.pool_extra_width = [float(w) for w in widths]

    def forward(self, points: Tensor, point_features: Tensor, boxes3d: Tensor) -> tuple[Tensor, Tensor]:
        """Pools. Not differentiable.

        Args:
            points: (B, N, 3) metres.
            point_features: (B, N, C), same dtype (float32 or float64) and device.
            boxes3d: (B, M, 7) [x, y, z, dx, dy, dz, heading]; their sides are moved out by 1e-5 m, as in OpenPCDet.

        Returns:
            (B, M, K, 3 + C) coordinates and features, zero for an empty box, and (B, M) int32, 1 for such a box.
        """
        boxes, extra = boxes3d.detach(), constant(self.pool_extra_width, boxes3d.device, boxes3d.dtype)
        if boxes.dim() == 3 and boxes.shape[2] == 7:  # anything else is the op's to refuse
            boxes = torch.cat([boxes[..., :3], boxes[..., 3:6] + extra, boxes[..., 6:]], dim=-1)
        return torch.ops.pcdet.roipoint_pool3d(points.detach(), point_features.detach(), boxes, self.num_sampled_points)


@torch.library.register_fake("pcdet::roipoint_pool3d")
def _fake_roipoint_pool3d(points, features, boxes, num_sampled_points):
    frames, num_boxes = boxes.shape[:2]
    pooled = points.new_empty(frames, num_boxes, num_sampled_points, 3 + features.shape[2])
    return pooled, points.new_empty(frames, num_boxes, dtype=torch.int32)
