"""Non-maximum suppression of predictions, over all classes together or class by class."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from pcdet.registry import Count

NMS_TYPES = ("nms_gpu", "nms_normal_gpu")  # OpenPCDet's names; both run on any device


@dataclasses.dataclass(frozen=True, kw_only=True)
class NMSConfig:
    """``NMS_CONFIG``.

    Attributes:
        multi_classes_nms: suppress within each class; otherwise each box has its best class and all compete.
        nms_type: ``nms_gpu`` by rotated overlap, ``nms_normal_gpu`` by overlap of the boxes without their headings.
        nms_thresh: BEV overlap above which the lower score goes.
        nms_pre_maxsize: how many of the best enter.
        nms_post_maxsize: how many leave at most.
    """

    multi_classes_nms: bool = False
    nms_type: str = "nms_gpu"
    nms_thresh: float
    nms_pre_maxsize: Count
    nms_post_maxsize: Count

    def __post_init__(self):
        if self.nms_type not in NMS_TYPES:
            raise ValueError(f"NMS_TYPE: must be one of {', '.join(NMS_TYPES)}, got {self.nms_type!r}")


def class_agnostic_nms(
    box_scores: Tensor, box_preds: Tensor, nms_config: NMSConfig, score_thresh: float | None = None
) -> tuple[Tensor, Tensor]:
    """The boxes that survive.

    Args:
        box_scores: (N,).
        box_preds: (N, 7 + C) LiDAR boxes.
        nms_config: how to suppress.
        score_thresh: only scores from here on take part; None for all.

    Returns:
        (K,) indices into the input by descending score, (K,) their scores.
    """
    from pcdet.ops.iou3d_nms import iou3d_nms_utils

    candidates = None
    if score_thresh is not None:
        candidates = (box_scores >= score_thresh).nonzero().squeeze(1)
        box_scores, box_preds = box_scores[candidates], box_preds[candidates]
    scores, order = torch.topk(box_scores, min(nms_config.nms_pre_maxsize, len(box_scores)))
    if not len(order):
        return order, scores
    suppress = getattr(iou3d_nms_utils, nms_config.nms_type)
    keep, _ = suppress(box_preds[order, :7].contiguous(), scores, nms_config.nms_thresh)
    keep = keep[: nms_config.nms_post_maxsize]
    selected = order[keep]
    return (selected if candidates is None else candidates[selected]), scores[keep]


def multi_classes_nms(
    cls_scores: Tensor, box_preds: Tensor, nms_config: NMSConfig, score_thresh: float | Sequence[float] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The boxes that survive among those of their class; a box may do so in several classes.

    Args:
        cls_scores: (N, num_class).
        box_preds: (N, 7 + C) LiDAR boxes.
        nms_config: how to suppress.
        score_thresh: only scores from here on take part; one for all classes, or one for each.

    Returns:
        (K,) indices into the input, (K,) scores, (K,) classes counted from 0; class by class, each by descending score.
    """
    num_class = cls_scores.shape[1]
    thresholds = score_thresh if isinstance(score_thresh, Sequence) else [score_thresh] * num_class
    parts = [
        class_agnostic_nms(cls_scores[:, k], box_preds, nms_config, threshold)
        for k, threshold in zip(range(num_class), thresholds, strict=True)
    ]
    labels = [torch.full_like(selected, k) for k, (selected, _) in enumerate(parts)]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]), torch.cat(labels)
