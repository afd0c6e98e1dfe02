"""FGFI (fine-grained feature imitation, CVPR 2019): the cells whose anchors are near an object.

A cell counts where one of its anchors overlaps an object by more than psi times the best overlap that this object has
with any anchor. Loss: 1 / (2 N) * sum over the N cells that count of ||A(student) - teacher||^2, where A brings the
channels to the teacher's. The constants are the paper's: psi 0.5, weight 0.01 of the sum over the channels.
Ours: overlaps are those by which the student's head assigns its targets (boxes from above, anchors of the object's
class); N is counted in each frame, and the frames are averaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pcdet.models.kd.diagnostics import target_variance
from pcdet.models.kd.features.feature import Feature
from pcdet.models.kd.features.taps import head_taps
from pcdet.models.kd.losses.alignment import align_rows
from pcdet.models.kd.losses.base import means_of_frames, zero_of
from pcdet.models.kd.losses.map_loss import MapLoss
from pcdet.models.kd.model_outputs import ModelPair
from pcdet.models.kd.step import Step
from pcdet.registry import KD_LOSSES


@KD_LOSSES.register
class FGFI(MapLoss):
    """Half the squared difference of two maps at the cells whose anchors are near an object.

    The student needs a head with anchors, and the maps the head's cells.

    Args:
        threshold: share of an object's best overlap that an anchor must exceed (psi).
        weight: of the loss in the sum.
        pair: both detectors.
        **common: see ``MapLoss``.
    """

    def __init__(self, *, threshold: float = 0.5, weight: float = 0.01, pair: ModelPair, **common: Any):
        super().__init__(weight=weight, pair=pair, **common)
        if not 0 <= threshold < 1:
            raise ValueError(f"THRESHOLD must be at least 0 and below 1, got {threshold}")
        head_taps(pair.student)  # that there is a head
        assigned = getattr(pair.student.dense_head, "assigned_anchors", ())
        if not assigned or not all(hasattr(assigner, "near_anchors") for assigner, _ in assigned):
            raise ValueError(
                f"FGFI looks at anchors near objects, which {type(pair.student.dense_head).__name__} does not tell; "
                "use AxisAlignedTargetAssigner, or a loss without anchors (FGD, MGD)"
            )
        self.threshold = threshold
        self.student_adapter = align_rows(self.student_channels, self.teacher_channels)

    def compare(self, student: Feature, teacher: Feature, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs cells (a frame) and their target_var.

        Raises:
            ValueError: the head has other cells, or the batch no ``gt_boxes``.
        """
        rows = self.imitated(step, student).flatten().nonzero().squeeze(1)
        num_frames = student.num_frames
        logs = {"cells": torch.tensor(len(rows) / num_frames)}
        if len(rows) == 0:
            return zero_of(student.source).expand(num_frames), logs
        target = teacher.take(rows)
        distance = (self.student_adapter(student.take(rows)) - target).square().sum(dim=1) / 2
        per_frame = means_of_frames(distance, student.batch_idx[rows], num_frames)
        return per_frame, {**logs, "target_var": target_variance(target)}

    @torch.no_grad()
    def imitated(self, step: Step, feature: Feature) -> Tensor:
        """(B, cells) True for the cells of a map that count."""
        head, boxes = step.student.detector.dense_head, step.batch.get("gt_boxes")
        if boxes is None:
            raise ValueError("FGFI needs gt_boxes, which this batch lacks")
        size = tuple(feature.source.shape[2:])
        if other := {tuple(grid.shape[:2]) for _, grid in head.assigned_anchors} - {size}:
            raise ValueError(
                f"FGFI takes cells by the head's anchors, which stand on {min(other)} cells, but tap {self.feature!r} "
                f"has {size}; tap a map of the head's stride (spatial_features_2d)"
            )
        box, cell, overlap = (torch.cat(parts) for parts in zip(*self._near(head, boxes), strict=True))
        best = overlap.new_zeros(boxes.shape[:2].numel()).scatter_reduce_(0, box, overlap, "amax")
        close = (overlap > self.threshold * best[box]) & (overlap > 0)
        mask = torch.zeros(len(boxes), *size, dtype=torch.bool, device=boxes.device).flatten()
        mask[cell[close]] = True
        return mask.view(len(boxes), -1)

    @staticmethod
    def _near(head: Any, boxes: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(T,) objects of the batch, cells of the batch and overlaps: of the anchors near objects, by assigner."""
        for assigner, grid in head.assigned_anchors:
            near = assigner.near_anchors(grid, boxes)
            yield near.box, near.frame[near.box] * grid.shape[:2].numel() + near.anchor // grid.shape[2], near.overlap
