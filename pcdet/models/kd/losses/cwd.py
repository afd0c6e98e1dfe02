"""CWD (channel-wise distillation, ICCV 2021): where each channel responds, as a distribution over the places.

Loss: T^2 / C * sum over the channels of KL(softmax(teacher / T) || softmax(student / T)), the softmax over the places
of a frame; the mean over the frames. The constants are those for detection: temperature 1, weight 10.
Ours: the places are a frame's sampled rows instead of all cells of a map, since most cells of a LiDAR map are empty,
and their constant response would take most of the distribution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pcdet.models.feature_spec import KINDS
from pcdet.models.kd.losses.alignment import align_rows
from pcdet.models.kd.losses.feature_loss import FeatureLoss
from pcdet.registry import KD_LOSSES


@KD_LOSSES.register
class CWD(FeatureLoss):
    """Divergence of the teacher's distribution over the rows of a frame from the student's, channel by channel.

    The student's rows go through a linear map first where its width is not the teacher's.

    Args:
        temperature: of both softmaxes, in the unit of the features.
        weight: of the loss in the sum.
        **common: see ``FeatureLoss``.
    """

    PRESETS = {
        "default": {
            kind: {"SAMPLE": {"NUM": 1000, "BY": "channel_l2" if kind == "point" else "num_points"}} for kind in KINDS
        }
    }

    def __init__(self, *, temperature: float = 1.0, weight: float = 10.0, **common: Any):
        super().__init__(weight=weight, **common)
        if not temperature > 0:
            raise ValueError(f"TEMPERATURE must be above 0, got {temperature}")
        self.temperature = temperature
        self.student_adapter = align_rows(self.student_channels, self.teacher_channels)

    def compare_sets(
        self, student_rows: Tensor, teacher_rows: Tensor, sizes: list[int]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs ess, the effective number of rows in the teacher's distributions."""
        student_rows = self.student_adapter(student_rows)
        pairs = zip(student_rows.split(sizes), teacher_rows.split(sizes), strict=True)
        divergences, effective = [], []
        for student, teacher in ((s, t) for s, t in pairs if len(s)):
            given = (student / self.temperature).log_softmax(dim=0)
            wanted = (teacher / self.temperature).log_softmax(dim=0)
            share = wanted.exp()
            divergences.append((share * (wanted - given)).sum(dim=0).mean())
            effective.append((1 / share.square().sum(dim=0)).mean())
        return self.temperature**2 * torch.stack(divergences).mean(), {"ess": torch.stack(effective).mean()}
