"""MGD (masked generative distillation, ECCV 2022): the teacher's map, made again from parts of the student's.

Loss: (G(mask * A(student)) - teacher)^2, where A brings the channels to the teacher's, the mask drops each cell with
probability 0.65, and G is a 3x3 convolution, a ReLU and another one, both trained.
Ours: the mean over cells and channels instead of the sum, so that the loss does not grow with the map. The source's
weight of the sum is 2e-5; the default here makes the loss about a tenth of the detection loss at the start, on the
simulated PointPillars, where its gradient in the student is a thousandth of that loss's. One mask serves all frames of
a batch, so that a frame's loss does not depend on the others.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pcdet.models.kd.diagnostics import target_variance, thinned_out
from pcdet.models.kd.features.feature import Feature
from pcdet.models.kd.losses.alignment import align_maps
from pcdet.models.kd.losses.map_loss import MapLoss
from pcdet.models.kd.step import Step
from pcdet.registry import KD_LOSSES


@KD_LOSSES.register
class MGD(MapLoss):
    """Mean squared difference of the teacher's map and one generated from the student's, of which cells are hidden.

    Args:
        mask_ratio: share of the cells that are hidden, drawn anew in each step.
        weight: of the loss in the sum.
        **common: see ``MapLoss``.
    """

    def __init__(self, *, mask_ratio: float = 0.65, weight: float = 1.0, **common: Any):
        super().__init__(weight=weight, **common)
        if not 0 <= mask_ratio < 1:
            raise ValueError(f"MASK_RATIO must be at least 0 and below 1, got {mask_ratio}")
        self.mask_ratio = mask_ratio
        width = self.teacher_channels
        self.student_adapter = align_maps(self.student_channels, width)
        self.generator = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(width, width, 3, padding=1)
        )

    def compare(self, student: Feature, teacher: Feature, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs target_var, and unexplained: the loss over it."""
        per_frame, _ = super().compare(student, teacher, step)
        variance = target_variance(teacher.take(thinned_out(len(teacher), teacher.batch_idx.device)))
        return per_frame, {"target_var": variance, "unexplained": per_frame.detach().mean() / variance.clamp(min=1e-12)}

    def compare_maps(self, student_map: Tensor, teacher_map: Tensor) -> Tensor:
        """See the base class."""
        kept = torch.rand(student_map.shape[2:], device=student_map.device) >= self.mask_ratio
        made = self.generator(self.student_adapter(student_map) * kept)
        return (made - teacher_map).square().mean(dim=(1, 2, 3))
