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


def roiaware_pool3d(
    rois: Tensor, points: Tensor, features: Tensor, out_size: tuple[int, int, int], most_points: int, method: str
) -> Tensor:
    """(N, X, Y, Z, C) maximum or mean of the features (P, C) of the points (P, 3) in each part of each roi (N, 7)."""
    pooled = features.new_zeros(len(rois), *out_size, features.shape[1])
    for n, roi in enumerate(rois):
        members: dict[tuple[int, ...], list[int]] = {}
        for p in points_in_boxes_mask(points, roi[None], margin=1e-5)[0].nonzero()[:, 0].tolist():
            dx, dy, dz = (points[p] - roi[:3]).tolist()
            cos, sin = float(roi[6].cos()), float(roi[6].sin())
            local = (dx * cos + dy * sin, dy * cos - dx * sin, dz)
            steps = [(a + float(e) / 2) / (float(e) / s) for a, e, s in zip(local, roi[3:6], out_size, strict=True)]
            voxel = tuple(min(max(int(step), 0), s - 1) for step, s in zip(steps, out_size, strict=True))
            if len(members.setdefault(voxel, [])) < most_points:
                members[voxel].append(p)
        for voxel, rows in members.items():
            pooled[(n, *voxel)] = features[rows].amax(dim=0) if method == "max" else features[rows].mean(dim=0)
    return pooled
