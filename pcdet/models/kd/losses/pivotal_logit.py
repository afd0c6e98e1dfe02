"""Pivotal logits (SparseKD, NeurIPS 2022) for anchor heads: raw predictions matched where they matter.

SparseKD's loss is for centre heads; its author's recipe for anchors (SparseKD, issue 11, and its
``anchor_logit_kd_head``) is the default here. Class part, weight 15: the squared differences of all class scores of a
cell that holds an anchor of an object, summed, over the number of such cells. Box part, weight 0.2: the smooth-L1
differences of the codes of such an anchor, summed, over their number in the frame, then over the frames. Anchors that
the teacher is sure of, weighted by its score, can be used instead or as well.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pcdet.models.kd.features.taps import head_taps
from pcdet.models.kd.graphs.sampling import effective_sample_size
from pcdet.models.kd.losses.base import KDLoss
from pcdet.models.kd.model_outputs import Pair, View
from pcdet.models.kd.schedule import CONSTANT, ScheduleConfig
from pcdet.registry import KD_LOSSES

HEADING = 6  # column of the heading residual in a box code that has angles
MAX_PIVOTS = 1024  # of a frame, by teacher score
LEAST_WEIGHT = 1e-6  # of all pivots together: scores may be nearly zero


@KD_LOSSES.register
class PivotalLogit(KDLoss):
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
        weight: of both together.
        schedule: of the weight over the epochs.
        pair: both detectors.
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
        weight: float = 1.0,
        schedule: ScheduleConfig = CONSTANT,
        pair: Pair,
    ):
        super().__init__(weight=weight, schedule=schedule)
        if num < 1 or not 0 <= threshold <= 1 or not beta >= 0:
            raise ValueError(
                "NUM must be at least 1, THRESHOLD a score in [0, 1] and BETA at least 0, "
                f"got {num}, {threshold} and {beta}"
            )
        self.pivot, self.by_score, self.threshold, self.num = pivot, by_score, threshold, num
        self.cls_over, self.reg_over = cls_over, reg_over
        self.cls_weight, self.reg_weight, self.beta = cls_weight, reg_weight, beta
        head_taps(pair.student)  # that there is a head; its training forward leaves its predictions on it
        self.teacher_taps = head_taps(pair.teacher)
        self.num_class = pair.student.dense_head.num_class
        if pair.teacher.dense_head.num_class != self.num_class:
            raise ValueError(
                f"PivotalLogit compares class scores: the teacher has {pair.teacher.dense_head.num_class} classes, "
                f"the student {self.num_class}"
            )
        _check_same_anchors(pair)
        # Half a turn is the classifier's business, as in the head's own loss; where there is none, only this tells.
        coder = getattr(pair.student.dense_head, "box_coder", None)
        classified = any(getattr(d.dense_head, "conv_dir_cls", None) is not None for d in (pair.student, pair.teacher))
        self.heading_by_sine = classified and not getattr(coder, "encode_angle_by_sincos", False)

    def forward(self, student: View, teacher: View, *, diagnose: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs pivots (a frame), ess, cls and reg."""
        given = _Predictions(student, self.num_class, learns=True)
        wanted = _Predictions(teacher, self.num_class)
        if given.classes.shape != wanted.classes.shape or given.codes.shape != wanted.codes.shape:
            raise ValueError(
                "teacher and student must have the same anchors, got class maps "
                f"{list(wanted.classes.shape)} and {list(given.classes.shape)}, box maps {list(wanted.codes.shape)} "
                f"and {list(given.codes.shape)}; use the same strides and anchor settings"
            )
        best = _best_logit(wanted.classes)
        where = self._pivots(best, student)
        if len(where[0]) == 0:
            # float32 first: in float16 the sum of a map's logits overflows, and infinity times zero is NaN
            nothing = (given.classes.float().sum() + given.codes.float().sum()) * 0
            return nothing, {"pivots": torch.zeros(())}
        score = best[where].float().sigmoid()
        weight = score if self.by_score else torch.ones_like(score)
        cls = self._class_part(given, wanted, where, weight)
        reg = self._box_part(given, wanted, where, weight, frames=len(best))
        logs = {
            "pivots": torch.tensor(len(weight) / len(best)),
            "ess": effective_sample_size(weight, [len(weight)]) / len(best),
            "cls": self.cls_weight * cls.detach(),
            "reg": self.reg_weight * reg.detach(),
        }
        return self.cls_weight * cls + self.reg_weight * reg, logs

    def _class_part(
        self, given: _Predictions, wanted: _Predictions, where: tuple[Tensor, Tensor], weight: Tensor
    ) -> Tensor:
        """Mean over cells or anchors of the squared differences of their scores, summed."""
        if self.cls_over == "anchor":
            delta = given.classes_at(where).sigmoid() - wanted.classes_at(where).sigmoid()
        else:
            cells, pivot_cell = given.cells_of(where)
            weight = weight.new_zeros(len(cells)).scatter_reduce_(0, pivot_cell, weight, "amax", include_self=True)
            delta = given.classes_in(cells).sigmoid() - wanted.classes_in(cells).sigmoid()
        return (weight * delta.square().sum(dim=1)).sum() / weight.sum().clamp(min=LEAST_WEIGHT)

    def _box_part(
        self, given: _Predictions, wanted: _Predictions, where: tuple[Tensor, Tensor], weight: Tensor, frames: int
    ) -> Tensor:
        """Mean over the pivots, of each frame or of all, of the smooth-L1 differences of their codes, summed."""
        delta = given.codes_at(where) - wanted.codes_at(where)
        distance = weight * _box_distance(delta, self.beta, heading_by_sine=self.heading_by_sine)
        if self.reg_over == "batch":
            return distance.sum() / weight.sum().clamp(min=LEAST_WEIGHT)
        total = weight.new_zeros(frames).index_add_(0, where[0], weight).clamp(min=LEAST_WEIGHT)
        return (distance / total[where[0]]).sum() / frames

    @torch.no_grad()
    def _pivots(self, best: Tensor, student: View) -> tuple[Tensor, Tensor]:
        """Frame and anchor of every pivot; ``best`` is the teacher's (B, anchors) largest class logit."""
        chosen = torch.zeros_like(best, dtype=torch.bool)
        if self.pivot in ("score", "both"):
            chosen = best.float().sigmoid() >= self.threshold
            if int(chosen.sum(dim=1).max()) > self.num:
                chosen = torch.zeros_like(chosen).scatter_(1, best.topk(self.num, dim=1).indices, True) & chosen
        if self.pivot in ("positive", "both"):
            labels = student.detector.dense_head.forward_ret_dict.get("box_cls_labels")
            if labels is None or labels.shape != best.shape:
                raise ValueError(
                    f"PIVOT {self.pivot} needs box_cls_labels {list(best.shape)} in the student head's "
                    f"forward_ret_dict, found {None if labels is None else list(labels.shape)}"
                )
            chosen |= labels > 0
        return chosen.nonzero(as_tuple=True)


def _check_same_anchors(pair: Pair) -> None:
    """ValueError if the anchors of both heads are known and differ."""
    given, wanted = (getattr(side.dense_head, "anchor_table", None) for side in (pair.student, pair.teacher))
    if given is None or wanted is None:
        return
    if given.shape != wanted.shape or not torch.allclose(given.cpu(), wanted.cpu(), atol=1e-4):
        raise ValueError(
            f"PivotalLogit compares anchor by anchor, but the teacher's {len(wanted)} anchors are not the student's "
            f"{len(given)}; it needs the same POINT_CLOUD_RANGE, strides and ANCHOR_GENERATOR_CONFIG. Losses on "
            "features (PointDistiller, FitNet) do without"
        )


class _Predictions:
    """Raw predictions of an anchor head, read by anchor or by cell without copying the maps.

    Anchors are numbered as OpenPCDet flattens them: row, column, anchor of the cell.
    """

    def __init__(self, view: View, num_class: int, *, learns: bool = False):
        anchors = view.class_logits.shape[3] // num_class
        self.classes = view.class_logits.unflatten(3, (anchors, num_class))  # (B, H, W, A, classes)
        self.codes = view.box_codes.unflatten(3, (anchors, -1))  # (B, H, W, A, codes)
        self._recompute = getattr(view.detector.dense_head, "predictions_at", None) if learns else None

    def classes_at(self, where: tuple[Tensor, Tensor]) -> Tensor:
        """(n, classes) logits, float32."""
        return self._at(self.classes, where)

    def cells_of(self, where: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """(m,) numbers of the cells in which anchors stand, each once, and (n,) which of them each anchor is in."""
        frame, anchor = where
        _, height, width, anchors, _ = self.classes.shape
        return torch.unique(frame * (height * width) + anchor // anchors, return_inverse=True)

    def classes_in(self, cells: Tensor) -> Tensor:
        """(m, A * classes) logits of all anchors of cells, float32."""
        _, height, width, _, _ = self.classes.shape
        frame, cell = cells // (height * width), cells % (height * width)
        return self.classes[frame, cell // width, cell % width].flatten(1).float()

    def codes_at(self, where: tuple[Tensor, Tensor]) -> Tensor:
        """(n, codes) box codes, float32."""
        if self._recompute is None:
            return self._at(self.codes, where)
        # A few anchors computed again spare the convolution's backward pass over the whole map.
        frame, anchor = where
        return self._recompute(frame * self.classes[0, ..., 0].numel() + anchor)[0].float()

    @staticmethod
    def _at(maps: Tensor, where: tuple[Tensor, Tensor]) -> Tensor:
        frame, anchor = where
        _, _, width, anchors, _ = maps.shape
        cell, slot = anchor // anchors, anchor % anchors
        return maps[frame, cell // width, cell % width, slot].float()


def _best_logit(classes: Tensor) -> Tensor:
    """(B, H, W, A, classes) -> (B, anchors) the largest; ``amax`` is slow over a last axis of a few entries."""
    best = classes[..., 0]
    for column in range(1, classes.shape[-1]):
        best = torch.maximum(best, classes[..., column])
    return best.flatten(1)


def _box_distance(delta: Tensor, beta: float, *, heading_by_sine: bool) -> Tensor:
    """(n, codes) differences of box codes -> (n,) smooth-L1, summed over the codes."""
    if heading_by_sine:
        turned = torch.sin(delta[:, HEADING : HEADING + 1])
        delta = torch.cat([delta[:, :HEADING], turned, delta[:, HEADING + 1 :]], dim=1)
    zeros = torch.zeros_like(delta)
    return torch.nn.functional.smooth_l1_loss(delta, zeros, beta=beta, reduction="none").sum(dim=1)
