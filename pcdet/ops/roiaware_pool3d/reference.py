"""Readable pure-PyTorch versions of the ops in this folder: the specification that tests compare to."""

from __future__ import annotations

import torch
from torch import Tensor


def points_in_boxes_mask(points: Tensor, boxes: Tensor, margin: float = 1e-2) -> Tensor:
    """(N, P) int32, 1 where point (P, 3) lies in box (N, 7); the sides, not top and bottom, move out by a margin."""
    offset = points[None] - boxes[:, None, :3]
    cos, sin = boxes[:, None, 6].cos(), boxes[:, None, 6].sin()
    along = offset[..., 0] * cos + offset[..., 1] * sin
    across = offset[..., 1] * cos - offset[..., 0] * sin
    inside = (along.abs() < boxes[:, None, 3] / 2 + margin) & (across.abs() < boxes[:, None, 4] / 2 + margin)
    return (inside & (offset[..., 2].abs() <= boxes[:, None, 5] / 2)).int()


def points_in_boxes_index(points: Tensor, boxes: Tensor) -> Tensor:
    """(B, P) int32 first box (of (B, T, 7)) that holds each point (of (B, P, 3)), -1 for none."""
    frames = []
    for frame_points, frame_boxes in zip(points, boxes, strict=True):
        first = torch.full((len(frame_points),), -1, dtype=torch.int32, device=points.device)
        mask = points_in_boxes_mask(frame_points, frame_boxes, margin=1e-5)
        for k in reversed(range(len(frame_boxes))):
            first[mask[k] == 1] = k
        frames.append(first)
    return torch.stack(frames)
