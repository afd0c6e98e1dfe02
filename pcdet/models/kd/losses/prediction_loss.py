"""PredictionLoss: the base of methods that compare the raw predictions of two dense heads of one kind."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from pcdet.models.kd.features.taps import head_kind, head_taps
from pcdet.models.kd.heads import CenterOutputs, HeadOutputs, Places, read_head
from pcdet.models.kd.heads.center_outputs import branches_of, grid_of
from pcdet.models.kd.losses.base import KDLoss
from pcdet.models.kd.model_outputs import ModelPair
from pcdet.models.kd.step import Step

__all__ = ["HeadOutputs", "Places", "PredictionLoss"]


class PredictionLoss(KDLoss):
    """A distance between the raw predictions of two heads: both with the same anchors, or both centre heads.

    Two heads with branches must have the same branches. A method defines ``compare_predictions``.

    Args:
        pair: both detectors.
        **common: see ``KDLoss``.

    Attributes:
        OTHER_CELLS: whether it can compare the scores of centre heads on maps of other cells.
        num_class: scores of a place.
        centers: whether the heads are centre heads.
        same_cells: whether the maps of both heads have the same cells.
        heading_by_sine: whether the headings in two box codes are the same after half a turn, which a direction
            classifier tells apart; their difference is then taken through its sine.
    """

    OTHER_CELLS: ClassVar[bool] = False

    def __init__(self, *, pair: ModelPair, **common: Any):
        super().__init__(**common)
        head_taps(pair.student)  # that there is a head; its training forward leaves its predictions on it
        self.teacher_taps = head_taps(pair.teacher)
        student_head, teacher_head = pair.student.dense_head, pair.teacher.dense_head
        kind = head_kind(student_head)
        self.centers = kind == "centers"
        if kind != head_kind(teacher_head) and {kind, head_kind(teacher_head)} & {"centers", "branches"}:
            raise ValueError(
                f"{type(self).__name__} compares the predictions of heads of one kind, but the student has a "
                f"{type(student_head).__name__} and the teacher a {type(teacher_head).__name__}; use losses on "
                "features (PointDistiller, FitNet)"
            )
        self.num_class, of_teacher = (_num_class(head) for head in (student_head, teacher_head))
        if of_teacher != self.num_class:
            raise ValueError(
                f"{type(self).__name__} compares class scores: the teacher has {of_teacher} classes, the student "
                f"{self.num_class}"
            )
        self.same_cells = True
        if self.centers:
            self._check_centers(student_head, teacher_head)
        else:
            self._check_same_anchors(pair)
            if kind == "branches":
                self._check_same_branches(student_head, teacher_head)
        # Half a turn is the classifier's business, as in the head's own loss; where there is none, only this tells.
        classified = any(getattr(head, "directions", None) is not None for head in (student_head, teacher_head))
        coder = getattr(student_head, "box_coder", None)
        self.heading_by_sine = classified and not getattr(coder, "encode_angle_by_sincos", False)

    @property
    def reads_boxes(self) -> bool:
        """Whether the method compares boxes."""
        return True

    def forward(self, step: Step, *, diagnose: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs what ``compare_predictions`` logs.

        Raises:
            ValueError: the predictions of both sides differ in shape.
        """
        student_head, teacher_head = step.student.detector.dense_head, step.teacher.detector.dense_head
        student = read_head(student_head, step.student.taps, recompute=True)
        if self.centers:
            teacher: HeadOutputs = CenterOutputs(teacher_head, step.teacher.taps, like=student_head)
        else:
            teacher = step.teacher.head
            _check_shapes(student, teacher)
        return self.compare_predictions(student, teacher)

    def compare_predictions(self, student: HeadOutputs, teacher: HeadOutputs) -> tuple[Tensor, dict[str, Tensor]]:
        """Predictions at the same places -> the loss before its weight, and what to log."""
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

    def _check_same_branches(self, student: Any, teacher: Any) -> None:
        """ValueError if the branches of both heads tell other classes apart."""
        if student.class_ids != teacher.class_ids:
            raise ValueError(
                f"{type(self).__name__} compares branch by branch, but the teacher's branches tell the classes "
                f"{teacher.class_ids} apart and the student's {student.class_ids} (numbers of CLASS_NAMES, from 1); "
                "give both the same RPN_HEAD_CFGS and SEPARATE_MULTIHEAD"
            )

    def _check_centers(self, student: Any, teacher: Any) -> None:
        """ValueError if what two centre heads predict cannot be matched; notes whether their cells are the same."""
        name = type(self).__name__
        own, cells = grid_of(teacher), grid_of(student)
        self.same_cells = own == cells
        if not self.same_cells and not self.OTHER_CELLS:
            raise ValueError(
                f"{name} compares cell by cell, but the teacher's head has {own.shape[1:]} cells of {own.size[:2]} m "
                f"and the student's {cells.shape[1:]} of {cells.size[:2]} m; it needs the same POINT_CLOUD_RANGE, "
                "voxels and FEATURE_MAP_STRIDE. PivotalLogit interpolates the scores; losses on features "
                "(PointDistiller, FitNet) do without"
            )
        if self.reads_boxes and self.same_cells:
            self._check_boxes_of_centers(student, teacher)

    def _check_boxes_of_centers(self, student: Any, teacher: Any) -> None:
        """ValueError if the box codes of two centre heads are of other columns, or of branches that do not fit."""
        name = type(self).__name__
        if list(student.code_names) != list(teacher.code_names):
            raise ValueError(
                f"{name} compares box codes, but the teacher's head predicts {list(teacher.code_names)} and the "
                f"student's {list(student.code_names)}; give both the same HEAD_ORDER, or compare no boxes "
                "(REG_WEIGHT 0, DKD)"
            )
        if branches_of(teacher, student) is None:
            raise ValueError(
                f"{name} compares box codes branch by branch, but none of the teacher's branches {teacher.class_ids} "
                f"has all classes of one of the student's {student.class_ids} (numbers of CLASS_NAMES, from 1); give "
                "both the same CLASS_NAMES_EACH_HEAD, or compare no boxes (REG_WEIGHT 0, DKD)"
            )


def _num_class(head: Any) -> int:
    """Scores of a place, or of all groups of a center head."""
    return sum(map(len, head.class_ids)) if head_kind(head) == "centers" else head.num_class


def _check_shapes(student: HeadOutputs, teacher: HeadOutputs) -> None:
    ours, theirs = ([list(predictions.shape) for predictions in side.maps] for side in (student, teacher))
    if ours != theirs:
        raise ValueError(
            f"teacher and student must have the same anchors, got predictions of {theirs} and {ours}, classes before "
            "boxes; use the same strides and anchor settings"
        )
