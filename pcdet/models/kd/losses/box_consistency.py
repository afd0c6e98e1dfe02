"""Consistency of predicted boxes, from SE-SSD (Zheng et al., CVPR 2021), as in its released code.

    L = 1/B sum over frames ( 1/n sum over pairs [ 1/7 sum of smooth_L1(b_S - b_T) ] + 1/n sum smooth_L1(s_S - s_T) )

Boxes b, decoded [x, y, z, dx, dy, dz, heading] in metres and radians, whose best score s reaches 0.3 on both sides; of
each of the student's boxes the teacher's box of the largest ground IoU, if above 0.7; headings through the sine of
their difference; both weights 1. These are the source's constants. Its factor exp(-5 (1 - t / 15)^2) over the first 15
epochs is ``SCHEDULE: {NAME: gaussian, EPOCHS: 15}``.

Ours: the teacher is fixed, in place of a moving average of the student, and sees the student's points, in place of
points before their augmentation; there is no part for predicted IoUs, which these heads do not have. There is more than
one class: a pair has one class, and the smooth-L1 differences of its scores are summed over the classes. A frame's
``NUM`` best boxes take part, so that memory has a limit. A student that starts from nothing has no score of 0.3, hence
no pair and no loss, until it has learned some; a lower STUDENT_THRESHOLD lets it begin sooner.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from pcdet.models.kd.losses.base import means_of_frames, zero_of
from pcdet.models.kd.losses.prediction_loss import HeadOutputs, Places, PredictionLoss
from pcdet.ops.iou3d_nms.iou3d_nms_utils import LARGEST_ENTRY, boxes_iou_bev
from pcdet.registry import KD_LOSSES

BOX = 7  # [x, y, z, dx, dy, dz, heading]; further columns are not compared
HEADING = 6


@KD_LOSSES.register
class BoxConsistency(PredictionLoss):
    """Difference between the student's boxes and scores and those of the teacher's boxes that they cover.

    Args:
        threshold: least score of a teacher's box.
        student_threshold: least score of a student's box.
        iou: ground IoU above which two boxes of a class are a pair.
        num: most boxes by score, of each side in a frame.
        box_weight: of the box part.
        cls_weight: of the score part.
        beta: where smooth-L1 turns from quadratic to linear.
        **common: see ``PredictionLoss``.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.3,
        student_threshold: float = 0.3,
        iou: float = 0.7,
        num: int = 256,
        box_weight: float = 1.0,
        cls_weight: float = 1.0,
        beta: float = 1.0 / 9.0,
        **common: Any,
    ):
        super().__init__(**common)
        if num < 1 or not all(0 <= value <= 1 for value in (threshold, student_threshold, iou)) or not beta >= 0:
            raise ValueError(
                "NUM must be at least 1, THRESHOLD, STUDENT_THRESHOLD and IOU in [0, 1] and BETA at least 0, got "
                f"{num}, {threshold}, {student_threshold}, {iou} and {beta}"
            )
        self.threshold, self.student_threshold, self.iou, self.num = threshold, student_threshold, iou, num
        self.box_weight, self.cls_weight, self.beta = box_weight, cls_weight, beta

    def compare_predictions(self, student: HeadOutputs, teacher: HeadOutputs) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs boxes and student_boxes (a frame), pairs (a frame), iou of the pairs, box, cls."""
        ours, theirs, overlap, kept = self._pairs(student, teacher)
        frames = student.num_frames
        pairs = torch.tensor(len(overlap) / frames)
        logs = {"boxes": kept[1] / frames, "student_boxes": kept[0] / frames, "pairs": pairs}
        if len(overlap) == 0:
            return zero_of(*student.maps), logs
        delta = self._box_difference(student.boxes_at(ours), teacher.boxes_at(theirs))
        scores = student.classes_at(ours).sigmoid() - teacher.classes_at(theirs).sigmoid()
        box = means_of_frames(self._smooth_l1(delta).sum(dim=1) / BOX, ours[0], frames).mean()
        cls = means_of_frames(self._smooth_l1(scores).sum(dim=1), ours[0], frames).mean()
        logs |= {
            "iou": overlap.mean(),
            "box": self.box_weight * box.detach(),
            "cls": self.cls_weight * cls.detach(),
        }
        return self.box_weight * box + self.cls_weight * cls, logs

    @torch.no_grad()
    def _pairs(
        self, student: HeadOutputs, teacher: HeadOutputs
    ) -> tuple[Places, Places, Tensor, tuple[Tensor, Tensor]]:
        """The anchors of the pairs on both sides, their (n,) IoU, and how many boxes of each side could have one."""
        anchors, boxes, classes, kept = zip(
            *(
                self._candidates(side, least)
                for side, least in ((student, self.student_threshold), (teacher, self.threshold))
            ),
            strict=True,
        )
        overlap = torch.stack([boxes_iou_bev(a, b) for a, b in zip(*boxes, strict=True)])
        overlap = overlap * (classes[0][:, :, None] == classes[1][:, None])
        best, nearest = overlap.max(dim=2)
        frame, row = (best > self.iou).nonzero(as_tuple=True)
        theirs = anchors[1][frame, nearest[frame, row]]
        return (frame, anchors[0][frame, row]), (frame, theirs), best[frame, row], tuple(k.sum() for k in kept)

    def _candidates(self, side: HeadOutputs, least: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, K) anchors of the best scores, (B, K, 7) boxes, (B, K) classes, (B, K) whether they may be in a pair.

        The others, and boxes that are not finite or too large for an overlap, are boxes of no size, which overlap with
        nothing.
        """
        best = side.best_logits()
        score, anchors = best.topk(min(self.num, best.shape[1]), dim=1)
        where = torch.arange(len(best), device=best.device).repeat_interleave(anchors.shape[1]), anchors.flatten()
        boxes = side.boxes_at(where)[:, :BOX].unflatten(0, anchors.shape)
        classes = side.classes_at(where).argmax(dim=1).view_as(anchors)
        kept = (score.float().sigmoid() >= least) & (boxes.abs() <= LARGEST_ENTRY).all(dim=2)
        return anchors, torch.where(kept[..., None], boxes, 0).contiguous(), classes, kept

    def _box_difference(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """(n, 7) differences of boxes; headings by the sine, of half of it where half a turn is a difference."""
        delta = ours[:, :BOX] - theirs[:, :BOX]
        turn = delta[:, HEADING:]
        turn = torch.sin(turn) if self.heading_by_sine else 2 * torch.sin(turn / 2)
        return torch.cat([delta[:, :HEADING], turn], dim=1)

    def _smooth_l1(self, delta: Tensor) -> Tensor:
        return smooth_l1_loss(delta, torch.zeros_like(delta), beta=self.beta, reduction="none")
