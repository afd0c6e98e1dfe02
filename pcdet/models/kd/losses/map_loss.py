"""MapLoss: the base of methods that compare two whole maps."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pcdet.models.feature_spec import MAPS
from pcdet.models.kd.features.feature import Feature
from pcdet.models.kd.features.tap_specs import kind_of_tap
from pcdet.models.kd.losses.tap_loss import TapLoss
from pcdet.models.kd.model_outputs import ModelPair
from pcdet.models.kd.step import Step
from pcdet.ops.edge_conv.terms import full_precision


class MapLoss(TapLoss):
    """A distance between two maps on one grid.

    A method defines ``compare_maps``, or ``compare`` where it needs more than the maps, such as the objects.

    Args:
        pair: both detectors.
        **common: see ``TapLoss``.
    """

    def __init__(self, *, pair: ModelPair, **common: Any):
        super().__init__(pair=pair, **common)
        for model, tap in ((pair.student, self.feature), (pair.teacher, self.teacher_feature)):
            kind = kind_of_tap(model, tap)
            if kind not in MAPS:
                raise ValueError(
                    f"{type(self).__name__} compares maps, but tap {tap!r} is a set of {kind}s; tap a map "
                    "(spatial_features, spatial_features_2d, backbone_2d.blocks.0)"
                )

    def forward(self, step: Step, *, diagnose: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. The mean over the frames; logs what ``compare`` logs.

        Raises:
            ValueError: the two maps do not have the same cells.
        """
        matched = step.matched(self.feature, self.teacher_feature)
        student, teacher = matched.student, matched.teacher
        if student.dense is None or teacher.dense is None:
            raise ValueError(
                f"{type(self).__name__} compares maps cell by cell, but tap {self.feature!r} has {student.grid}, and "
                f"the teacher's {self.teacher_feature!r} has {teacher.grid}; tap maps of the same range and stride, or "
                "use a loss on rows (FitNet, PointDistiller), which are matched by position"
            )
        per_frame, logs = self.compare(student, teacher, step)
        return per_frame.mean(), logs

    def compare(self, student: Feature, teacher: Feature, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """(B,) the distance of each frame, and what to log.

        Args:
            student: its map (``dense``).
            teacher: its map, of the same cells.
            step: for what else a method reads, such as ``batch["gt_boxes"]``.
        """
        return self.compare_maps(full_precision(student.dense), full_precision(teacher.dense)), {}

    def compare_maps(self, student_map: Tensor, teacher_map: Tensor) -> Tensor:
        """(B, C, H, W) and (B, C', H, W) maps, float32 at least -> (B,) the distance of each frame."""
        raise NotImplementedError
