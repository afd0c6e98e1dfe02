"""From the predictions of a batch to the final boxes of each frame, and the record of recall."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from pcdet.models.model_utils.model_nms_utils import NMSConfig, class_agnostic_nms, multi_classes_nms


@dataclasses.dataclass(frozen=True, kw_only=True)
class PostProcessingConfig:
    """``MODEL.POST_PROCESSING``.

    Attributes:
        recall_thresh_list: 3D overlaps at which recall is recorded.
        score_thresh: lowest score of a final box.
        output_raw_score: final scores are logits instead of probabilities.
        eval_metric: name of the metric, read by the data set's evaluation.
        multi_classes_nms: read by nothing, but named in some of OpenPCDet's files; that in ``nms_config`` counts.
        nms_config: how to suppress; None where the head does so itself.
    """

    recall_thresh_list: list[float]
    score_thresh: float | None = None
    output_raw_score: bool = False
    eval_metric: str = "kitti"
    multi_classes_nms: bool = False
    nms_config: NMSConfig | None = None


@dataclasses.dataclass(frozen=True)
class FramePredictions:
    """What the heads predict for one frame before suppression.

    Attributes:
        boxes_of: gives the LiDAR boxes (K, 7 + C) of rows (K,), so that only those in question need decoding.
        logits: class predictions, (n, c) for each head, n adding up to N; logits, or probabilities if ``normalized``.
        label_maps: the class ids, counted from 1, of each head's columns.
        normalized: whether ``logits`` already are probabilities.
        labels: (N,) class ids where an earlier stage has chosen them; None otherwise.
    """

    boxes_of: Callable[[Tensor], Tensor]
    logits: list[Tensor]
    label_maps: list[Tensor]
    normalized: bool
    labels: Tensor | None = None

    def all_boxes(self) -> Tensor:
        """(N, 7 + C)."""
        return self.boxes_of(torch.arange(sum(map(len, self.logits)), device=self.logits[0].device))


def final_boxes(frame: FramePredictions, config: PostProcessingConfig) -> dict[str, Tensor]:
    """Thresholds and suppresses the predictions of one frame.

    Returns:
        ``pred_boxes`` (K, 7 + C), ``pred_scores`` (K,), ``pred_labels`` (K,) int64, counted from 1.
    """
    if config.nms_config is None:
        raise ValueError("POST_PROCESSING.NMS_CONFIG is missing; this detector's boxes have not been suppressed yet")
    if config.nms_config.multi_classes_nms:
        boxes, scores, labels = _within_classes(frame, config)
    else:
        boxes, scores, labels = _across_classes(frame, config)
    return {"pred_boxes": boxes, "pred_scores": scores, "pred_labels": labels}


def _across_classes(frame: FramePredictions, config: PostProcessingConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Every box has its best class, and all compete."""
    if len(frame.logits) != 1:
        raise ValueError(
            f"NMS_CONFIG.MULTI_CLASSES_NMS must be True for a detector with several heads, got False and "
            f"{len(frame.logits)} heads"
        )
    raw = frame.logits[0]
    rows = _candidates(raw, frame.normalized, config.score_thresh)
    raw, boxes = raw[rows], frame.boxes_of(rows)
    scores, column = (raw if frame.normalized else torch.sigmoid(raw)).max(dim=1)
    labels = frame.label_maps[0][column] if frame.labels is None else frame.labels[rows]
    selected, kept = class_agnostic_nms(scores, boxes, config.nms_config, config.score_thresh)
    if config.output_raw_score:
        kept = raw[selected].max(dim=1).values
    return boxes[selected], kept, labels[selected]


def _within_classes(frame: FramePredictions, config: PostProcessingConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes compete with those of their class; each head has its own rows and classes."""
    if frame.labels is not None:
        raise ValueError(
            "NMS_CONFIG.MULTI_CLASSES_NMS must be False where proposals have their classes from an earlier stage, got "
            "True: the columns of the second stage's scores are no classes"
        )
    parts, start = [], 0
    for raw, label_map in zip(frame.logits, frame.label_maps, strict=True):
        if raw.shape[1] != len(label_map):
            raise ValueError(f"a head predicts {raw.shape[1]} classes, but has labels for {len(label_map)}")
        rows = _candidates(raw, frame.normalized, config.score_thresh)
        boxes = frame.boxes_of(start + rows)
        start += len(raw)
        raw = raw[rows]
        scores = raw if frame.normalized else torch.sigmoid(raw)
        selected, kept, column = multi_classes_nms(scores, boxes, config.nms_config, config.score_thresh)
        if config.output_raw_score:
            kept = raw[selected, column]
        parts.append((boxes[selected], kept, label_map[column]))
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]), torch.cat([p[2] for p in parts])


def _candidates(raw: Tensor, normalized: bool, score_thresh: float | None) -> Tensor:
    """(n,) rows that may pass the threshold, so that only these need probabilities; the exact test comes later."""
    if score_thresh is None or (not normalized and not 0 < score_thresh < 1):
        return torch.arange(len(raw), device=raw.device)
    bound = score_thresh if normalized else math.log(score_thresh / (1 - score_thresh)) - 1e-3
    return (raw >= bound).any(dim=1).nonzero().squeeze(1)


def generate_recall_record(
    box_preds: Tensor, recall_dict: dict, rois: Tensor | None, gt_boxes: Tensor | None, thresh_list: list[float]
) -> dict:
    """Counts of objects and of those found, added to ``recall_dict``.

    Args:
        box_preds: (N, 7 + C) final boxes, or with ``rois`` the refined ones before suppression.
        recall_dict: counts so far; empty at first.
        rois: (R, 7 + C) proposals of a first stage, or None.
        gt_boxes: (M, 8 + C) objects with the class last, padded with zero rows; None leaves the record as it is.
        thresh_list: 3D overlaps from which on (exclusive) an object counts as found.

    Returns:
        ``recall_dict`` with ``gt``, and ``roi_<t>`` and ``rcnn_<t>`` for every threshold.
    """
    if gt_boxes is None:
        return recall_dict
    for key in ("gt", *(f"{stage}_{t}" for t in thresh_list for stage in ("roi", "rcnn"))):
        recall_dict.setdefault(key, 0)
    objects = gt_boxes[gt_boxes.abs().sum(dim=1) > 0, :7]
    recall_dict["gt"] += len(objects)
    for stage, boxes in (("rcnn", box_preds), ("roi", rois)):
        if boxes is not None and len(boxes) and len(objects):
            best = _best_overlaps(boxes, objects)
            for t in thresh_list:
                recall_dict[f"{stage}_{t}"] += int((best > t).sum())
    return recall_dict


def _best_overlaps(boxes: Tensor, objects: Tensor) -> Tensor:
    """(M,) largest 3D overlap of each object with any box."""
    from pcdet.ops.iou3d_nms import iou3d_nms_utils

    overlaps = iou3d_nms_utils.boxes_iou3d(boxes[:, :7].float().contiguous(), objects.float().contiguous())
    return overlaps.max(dim=0).values
