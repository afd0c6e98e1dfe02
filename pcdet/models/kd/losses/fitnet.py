"""FitNets (ICLR 2015): the student's rows, through a linear map, regress the teacher's.

The simplest feature distillation, and the control for everything that adds graphs. On a map only sampled cells take
part, since most cells of a LiDAR map are empty.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pcdet.models.feature_spec import KINDS
from pcdet.models.kd.losses.feature_loss import FeatureLoss
from pcdet.registry import KD_LOSSES


@KD_LOSSES.register
class FitNet(FeatureLoss):
    """Mean squared difference between the teacher's rows and a linear map of the student's.

    Args:
        **common: see ``FeatureLoss``.
    """

    PRESETS = {
        "default": {
            kind: {"SAMPLE": {"NUM": 1000, "BY": "num_points" if kind in ("pillar", "voxel") else "channel_l2"}}
            for kind in KINDS
        }
    }

    def __init__(self, **common: Any):
        super().__init__(**common)
        self.student_adapter = nn.Linear(self.student_channels, self.teacher_channels)

    def compare_rows(self, student_rows: Tensor, teacher_rows: Tensor) -> Tensor:
        """(n,) mean over the channels."""
        return (self.student_adapter(student_rows) - teacher_rows).square().mean(dim=1)
