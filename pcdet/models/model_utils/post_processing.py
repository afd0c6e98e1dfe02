"""From the predictions of a batch to the final boxes of each frame, and the record of recall."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from pcdet.models.model_utils.model_nms_utils import NMSConfig, class_agnostic_nms, multi_classes_nms
from pcdet.utils.transfer import rows_where


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


@dataclasses.dataclass(frozen=True)
class Candidates:
    """The rows of one head in one frame that may pass the score threshold.

    Attributes:
        boxes: (n, 7 + C).
        raw: (n, c) class predictions.
        scores: (n, c) their probabilities.
        label_map: (c,) class ids of the columns.
        labels: (n,) class ids where an earlier stage has chosen them; None otherwise.
    """

    boxes: Tensor
    raw: Tensor
    scores: Tensor
    label_map: Tensor
    labels: Tensor | None


def final_boxes(frames: Sequence[FramePredictions], config: PostProcessingConfig) -> list[dict[str, Tensor]]:
    """Thresholds and suppresses the predictions of a batch.

    The host waits for the GPU five times at most, however many frames, heads and classes there are.

    Returns:
        For each frame ``pred_boxes`` (K, 7 + C), ``pred_scores`` (K,), ``pred_labels`` (K,) int64, counted from 1.

    Raises:
        ValueError: ``config`` does not suit the heads; or boxes or scores that take part are not finite.
    """
    if config.nms_config is None:
        raise ValueError("POST_PROCESSING.NMS_CONFIG is missing; this detector's boxes have not been suppressed yet")
    multi = config.nms_config.multi_classes_nms
    for frame in frames:
        (_check_within_classes if multi else _check_across_classes)(frame)
    found = (_within_classes if multi else _across_classes)(_candidates(frames, config.score_thresh), config)
    results = []
    for frame in frames:
        parts = zip(*itertools.islice(found, len(frame.logits)), strict=True)
        results.append(dict(zip(("pred_boxes", "pred_scores", "pred_labels"), map(torch.cat, parts), strict=True)))
    return results


def _check_across_classes(frame: FramePredictions) -> None:
    if len(frame.logits) != 1:
        raise ValueError(
            f"NMS_CONFIG.MULTI_CLASSES_NMS must be True for a detector with several heads, got False and "
            f"{len(frame.logits)} heads"
        )


def _check_within_classes(frame: FramePredictions) -> None:
    if frame.labels is not None:
        raise ValueError(
            "NMS_CONFIG.MULTI_CLASSES_NMS must be False where proposals have their classes from an earlier stage, got "
            "True: the columns of the second stage's scores are no classes"
        )
    for raw, label_map in zip(frame.logits, frame.label_maps, strict=True):
        if raw.shape[1] != len(label_map):
            raise ValueError(f"a head predicts {raw.shape[1]} classes, but has labels for {len(label_map)}")


def _candidates(frames: Sequence[FramePredictions], score_thresh: float | None) -> list[Candidates]:
    """What may pass the threshold, by frame and head, so that only this needs boxes; the exact test comes later."""
    found, rows = [], iter(_candidate_rows(frames, score_thresh))
    for frame in frames:
        start = 0
        for raw, label_map in zip(frame.logits, frame.label_maps, strict=True):
            chosen = next(rows)
            some, boxes = raw[chosen], frame.boxes_of(start + chosen)
            labels = None if frame.labels is None else frame.labels[chosen]
            scores = some if frame.normalized else torch.sigmoid(some)
            found.append(Candidates(boxes, some, scores, label_map, labels))
            start += len(raw)
    return found


def _candidate_rows(frames: Sequence[FramePredictions], score_thresh: float | None) -> list[Tensor]:
    """(n,) rows of each head of each frame, chosen without a probability."""
    heads = [(raw, frame.normalized) for frame in frames for raw in frame.logits]
    if score_thresh is None or not (0 < score_thresh < 1 or all(normalized for _, normalized in heads)):
        return [torch.arange(len(raw), device=raw.device) for raw, _ in heads]
    bounds = [
        score_thresh if normalized else math.log(score_thresh / (1 - score_thresh)) - 1e-3 for _, normalized in heads
    ]
    return rows_where([(raw >= bound).any(dim=1) for (raw, _), bound in zip(heads, bounds, strict=True)])


def _across_classes(
    candidates: Sequence[Candidates], config: PostProcessingConfig
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Boxes, scores and labels of each frame: every box has its best class, and all compete."""
    best = [c.scores.max(dim=1) for c in candidates]
    sets = [(b.values, c.boxes) for b, c in zip(best, candidates, strict=True)]
    survivors = class_agnostic_nms(sets, config.nms_config, config.score_thresh)
    for c, b, (selected, kept) in zip(candidates, best, survivors, strict=True):
        labels = c.label_map[b.indices] if c.labels is None else c.labels
        scores = c.raw[selected].max(dim=1).values if config.output_raw_score else kept
        yield c.boxes[selected], scores, labels[selected]


def _within_classes(
    candidates: Sequence[Candidates], config: PostProcessingConfig
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Boxes, scores and labels of each head of each frame: boxes compete with those of their class."""
    sets = [(c.scores, c.boxes) for c in candidates]
    survivors = multi_classes_nms(sets, config.nms_config, config.score_thresh)
    for c, (selected, kept, column) in zip(candidates, survivors, strict=True):
        yield c.boxes[selected], c.raw[selected, column] if config.output_raw_score else kept, c.label_map[column]


def generate_recall_record(
    box_preds: Sequence[Tensor],
    rois: Sequence[Tensor] | None,
    gt_boxes: Sequence[Tensor] | None,
    thresh_list: Sequence[float],
) -> dict[str, int]:
    """Counts of a batch's objects and of those found; the host waits for the GPU once.

    Args:
        box_preds: for each frame (N, 7 + C) final boxes, or with ``rois`` the refined ones before suppression.
        rois: for each frame (R, 7 + C) proposals of a first stage; None without one.
        gt_boxes: for each frame (M, 8 + C) objects with the class last, padded with zero rows; None without labels.
        thresh_list: 3D overlaps from which on (exclusive) an object counts as found.

    Returns:
        ``gt``, and ``roi_<t>`` and ``rcnn_<t>`` for every threshold; empty where ``gt_boxes`` is None.
    """
    if gt_boxes is None:
        return {}
    keys = ["gt", *(f"{stage}_{t}" for stage in ("roi", "rcnn") for t in thresh_list)]
    proposals = [None] * len(box_preds) if rois is None else rois
    counts = [
        torch.stack([real.sum(), *_found(first, gt, real, thresh_list), *_found(boxes, gt, real, thresh_list)])
        for boxes, first, gt in zip(box_preds, proposals, gt_boxes, strict=True)
        for real in [(gt != 0).any(dim=1)]  # an unknown velocity is NaN
    ]
    return dict(zip(keys, torch.stack(counts).sum(dim=0).tolist(), strict=True))


def _found(boxes: Tensor | None, gt_boxes: Tensor, real: Tensor, thresh_list: Sequence[float]) -> list[Tensor]:
    """() for each threshold: how many ``real`` (M,) objects overlap one of the boxes by more."""
    if boxes is None or not len(boxes) or not len(gt_boxes):
        return [torch.zeros_like(real.sum()) for _ in thresh_list]
    objects = torch.where(real[:, None], gt_boxes[:, :7], 0)
    best = _best_overlaps(boxes, objects)
    return [((best > t) & real).sum() for t in thresh_list]


def _best_overlaps(boxes: Tensor, objects: Tensor) -> Tensor:
    """(M,) largest 3D overlap of each object with any box."""
    from pcdet.ops.iou3d_nms import iou3d_nms_utils

    overlaps = iou3d_nms_utils.boxes_iou3d(boxes[:, :7].float().contiguous(), objects.float().contiguous())
    return overlaps.max(dim=0).values
