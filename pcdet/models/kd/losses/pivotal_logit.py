"""Pivotal logits (SparseKD, NeurIPS 2022) for anchor heads: raw predictions matched where they matter.

SparseKD's loss is for centre heads; its author's recipe for anchors (SparseKD, issue 11, and its
``anchor_logit_kd_head``) is the default here. Class part, weight 15: the squared differences of all class scores of a
cell that holds an anchor of an object, summed, over the number of such cells. Box part, weight 0.2: the smooth-L1
differences of the codes of such an anchor, summed, over their number in the frame, then over the frames. Anchors that
the teacher is sure of, weighted by its score, can be used instead or as well.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from pcdet.models.kd.graphs.sampling import effective_sample_size
from pcdet.models.kd.losses.base import zero_of
from pcdet.models.kd.losses.prediction_loss import Anchors, HeadOutputs, PredictionLoss
from pcdet.registry import KD_LOSSES

HEADING = 6  # column of the heading residual in a box code that has angles
MAX_PIVOTS = 1024  # of a frame, by teacher score
LEAST_WEIGHT = 1e-6  # of all pivots together: scores may be nearly zero


@KD_LOSSES.register
class PivotalLogit(PredictionLoss):
    """Matches class scores and box codes of an anchor head at pivotal anchors.

    Args:
        pivot: which anchors: "positive", assigned to an object; "score", the teacher's score reaches ``threshold``;
            "both".
        by_score: weigh each pivot by the teacher's score, not equally.
        threshold: least teacher score of a pivot.
        num: most pivots by score in a frame.
        cls_over: what the class part is a mean over. "cell": the cells of the batch that hold a pivot, each with the
            scores of all its anchors and, by score, with the largest weight of its pivots; "anchor": the pivots of the
            batch, each with its own scores.
        reg_over: what the box part is a mean over. "frame": the pivots of each frame, then all frames, those without a
            pivot too; "batch": the pivots of the batch.
        cls_weight: of the squared differences of class scores (after the sigmoid), summed.
        reg_weight: of the smooth-L1 differences of box codes, summed, the heading through the sine of the difference
            where a direction classifier tells the two ways round apart.
        beta: where smooth-L1 turns from quadratic to linear.
        **common: see ``PredictionLoss``.
    """

    def __init__(
        self,
        *,
        pivot: Literal["positive", "score", "both"] = "positive",
        by_score: bool = False,
        threshold: float = 0.1,
        num: int = MAX_PIVOTS,
        cls_over: Literal["cell", "anchor"] = "cell",
        reg_over: Literal["frame", "batch"] = "frame",
        cls_weight: float = 15.0,
        reg_weight: float = 0.2,
        beta: float = 1.0 / 9.0,
        **common: Any,
    ):
        super().__init__(**common)
        if num < 1 or not 0 <= threshold <= 1 or not beta >= 0:
            raise ValueError(
                "NUM must be at least 1, THRESHOLD a score in [0, 1] and BETA at least 0, "
                f"got {num}, {threshold} and {beta}"
            )
        self.pivot, self.by_score, self.threshold, self.num = pivot, by_score, threshold, num
        self.cls_over, self.reg_over = cls_over, reg_over
        self.cls_weight, self.reg_weight, self.beta = cls_weight, reg_weight, beta

    def compare_predictions(self, student: HeadOutputs, teacher: HeadOutputs) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs pivots (a frame), ess, cls and reg."""
        best = teacher.best_logits()
        pivots = self._pivots(best, student.labels)
        if len(pivots[0]) == 0:
            return zero_of(student.classes, student.codes), {"pivots": torch.zeros(())}
        score = best[pivots].float().sigmoid()
        weight = score if self.by_score else torch.ones_like(score)
        cls = self._class_part(student, teacher, pivots, weight)
        reg = self._box_part(student, teacher, pivots, weight, num_frames=len(best))
        logs = {
            "pivots": torch.tensor(len(weight) / len(best)),
            "ess": effective_sample_size(weight, [len(weight)]) / len(best),
            "cls": self.cls_weight * cls.detach(),
            "reg": self.reg_weight * reg.detach(),
        }
        return self.cls_weight * cls + self.reg_weight * reg, logs

    def _class_part(self, student: HeadOutputs, teacher: HeadOutputs, pivots: Anchors, weight: Tensor) -> Tensor:
        """Mean over cells or anchors of the squared differences of their scores, summed."""
        if self.cls_over == "anchor":
            delta = student.classes_at(pivots).sigmoid() - teacher.classes_at(pivots).sigmoid()
        else:
            cells, pivot_cell = student.cells_of(pivots)
            weight = weight.new_zeros(len(cells)).scatter_reduce_(0, pivot_cell, weight, "amax", include_self=True)
            delta = student.classes_in(cells).sigmoid() - teacher.classes_in(cells).sigmoid()
        return (weight * delta.square().sum(dim=1)).sum() / weight.sum().clamp(min=LEAST_WEIGHT)

    def _box_part(
        self, student: HeadOutputs, teacher: HeadOutputs, pivots: Anchors, weight: Tensor, num_frames: int
    ) -> Tensor:
        """Mean over the pivots, of each frame or of all, of the smooth-L1 differences of their codes, summed."""
        delta = student.codes_at(pivots) - teacher.codes_at(pivots)
        distance = weight * _box_distance(delta, self.beta, heading_by_sine=self.heading_by_sine)
        if self.reg_over == "batch":
            return distance.sum() / weight.sum().clamp(min=LEAST_WEIGHT)
        batch_idx = pivots[0]
        total = weight.new_zeros(num_frames).index_add_(0, batch_idx, weight).clamp(min=LEAST_WEIGHT)
        return (distance / total[batch_idx]).sum() / num_frames

    @torch.no_grad()
    def _pivots(self, best: Tensor, labels: Tensor | None) -> Anchors:
        """The teacher's (B, anchors) largest class logits, and labels of the student's anchors -> the pivots."""
        chosen = torch.zeros_like(best, dtype=torch.bool)
        if self.pivot in ("score", "both"):
            chosen = best.float().sigmoid() >= self.threshold
            if int(chosen.sum(dim=1).max()) > self.num:
                chosen = torch.zeros_like(chosen).scatter_(1, best.topk(self.num, dim=1).indices, True) & chosen
        if self.pivot in ("positive", "both"):
            if labels is None or labels.shape != best.shape:
                raise ValueError(
                    f"PIVOT {self.pivot} needs box_cls_labels {list(best.shape)} in the student head's "
                    f"forward_ret_dict, found {None if labels is None else list(labels.shape)}"
                )
            chosen |= labels > 0
        return chosen.nonzero(as_tuple=True)


def _box_distance(delta: Tensor, beta: float, *, heading_by_sine: bool) -> Tensor:
    """(n, codes) differences of box codes -> (n,) smooth-L1, summed over the codes."""
    if heading_by_sine:
        turned = torch.sin(delta[:, HEADING : HEADING + 1])
        delta = torch.cat([delta[:, :HEADING], turned, delta[:, HEADING + 1 :]], dim=1)
    zeros = torch.zeros_like(delta)
    return torch.nn.functional.smooth_l1_loss(delta, zeros, beta=beta, reduction="none").sum(dim=1)
