"""Readable pure-PyTorch versions of the ops in this folder: the specification that tests compare to."""

from __future__ import annotations

import torch
from torch import Tensor


def corners_bev(boxes: Tensor) -> Tensor:
    """(N, 7) boxes -> (N, 4, 2) ground corners, counter-clockwise from the front left."""
    signs = boxes.new_tensor([[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]])
    offsets = signs * boxes[:, None, 3:5]
    cos, sin = boxes[:, 6].cos(), boxes[:, 6].sin()
    rotation = torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2)
    return offsets @ rotation.mT + boxes[:, None, :2]


def polygon_overlap(subject: Tensor, window: Tensor) -> Tensor:
    """Area that two convex counter-clockwise polygons, (P, 2) and (Q, 2), share: Sutherland and Hodgman's clipping."""

    def cross(u: Tensor, v: Tensor) -> Tensor:
        return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]

    polygon = list(subject)
    for start, end in zip(window, window.roll(-1, 0), strict=True):
        clipped = []
        for p, q in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            p_side, q_side = cross(end - start, p - start), cross(end - start, q - start)
            if p_side >= 0:
                clipped.append(p)
            if (p_side >= 0) != (q_side >= 0):
                clipped.append(p + p_side / (p_side - q_side) * (q - p))
        polygon = clipped
    if not polygon:
        return subject.new_zeros(())
    vertices = torch.stack(polygon)
    vertices = vertices - vertices[0]
    return cross(vertices, vertices.roll(-1, 0)).sum().abs() / 2


def boxes_overlap_bev(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """(N, M) ground area shared, in square metres."""
    pairs = [polygon_overlap(a, b) for a in corners_bev(boxes_a) for b in corners_bev(boxes_b)]
    flat = torch.stack(pairs) if pairs else boxes_a.new_zeros(0)
    return flat.view(len(boxes_a), len(boxes_b))


def boxes_iou_bev(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """(N, M) intersection over union on the ground."""
    shared = boxes_overlap_bev(boxes_a, boxes_b)
    area_a, area_b = boxes_a[:, 3:5].prod(dim=1), boxes_b[:, 3:5].prod(dim=1)
    return shared / (area_a[:, None] + area_b - shared).clamp(min=1e-8)


def boxes_iou3d(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """(N, M) intersection over union of volumes."""
    top = torch.minimum((boxes_a[:, 2] + boxes_a[:, 5] / 2)[:, None], boxes_b[:, 2] + boxes_b[:, 5] / 2)
    bottom = torch.maximum((boxes_a[:, 2] - boxes_a[:, 5] / 2)[:, None], boxes_b[:, 2] - boxes_b[:, 5] / 2)
    shared = boxes_overlap_bev(boxes_a, boxes_b) * (top - bottom).clamp(min=0)
    volume_a, volume_b = boxes_a[:, 3:6].prod(dim=1), boxes_b[:, 3:6].prod(dim=1)
    return shared / (volume_a[:, None] + volume_b - shared).clamp(min=1e-6)


def paired_boxes_iou3d(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """(N,) the diagonal of ``boxes_iou3d``."""
    rows = [boxes_iou3d(a[None], b[None]).view(()) for a, b in zip(boxes_a, boxes_b, strict=True)]
    return torch.stack(rows) if rows else boxes_a.new_zeros(0)


def nms(boxes: Tensor, scores: Tensor, thresh: float, rotated: bool) -> Tensor:
    """(K,) int64 indices kept by greedy suppression in descending order of score, iou > thresh suppresses."""
    if not rotated:
        boxes = torch.cat([boxes[:, :6], torch.zeros_like(boxes[:, 6:7])], dim=1)
    iou = boxes_iou_bev(boxes, boxes)
    keep: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if not any(iou[k, i] > thresh for k in keep):
            keep.append(i)
    return torch.tensor(keep, dtype=torch.int64, device=boxes.device)


def nms_counted(boxes: Tensor, scores: Tensor, thresh: float, rotated: bool) -> tuple[Tensor, Tensor]:
    """(N,) int64 what ``nms`` keeps and -1 behind it, () int64 how many it keeps."""
    keep = nms(boxes, scores, thresh, rotated)
    padding = keep.new_full((len(boxes) - len(keep),), -1)
    return torch.cat([keep, padding]), torch.tensor(len(keep), device=boxes.device)
