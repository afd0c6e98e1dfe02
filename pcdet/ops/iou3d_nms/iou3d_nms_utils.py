"""Overlap, IoU and non-maximum suppression of rotated boxes [x, y, z, dx, dy, dz, heading], on any device.

The geometry is exact up to rounding, also for touching and identical boxes. None of these functions is differentiable.
A box with an entry that is NaN or beyond 1e12 is a ValueError on the CPU; on the GPU, where checking would stop the
stream, NaN and infinity make its IoUs NaN, and such a box is a ValueError in ``nms_gpu`` and ``kept_counts``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

import pcdet.ops  # noqa: F401  (loads the native library)
from pcdet.utils.common_utils import check_numpy_to_torch

LARGEST_ENTRY = 1e12  # of a box, as include/pcdet/check.h has it: beyond it a volume leaves float32's range


def boxes_overlap_bev(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """Ground area shared by every pair of boxes.

    Args:
        boxes_a: (N, 7) [x, y, z, dx, dy, dz, heading], metres and radians.
        boxes_b: (M, 7), same dtype (float32 or float64) and device as ``boxes_a``.

    Returns:
        (N, M) square metres, in [0, min(dx * dy)].
    """
    return torch.ops.pcdet.boxes_overlap_bev(boxes_a.detach(), boxes_b.detach())


def boxes_iou_bev(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """(N, M) ground area shared by two boxes over the area of both; 0 where both areas vanish.

    Args:
        boxes_a: (N, 7) [x, y, z, dx, dy, dz, heading], metres and radians.
        boxes_b: (M, 7), same dtype and device as ``boxes_a``.
    """
    return torch.ops.pcdet.boxes_iou_bev(boxes_a.detach(), boxes_b.detach())


def boxes_bev_iou_cpu(boxes_a: np.ndarray | Tensor, boxes_b: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """``boxes_iou_bev`` for (N, 7) and (M, 7) arrays or CPU tensors; an array if ``boxes_a`` is one."""
    a, was_numpy = check_numpy_to_torch(boxes_a)
    b, _ = check_numpy_to_torch(boxes_b)
    iou = boxes_iou_bev(a, b)
    return iou.numpy() if was_numpy else iou


def boxes_iou3d(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """(N, M) volume shared by two boxes over the volume of both; 0 where both volumes vanish.

    Args:
        boxes_a: (N, 7) [x, y, z, dx, dy, dz, heading], z the centre, metres and radians.
        boxes_b: (M, 7), same dtype and device as ``boxes_a``.
    """
    return torch.ops.pcdet.boxes_iou3d(boxes_a.detach(), boxes_b.detach())


def paired_boxes_iou3d(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """(N,) 3D IoU of row i of ``boxes_a`` (N, 7) with row i of ``boxes_b`` (N, 7)."""
    return torch.ops.pcdet.paired_boxes_iou3d(boxes_a.detach(), boxes_b.detach())


def boxes_aligned_iou3d(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """``paired_boxes_iou3d`` as a column, (N, 1)."""
    return paired_boxes_iou3d(boxes_a, boxes_b)[:, None]


def nms_gpu(
    boxes: Tensor, scores: Tensor, thresh: float, pre_maxsize: int | None = None, **kwargs
) -> tuple[Tensor, None]:
    """Indices of the boxes that survive rotated suppression, best score first.

    Boxes are visited in descending order of score (ties: the smaller index first); one is dropped if its ground IoU
    with a box already kept is strictly greater than ``thresh``.

    Args:
        boxes: (N, 7) [x, y, z, dx, dy, dz, heading], any device.
        scores: (N,) finite, same device.
        thresh: IoU in [0, 1].
        pre_maxsize: only so many of the best boxes take part; None for all.
        **kwargs: ignored; OpenPCDet hands over its whole NMS_CONFIG.

    Returns:
        ``(keep, None)``: (K,) int64 indices into ``boxes``, on the boxes' device, and OpenPCDet's unused second value.
    """
    return _nms(boxes, scores, thresh, pre_maxsize, rotated=True), None


def nms_normal_gpu(
    boxes: Tensor, scores: Tensor, thresh: float, pre_maxsize: int | None = None, **kwargs
) -> tuple[Tensor, None]:
    """``nms_gpu`` on axis-aligned rectangles: the heading is ignored."""
    return _nms(boxes, scores, thresh, pre_maxsize, rotated=False), None


def _nms(boxes: Tensor, scores: Tensor, thresh: float, pre_maxsize: int | None, rotated: bool) -> Tensor:
    boxes, scores = boxes.detach(), scores.detach()
    if pre_maxsize is None or boxes.dim() != 2 or boxes.shape[0] <= pre_maxsize:
        return torch.ops.pcdet.nms(boxes, scores, thresh, rotated)
    _check_cut(boxes, scores, pre_maxsize)
    best = scores.argsort(descending=True, stable=True)[:pre_maxsize]
    return best[torch.ops.pcdet.nms(boxes[best], scores[best], thresh, rotated)]


def _check_cut(boxes: Tensor, scores: Tensor, pre_maxsize: int) -> None:
    """ValueError where the best boxes cannot be told; the op, which looks at those alone, would not notice."""
    if pre_maxsize < 0:
        raise ValueError(f"pre_maxsize must be at least 0, or None for all boxes, got {pre_maxsize}")
    if scores.shape != boxes.shape[:1] or scores.device != boxes.device:
        raise ValueError(
            f"scores must have shape (N,) = ({boxes.shape[0]},) and be on {boxes.device}, got {list(scores.shape)} on "
            f"{scores.device}"
        )


def nms_counted(boxes: Tensor, scores: Tensor, thresh: float, rotated: bool = True) -> tuple[Tensor, Tensor]:
    """``nms_gpu``, or ``nms_normal_gpu``, without a wait for the device: the result has room for all boxes.

    Args:
        boxes: (N, 7) [x, y, z, dx, dy, dz, heading], any device.
        scores: (N,) finite, same device.
        thresh: IoU in [0, 1].
        rotated: False ignores the heading.

    Returns:
        (N,) int64 indices into ``boxes``, those that are kept first, by descending score, and -1 behind them; and ()
        int64 how many are kept, for ``kept_counts``. On the GPU the number is -1 where ``boxes`` or ``scores`` are not
        finite, and the indices mean nothing then.
    """
    return torch.ops.pcdet.nms_counted(boxes.detach(), scores.detach(), thresh, rotated)


def kept_counts(counts: Sequence[Tensor]) -> list[int]:
    """How many boxes each of several ``nms_counted`` keeps, from the second tensor of each; one wait for all.

    Raises:
        ValueError: boxes or scores of one of them are not finite.
    """
    numbers = torch.stack(list(counts)).tolist() if counts else []
    if min(numbers, default=0) < 0:
        raise ValueError("boxes and scores must be finite, but hold NaN or infinity")
    return numbers


# OpenPCDet's names for the same functions.
boxes_iou3d_gpu = boxes_iou3d
paired_boxes_iou3d_gpu = paired_boxes_iou3d
boxes_aligned_iou3d_gpu = boxes_aligned_iou3d


@torch.library.register_fake("pcdet::boxes_overlap_bev")
@torch.library.register_fake("pcdet::boxes_iou_bev")
@torch.library.register_fake("pcdet::boxes_iou3d")
def _fake_pairs(boxes_a, boxes_b):
    return boxes_a.new_empty(boxes_a.shape[0], boxes_b.shape[0])


@torch.library.register_fake("pcdet::paired_boxes_iou3d")
def _fake_rows(boxes_a, boxes_b):
    return boxes_a.new_empty(boxes_a.shape[0])


@torch.library.register_fake("pcdet::nms")
def _fake_nms(boxes, scores, thresh, rotated):
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


@torch.library.register_fake("pcdet::nms_counted")
def _fake_nms_counted(boxes, scores, thresh, rotated):
    return boxes.new_empty(boxes.shape[0], dtype=torch.int64), boxes.new_empty((), dtype=torch.int64)
