"""PredictionLoss: the base of methods that compare the raw predictions of two anchor heads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pcdet.models.kd.features.taps import head_taps
from pcdet.models.kd.losses.base import KDLoss
from pcdet.models.kd.model_outputs import ModelOutputs, ModelPair
from pcdet.models.kd.step import Step

Anchors = tuple[Tensor, Tensor]  # (n,) frame and (n,) number of each anchor


class HeadOutputs:
    """Raw predictions of an anchor head, read by anchor or by cell without copying the maps.

    Anchors are numbered as OpenPCDet flattens them: row, column, anchor of the cell.

    Args:
        outputs: of the student or the teacher.
        num_class: scores of an anchor.
        recompute: let ``codes_at`` predict its few anchors again instead of reading the map.

    Attributes:
        classes: (B, H, W, A, classes) logits.
        codes: (B, H, W, A, codes) box codes.
        labels: (B, anchors) what the head assigned to its anchors, above 0 for objects; None if it has not.
    """

    def __init__(self, outputs: ModelOutputs, num_class: int, *, recompute: bool = False):
        head = outputs.detector.dense_head
        anchors = outputs.class_logits.shape[3] // num_class
        self.classes = outputs.class_logits.unflatten(3, (anchors, num_class))
        self.codes = outputs.box_codes.unflatten(3, (anchors, -1))
        self.labels = getattr(head, "forward_ret_dict", {}).get("box_cls_labels")
        self._recompute = getattr(head, "predictions_at", None) if recompute else None
        self._head = head

    def best_logits(self) -> Tensor:
        """(B, anchors) the largest class logit of each anchor; ``amax`` is slow over a last axis of a few entries."""
        best = self.classes[..., 0]
        for column in range(1, self.classes.shape[-1]):
            best = torch.maximum(best, self.classes[..., column])
        return best.flatten(1)

    def classes_at(self, where: Anchors) -> Tensor:
        """(n, classes) logits, float32."""
        return self._at(self.classes, where)

    def cells_of(self, where: Anchors) -> tuple[Tensor, Tensor]:
        """(m,) numbers of the cells in which anchors stand, each once, and (n,) which of them each anchor is in."""
        batch_idx, anchor = where
        _, height, width, anchors, _ = self.classes.shape
        return torch.unique(batch_idx * (height * width) + anchor // anchors, return_inverse=True)

    def classes_in(self, cells: Tensor) -> Tensor:
        """(m, A * classes) logits of all anchors of cells, float32."""
        _, height, width, _, _ = self.classes.shape
        batch_idx, cell = cells // (height * width), cells % (height * width)
        return self.classes[batch_idx, cell // width, cell % width].flatten(1).float()

    def codes_at(self, where: Anchors) -> Tensor:
        """(n, codes) box codes, float32."""
        if self._recompute is None:
            return self._at(self.codes, where)
        # A few anchors computed again spare the convolution's backward pass over the whole map.
        batch_idx, anchor = where
        return self._recompute(batch_idx * self.classes[0, ..., 0].numel() + anchor)[0].float()

    def boxes_at(self, where: Anchors) -> Tensor:
        """(n, 7 + C) boxes that the codes stand for, float32; headings as coded, before any direction classifier."""
        return self._head.box_coder.decode(self.codes_at(where), self._head.anchor_table[where[1]])

    @staticmethod
    def _at(maps: Tensor, where: Anchors) -> Tensor:
        batch_idx, anchor = where
        _, _, width, anchors, _ = maps.shape
        cell, slot = anchor // anchors, anchor % anchors
        return maps[batch_idx, cell // width, cell % width, slot].float()


class PredictionLoss(KDLoss):
    """A distance between the raw predictions of two anchor heads with the same classes and anchors.

    A method defines ``compare_predictions``.

    Args:
        pair: both detectors.
        **common: see ``KDLoss``.

    Attributes:
        num_class: scores of an anchor.
        heading_by_sine: whether the headings in two box codes are the same after half a turn, which a direction
            classifier tells apart; their difference is then taken through its sine.
    """

    def __init__(self, *, pair: ModelPair, **common: Any):
        super().__init__(**common)
        head_taps(pair.student)  # that there is a head; its training forward leaves its predictions on it
        self.teacher_taps = head_taps(pair.teacher)
        student_head, teacher_head = pair.student.dense_head, pair.teacher.dense_head
        self.num_class = student_head.num_class
        if teacher_head.num_class != self.num_class:
            raise ValueError(
                f"{type(self).__name__} compares class scores: the teacher has {teacher_head.num_class} classes, the "
                f"student {self.num_class}"
            )
        self._check_same_anchors(pair)
        # Half a turn is the classifier's business, as in the head's own loss; where there is none, only this tells.
        classified = any(getattr(head, "conv_dir_cls", None) is not None for head in (student_head, teacher_head))
        coder = getattr(student_head, "box_coder", None)
        self.heading_by_sine = classified and not getattr(coder, "encode_angle_by_sincos", False)

    def forward(self, step: Step, *, diagnose: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs what ``compare_predictions`` logs.

        Raises:
            ValueError: the predictions of both sides differ in shape.
        """
        student = HeadOutputs(step.student, self.num_class, recompute=True)
        teacher = HeadOutputs(step.teacher, self.num_class)
        if student.classes.shape != teacher.classes.shape or student.codes.shape != teacher.codes.shape:
            raise ValueError(
                "teacher and student must have the same anchors, got class maps "
                f"{list(teacher.classes.shape)} and {list(student.classes.shape)}, box maps "
                f"{list(teacher.codes.shape)} and {list(student.codes.shape)}; use the same strides and anchor settings"
            )
        return self.compare_predictions(student, teacher)

    def compare_predictions(self, student: HeadOutputs, teacher: HeadOutputs) -> tuple[Tensor, dict[str, Tensor]]:
        """Predictions of the same anchors -> the loss before its weight, and what to log."""
        raise NotImplementedError

    def _check_same_anchors(self, pair: ModelPair) -> None:
        """ValueError if the anchors of both heads are known and differ."""
        student, teacher = (getattr(side.dense_head, "anchor_table", None) for side in (pair.student, pair.teacher))
        if student is None or teacher is None:
            return
        if student.shape != teacher.shape or not torch.allclose(student.cpu(), teacher.cpu(), atol=1e-4):
            raise ValueError(
                f"{type(self).__name__} compares anchor by anchor, but the teacher's {len(teacher)} anchors are not "
                f"the student's {len(student)}; it needs the same POINT_CLOUD_RANGE, strides and "
                "ANCHOR_GENERATOR_CONFIG. Losses on features (PointDistiller, FitNet) do without"
            )
