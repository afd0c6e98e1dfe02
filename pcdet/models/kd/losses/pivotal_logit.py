"""Pivotal logits (SparseKD, NeurIPS 2022): raw predictions of dense heads matched where they matter.

Of centre heads, SparseKD's loss. Class part, weight 15: in each group of classes, the squared differences of a cell's
scores, summed over the classes, as a weighted mean over the cells under the bell of an object; a cell's weight is the
teacher's best score there times the height of the bell; then the mean over the groups. Box part, weight 0.2: the
absolute differences of the codes at the centres of objects, summed, over their number in the batch; then the mean over
the groups. Ours: a column counts as much as in the head's own loss (``code_weights``; SparseKD lists its own).

Of anchor heads, its author's recipe (SparseKD, issue 11, and its ``anchor_logit_kd_head``). Class part, weight 15: the
squared differences of all class scores of a cell that holds an anchor of an object, summed, over the number of such
cells. Box part, weight 0.2: the smooth-L1 differences of the codes of such an anchor, summed, over their number in the
frame, then over the frames. Ours, of heads with branches: a cell is one of a branch, with the scores of its classes;
those of all branches count alike; and a column of a code counts as much as in the head's own loss.

Places that the teacher is sure of, weighted by its score, can be used instead or as well.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from pcdet.models.kd.graphs.sampling import effective_sample_size
from pcdet.models.kd.heads import NOT_PREDICTED, BoxPlaces
from pcdet.models.kd.losses.base import zero_of
from pcdet.models.kd.losses.prediction_loss import HeadOutputs, Places, PredictionLoss
from pcdet.models.kd.model_outputs import ModelPair
from pcdet.registry import KD_LOSSES

HEADING = 6  # column of the heading residual in a box code that has angles
MAX_PIVOTS = 1024  # of a frame, by teacher score
LEAST_WEIGHT = 1e-6  # of all pivots together: scores may be nearly zero


@KD_LOSSES.register
class PivotalLogit(PredictionLoss):
    """Matches class scores and box codes of two heads at pivotal places: anchors, or cells of centre heads.

    Args:
        pivot: which places: "positive", anchors assigned to an object, or cells under an object's bell; "score", the
            teacher's score reaches ``threshold``; "both", one or the other; "confirmed", one and the other.
        by_score: weigh each pivot by the teacher's score, and where pivots must be positive by the height of the bell,
            not equally.
        threshold: least teacher score of a pivot.
        num: most pivots by score in a frame.
        cls_over: what the class part is a mean over. "cell": the cells of the batch that hold a pivot, each with the
            scores of all its anchors and, by score, with the largest weight of its pivots; "anchor": the pivots of the
            batch, each with its own scores, which a centre head does not have.
        reg_over: what the box part is a mean over. "frame": the places of each frame, then all frames, those without
            one too; "batch": the places of the batch.
        cls_weight: of the squared differences of class scores (after the sigmoid), summed.
        reg_weight: of the smooth-L1 differences of box codes, summed: at the pivots of anchor heads, the heading by the
            sine of the difference where a direction classifier tells the two ways round apart; at the centres of
            objects of centre heads, but nowhere if these have other cells, since codes are relative to a cell.
        beta: where smooth-L1 turns from quadratic to linear; 0: the absolute difference.
        pair: both detectors.
        **common: see ``PredictionLoss``.
    """

    OTHER_CELLS = True
    PRESETS = {
        "default": {"anchors": {}, "centers": {"BY_SCORE": True, "REG_OVER": "batch", "BETA": 0.0}},
    }

    def __init__(
        self,
        *,
        pivot: Literal["positive", "score", "both", "confirmed"] = "positive",
        by_score: bool = False,
        threshold: float = 0.1,
        num: int = MAX_PIVOTS,
        cls_over: Literal["cell", "anchor"] = "cell",
        reg_over: Literal["frame", "batch"] = "frame",
        cls_weight: float = 15.0,
        reg_weight: float = 0.2,
        beta: float = 1.0 / 9.0,
        pair: ModelPair,
        **common: Any,
    ):
        self.reg_weight = reg_weight  # decides whether boxes are read
        super().__init__(pair=pair, **common)
        if num < 1 or not 0 <= threshold <= 1 or not beta >= 0:
            raise ValueError(
                "NUM must be at least 1, THRESHOLD a score in [0, 1] and BETA at least 0, "
                f"got {num}, {threshold} and {beta}"
            )
        if self.centers and cls_over == "anchor":
            raise ValueError("CLS_OVER anchor: a centre head has no anchors; use cell")
        self.pivot, self.by_score, self.threshold, self.num = pivot, by_score, threshold, num
        self.cls_over, self.reg_over, self.cls_weight, self.beta = cls_over, reg_over, cls_weight, beta
        if reg_weight > 0 and not self.same_cells:
            self.reg_weight = 0.0
            self.left_out = "the box part, since the teacher's head has other cells, to which its codes are relative"

    @property
    def reads_boxes(self) -> bool:
        """See the base class."""
        return self.reg_weight > 0

    def compare_predictions(self, student: HeadOutputs, teacher: HeadOutputs) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs pivots (a frame), ess, cls and reg."""
        best, foreground = teacher.best_logits(), student.foreground
        pivots = self._pivots(best, foreground)
        weight = best[pivots].float().sigmoid() if self.by_score else torch.ones_like(best[pivots], dtype=torch.float32)
        if self.by_score and self.pivot in ("positive", "confirmed"):
            weight = weight * foreground[pivots]
        boxes = student.box_places(pivots, weight)
        if len(weight) + len(boxes.weight) == 0:
            return zero_of(*student.maps), {"pivots": torch.zeros(())}
        cls = self._class_part(student, teacher, pivots, weight)
        reg = self._box_part(student, teacher, boxes) if self.reg_weight > 0 else torch.zeros_like(cls)
        logs = {
            "pivots": torch.tensor(len(weight) / len(best)),
            "ess": effective_sample_size(weight, [len(weight)]) / len(best),
            "cls": self.cls_weight * cls.detach(),
            "reg": self.reg_weight * reg.detach(),
        }
        return self.cls_weight * cls + self.reg_weight * reg, logs

    def _class_part(self, student: HeadOutputs, teacher: HeadOutputs, pivots: Places, weight: Tensor) -> Tensor:
        """Mean over cells or anchors of the squared differences of their scores, summed; then over the groups."""
        if self.cls_over == "anchor":
            group = student.groups_at(pivots)
            delta = student.classes_at(pivots).sigmoid() - teacher.classes_at(pivots).sigmoid()
        else:
            cells, pivot_cell = student.cells_of(pivots)
            group = student.groups_of(cells)
            weight = weight.new_zeros(len(cells)).scatter_reduce_(0, pivot_cell, weight, "amax", include_self=True)
            delta = student.classes_in(cells).sigmoid() - teacher.classes_in(cells).sigmoid()
        return _mean_of_sets(delta.square().sum(dim=1), weight, group, student.num_groups)

    def _box_part(self, student: HeadOutputs, teacher: HeadOutputs, boxes: BoxPlaces) -> Tensor:
        """Mean over the places, of each frame or of all, of the smooth-L1 differences of their codes, summed."""
        where, weight = boxes
        delta = student.codes_at(where) - teacher.codes_at(where)
        distance = _box_distance(
            delta, self.beta, heading_by_sine=self.heading_by_sine, code_weights=student.code_weights
        )
        sets, num_sets = student.groups_at(where), student.num_groups
        if self.reg_over == "frame":
            sets, num_sets = sets * student.num_frames + where[0], num_sets * student.num_frames
        return _mean_of_sets(distance, weight, sets, num_sets)

    @torch.no_grad()
    def _pivots(self, best: Tensor, foreground: Tensor | None) -> Places:
        """The teacher's (B, places) largest class logits, and how far the student's are objects' -> the pivots."""
        sure, positive = torch.zeros_like(best, dtype=torch.bool), torch.zeros_like(best, dtype=torch.bool)
        if self.pivot != "positive":
            sure = best.float().sigmoid() >= self.threshold
            if int(sure.sum(dim=1).max()) > self.num:
                sure = torch.zeros_like(sure).scatter_(1, best.topk(self.num, dim=1).indices, True) & sure
        if self.pivot != "score":
            if foreground is None or foreground.shape != best.shape:
                raise ValueError(
                    f"PIVOT {self.pivot} needs the targets of {list(best.shape)} places in the student head's "
                    f"forward_ret_dict, found {None if foreground is None else list(foreground.shape)}"
                )
            positive = foreground > 0
        chosen = sure & positive if self.pivot == "confirmed" else sure | positive
        return (chosen & (best > NOT_PREDICTED)).nonzero(as_tuple=True)


def _mean_of_sets(values: Tensor, weight: Tensor, sets: Tensor, num_sets: int) -> Tensor:
    """Mean over sets, empty ones too, of the weighted mean of the (n,) values of each."""
    total = weight.new_zeros(num_sets).index_add_(0, sets, weight).clamp(min=LEAST_WEIGHT)
    return (weight * values / total[sets]).sum() / num_sets


def _box_distance(delta: Tensor, beta: float, *, heading_by_sine: bool, code_weights: Tensor | None) -> Tensor:
    """(n, codes) differences of box codes -> (n,) smooth-L1, summed over the codes."""
    if heading_by_sine:
        turned = torch.sin(delta[:, HEADING : HEADING + 1])
        delta = torch.cat([delta[:, :HEADING], turned, delta[:, HEADING + 1 :]], dim=1)
    zeros = torch.zeros_like(delta)
    distance = torch.nn.functional.smooth_l1_loss(delta, zeros, beta=beta, reduction="none")
    return (distance if code_weights is None else distance * code_weights).sum(dim=1)
