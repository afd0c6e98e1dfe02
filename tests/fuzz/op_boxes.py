"""Ops on boxes: overlap, suppression, points in boxes, pooling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fuzz.op_case import Case
from pcdet.ops.iou3d_nms import iou3d_nms_utils as iou
from pcdet.ops.iou3d_nms import reference as iou_reference
from pcdet.ops.roiaware_pool3d import reference as box_reference
from pcdet.ops.roiaware_pool3d import roiaware_pool3d_utils as box_ops
from pcdet.ops.roipoint_pool3d import reference as roipoint_reference
from pcdet.ops.roipoint_pool3d.roipoint_pool3d_utils import RoIPointPool3d

BORDER = 1e-4  # metres from a side within which rounding decides


@dataclass(frozen=True)
class Op:
    """A call, its arguments and what must hold of its result.

    ``exact`` says whether the same numbers in another layout must give the same bits; matrix products do not.
    """

    name: str
    call: Callable
    arguments: Callable[[Case], tuple]
    check: Callable
    exact: bool = True


def _close(found: Tensor, wanted: Tensor, what: str, tolerance: float) -> None:
    worst = (found.double() - wanted).abs().max().item() if wanted.numel() else 0.0
    assert found.shape == wanted.shape, f"{what} have shape {list(found.shape)}, the reference's {list(wanted.shape)}"
    assert worst <= tolerance, f"{what} differ from the reference's by {worst:.3g}"


def _pairs(name: str) -> Op:
    def check(case: Case, arguments: tuple, found: Tensor) -> None:
        a, b = arguments
        bounded = found[~found.isnan()]
        assert (bounded >= 0).all(), "an overlap is negative"
        if name != "boxes_overlap_bev":
            assert (bounded <= 1 + 1e-5).all(), f"an IoU is {bounded.max().item()}"
        if case.clean:
            wanted = getattr(iou_reference, name)(a.double(), b.double())
            _close(found, wanted, "overlaps", 2e-3 if found.dtype is torch.float32 else 1e-8)

    few = 9  # the reference clips one pair after the other
    return Op(name, getattr(iou, name), lambda c: (c.boxes(c.size(few)), c.boxes(c.size(few))), check)


def _rows_arguments(case: Case) -> tuple:
    n = case.size(17)
    return case.boxes(n), case.boxes(n)


def _rows_check(case: Case, arguments: tuple, found: Tensor) -> None:
    if case.clean:
        _close(found, iou_reference.paired_boxes_iou3d(*(a.double() for a in arguments)), "IoUs", 2e-3)


def _nms_arguments(case: Case) -> tuple:
    n = case.size(12)
    limit = case.count()
    scores = case.floats(n, low=0, high=1)
    return case.boxes(n), scores, case.real(), case.pick(None, limit), case.pick(True, False)


def _nms(boxes: Tensor, scores: Tensor, thresh: float, limit: int | None, rotated: bool) -> Tensor:
    return (iou.nms_gpu if rotated else iou.nms_normal_gpu)(boxes, scores, thresh, limit)[0]


def _nms_check(case: Case, arguments: tuple, keep: Tensor) -> None:
    boxes, scores, thresh, limit, rotated = arguments
    assert keep.dtype == torch.int64 and len(set(keep.tolist())) == len(keep), "a box is kept twice"
    assert all(0 <= i < len(boxes) for i in keep.tolist()), "an index lies outside the boxes"
    assert limit is None or len(keep) <= max(limit, 0), "more boxes are kept than took part"
    if not case.clean:
        return
    boxes = boxes.double() if rotated else torch.cat([boxes[:, :6], torch.zeros_like(boxes[:, 6:])], dim=1).double()
    best = scores.argsort(descending=True, stable=True)[:limit]
    table = iou_reference.boxes_iou_bev(boxes[best], boxes[best])
    if ((table - thresh).abs() < 1e-4).any():  # rounding decides
        return
    wanted = best[iou_reference.nms(boxes[best], scores[best], thresh, True)]
    assert keep.tolist() == wanted.tolist(), f"boxes {keep.tolist()} are kept, by the reference {wanted.tolist()}"


def _counted_arguments(case: Case) -> tuple:
    boxes, scores, thresh, _, rotated = _nms_arguments(case)
    return boxes, scores, thresh, rotated


def _counted_check(case: Case, arguments: tuple, found: tuple[Tensor, Tensor]) -> None:
    boxes, scores, thresh, rotated = arguments
    keep, count = found[0], int(found[1])
    assert keep.shape == scores.shape and (keep[count:] == -1).all(), "what is not kept is not -1"
    _nms_check(case, (boxes, scores, thresh, None, rotated), keep[:count])


# ---------------------------------------------------------------------------------------------------- points in boxes


def _inside(points: Tensor, boxes: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """The mask (N, P), and where it is beyond doubt."""
    points, boxes = points.double(), boxes.double()
    low, high = boxes.clone(), boxes.clone()
    low[:, 5] -= 2 * BORDER
    high[:, 5] += 2 * BORDER
    inner = box_reference.points_in_boxes_mask(points, low, margin - BORDER)
    outer = box_reference.points_in_boxes_mask(points, high, margin + BORDER)
    return inner, inner == outer


def _mask_check(case: Case, arguments: tuple, mask: Tensor) -> None:
    points, boxes = arguments
    assert mask.dtype == torch.int32 and mask.shape == (len(boxes), len(points)), f"a mask is {list(mask.shape)}"
    assert ((mask == 0) | (mask == 1)).all(), "a mask holds other numbers than 0 and 1"
    assert not mask[:, points.isnan().any(dim=1)].any(), "a point with NaN lies in a box"
    if case.clean:
        wanted, sure = _inside(points, boxes, 1e-2)
        assert torch.equal(mask[sure], wanted[sure]), "the mask differs from the reference's"


def _index_arguments(case: Case) -> tuple:
    frames = case.size(3)
    return case.floats(frames, case.size(), 3), case.boxes(frames, case.size(9))


def _index_check(case: Case, arguments: tuple, index: Tensor) -> None:
    points, boxes = arguments
    assert index.dtype == torch.int32 and index.shape == points.shape[:2], f"an index is {list(index.shape)}"
    assert ((index >= -1) & (index < max(boxes.shape[1], 0))).all(), "an index lies outside the boxes"
    if case.clean and len(points):
        wanted = box_reference.points_in_boxes_index(points.double(), boxes.double())
        for frame in range(len(points)):
            sure = _inside(points[frame], boxes[frame], 1e-5)[1].all(dim=0)
            assert torch.equal(index[frame][sure], wanted[frame][sure]), "indices differ from the reference's"


def _roipoint_arguments(case: Case) -> tuple:
    frames, points, channels, boxes = case.size(3), case.size(), case.size(5), case.size(7)
    num = case.count(frames * boxes * (3 + channels))
    extra = case.pick(0.0, 0.2, (0.1, 0.2, 0.3)) if case.clean else case.real()
    return case.floats(frames, points, 3), case.floats(frames, points, channels), case.boxes(frames, boxes), num, extra


def _roipoint(points: Tensor, features: Tensor, boxes: Tensor, num: int, extra) -> tuple[Tensor, Tensor]:
    return RoIPointPool3d(num, extra)(points, features, boxes)


def _roipoint_check(case: Case, arguments: tuple, found: tuple[Tensor, Tensor]) -> None:
    points, features, boxes, num, extra = arguments
    pooled, empty = found
    assert pooled.shape == (*boxes.shape[:2], num, 3 + features.shape[2]), f"what is pooled is {list(pooled.shape)}"
    if not case.clean or num < 1:
        return
    wide = boxes.clone()
    wide[..., 3:6] += torch.tensor(extra, dtype=boxes.dtype)
    if all(_inside(p, b, 1e-5)[1].all() for p, b in zip(points, wide, strict=True)):
        wanted, wanted_empty = roipoint_reference.roipoint_pool3d(points, features, wide, num)
        assert torch.equal(empty, wanted_empty) and torch.equal(pooled, wanted), "points differ from the reference's"


def _roiaware_arguments(case: Case) -> tuple:
    rois, points, channels = case.size(5), case.size(), case.size(5)
    sizes = tuple(case.pick(1, 2, 3, 5) for _ in range(3)) if case.clean else (case.count(8 * rois * channels), 2, 2)
    features = case.floats(points, channels).requires_grad_(case.dtype.is_floating_point and case.generic)
    most = case.pick(2, 3, 8) if case.clean else case.count()
    return case.boxes(rois), case.floats(points, 3), features, sizes, most, case.pick("max", "avg")


def _roiaware(rois: Tensor, points: Tensor, features: Tensor, sizes: tuple, most: int, method: str) -> tuple:
    pooled = box_ops.RoIAwarePool3d(sizes, most)(rois, points, features, method)
    if not features.requires_grad:
        return (pooled,)
    (gradient,) = torch.autograd.grad((pooled * _ramp(pooled)).sum(), features)
    return pooled.detach(), gradient


def _ramp(like: Tensor) -> Tensor:
    """Weights that are all different, so that a gradient at a wrong place shows."""
    return torch.linspace(0.5, 1.5, max(like.numel(), 1), dtype=like.dtype)[: like.numel()].view(like.shape)


def _roiaware_check(case: Case, arguments: tuple, found: tuple) -> None:
    rois, points, features, sizes, most, method = arguments
    if not case.generic or case.dtype is not torch.float64 or not _inside(points, rois, 1e-5)[1].all():
        return
    features = features.detach().clone().requires_grad_()
    wanted = box_reference.roiaware_pool3d(rois, points, features, sizes, most - 1, method)
    _close(found[0], wanted.detach(), "pooled features", 1e-9)
    if wanted.requires_grad:
        (gradient,) = torch.autograd.grad((wanted * _ramp(wanted)).sum(), features)
        _close(found[1], gradient, "gradients", 1e-9)


OPS = [
    *map(_pairs, ("boxes_overlap_bev", "boxes_iou_bev", "boxes_iou3d")),
    Op("paired_boxes_iou3d", iou.paired_boxes_iou3d, _rows_arguments, _rows_check),
    Op("nms", _nms, _nms_arguments, _nms_check),
    Op("nms_counted", iou.nms_counted, _counted_arguments, _counted_check),
    Op(
        "points_in_boxes_mask",
        box_ops.points_in_boxes_cpu,
        lambda c: (c.floats(c.size(), 3), c.boxes(c.size())),
        _mask_check,
    ),
    Op("points_in_boxes_index", box_ops.points_in_boxes_gpu, _index_arguments, _index_check),
    Op("roipoint_pool3d", _roipoint, _roipoint_arguments, _roipoint_check),
    Op("roiaware_pool3d", _roiaware, _roiaware_arguments, _roiaware_check),
]
