"""Label distillation (SparseKD, NeurIPS 2022): boxes that the teacher is sure of join the labels of the student.

SparseKD takes the teacher's final boxes whose score exceeds 0.6, with a threshold for each class, and puts them beside
the true boxes before the student's heads assign their targets. Ours: a box that overlaps a true one is left out, since
it would teach the same object twice, and less exactly. ``MAX_IOU: 1.0`` takes all, as SparseKD does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pcdet.ops.iou3d_nms.iou3d_nms_utils import boxes_iou_bev

BOX = 7  # columns [x, y, z, dx, dy, dz, heading]


@dataclass(frozen=True, kw_only=True)
class LabelsConfig:
    """Which of the teacher's boxes become labels.

    Attributes:
        score: they must exceed it; one for all classes, or one for each.
        max_iou: largest overlap with any true box, from above. 0.1 tells an object from its neighbour: boxes that a
            teacher finds for one object overlap its true box by far more, and those of two objects hardly meet.
    """

    score: float | list[float] = 0.6
    max_iou: float = 0.1

    def __post_init__(self):
        scores = self.score if isinstance(self.score, list) else [self.score]
        if not scores or not all(0 <= score <= 1 for score in scores):
            raise ValueError(f"SCORE: must be a score in [0, 1], or one for each class, got {self.score}")
        if not 0 <= self.max_iou <= 1:
            raise ValueError(f"MAX_IOU: must be in [0, 1], got {self.max_iou}")

    def check_classes(self, num_class: int) -> None:
        """ValueError if there is not one score for each class."""
        if isinstance(self.score, list) and len(self.score) != num_class:
            raise ValueError(f"SCORE: must name a score for each of {num_class} classes, got {self.score}")


@torch.no_grad()
def with_teacher_boxes(
    gt_boxes: Tensor, predictions: Sequence[Mapping[str, Tensor]], config: LabelsConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The true boxes and those of the teacher's that become labels.

    Args:
        gt_boxes: (B, T, 8 + C) with the class, counted from 1, last; rows of zeros are padding.
        predictions: of each frame ``pred_boxes`` (K, 7 + C or more), ``pred_scores`` (K,) probabilities and
            ``pred_labels`` (K,) classes.
        config: which become labels.

    Returns:
        (B, T', 8 + C), T' the largest T + K, padding last; and what to log: boxes ``added`` a frame, and ``doubled``,
        those that a true one overlaps.

    Raises:
        ValueError: the teacher's boxes have fewer columns than the true ones.
    """
    columns = gt_boxes.shape[2] - 1
    most = max((len(frame["pred_boxes"]) for frame in predictions), default=0)
    extra = gt_boxes.new_zeros(len(gt_boxes), most, columns + 1)
    sure, doubled = (torch.zeros(extra.shape[:2], dtype=torch.bool, device=gt_boxes.device) for _ in range(2))
    for i, frame in enumerate(predictions):
        boxes, labels, count = frame["pred_boxes"].to(gt_boxes), frame["pred_labels"].long(), len(frame["pred_boxes"])
        if boxes.shape[1] < columns:
            raise ValueError(
                f"KD.LABELS: the teacher's boxes have {boxes.shape[1]} columns and the true ones {columns}; use a "
                "teacher that predicts them all"
            )
        extra[i, :count] = torch.cat([boxes[:, :columns], labels[:, None].to(boxes)], dim=1)
        sure[i, :count] = frame["pred_scores"] > _thresholds(config.score, labels, frame["pred_scores"])
        overlap = boxes_iou_bev(boxes[:, :BOX].contiguous(), gt_boxes[i, :, :BOX].contiguous())
        doubled[i, :count] = (overlap > config.max_iou).any(dim=1)
    taken = sure & ~doubled
    joined = torch.cat([gt_boxes, extra * taken[:, :, None]], dim=1)
    order = (joined[:, :, -1] < 1).to(torch.uint8).argsort(dim=1, stable=True)
    joined = joined.gather(1, order[:, :, None].expand_as(joined))
    frames = max(1, len(gt_boxes))
    return joined, {"added": taken.sum() / frames, "doubled": (sure & doubled).sum() / frames}


def _thresholds(score: float | list[float], labels: Tensor, like: Tensor) -> Tensor | float:
    """The threshold of each box of these classes."""
    return like.new_tensor(score)[labels - 1] if isinstance(score, list) else score


def final_boxes_of(teacher: torch.nn.Module, batch_dict: Mapping) -> list[dict[str, Tensor]]:
    """A teacher's batch after its forward in eval mode -> the final boxes of each frame, scores as probabilities."""
    # without the true boxes, of which only a record of recall would be made
    given = {key: value for key, value in batch_dict.items() if key != "gt_boxes"}
    predictions, _ = teacher.post_processing(given)
    if teacher.post_processing_cfg.output_raw_score and "final_box_dicts" not in given:  # a centre head's are scores
        predictions = [{**frame, "pred_scores": frame["pred_scores"].sigmoid()} for frame in predictions]
    return predictions
