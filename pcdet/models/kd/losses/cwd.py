"""CWD (channel-wise distillation, ICCV 2021): where each channel responds, as a distribution over the places.

Loss: T^2 / C * sum over the channels of KL(softmax(teacher / T) || softmax(student / T)), the softmax over the places
of a frame; the mean over the frames. The constants are those for detection: temperature 1, weight 10.
Ours: the places are a frame's sampled rows instead of all cells of a map, since most cells of a LiDAR map are empty,
and their constant response would take most of the distribution.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pcdet.models.feature_spec import KINDS
from pcdet.models.kd.losses.alignment import align_rows
from pcdet.models.kd.losses.row_set_loss import NO_ROW, RowSetLoss, RowSets
from pcdet.models.kd.presets import sampled_rows
from pcdet.registry import KD_LOSSES


@KD_LOSSES.register
class CWD(RowSetLoss):
    """Divergence of the teacher's distribution over the rows of a frame from the student's, channel by channel.

    The student's rows go through a linear map first where its width is not the teacher's.

    Args:
        temperature: of both softmaxes, in the unit of the features.
        weight: of the loss in the sum.
        **common: see ``FeatureLoss``.
    """

    PRESETS = {"default": {kind: sampled_rows(kind, 1000, on_maps="num_points") for kind in KINDS}}

    def __init__(self, *, temperature: float = 1.0, weight: float = 10.0, **common: Any):
        super().__init__(weight=weight, **common)
        if not temperature > 0:
            raise ValueError(f"TEMPERATURE must be above 0, got {temperature}")
        self.temperature = temperature
        self.student_adapter = align_rows(self.student_channels, self.teacher_channels)

    def compare_sets(self, sets: RowSets, *, diagnose: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs ess, the effective number of rows in the teacher's distributions."""
        ours, theirs = (self._log_shares(sets, x) for x in (self.student_adapter(sets.student), sets.teacher))
        share = theirs.exp()
        divergence = sets.total(share * (theirs - ours)).mean(dim=1)
        effective = 1 / sets.total(share.square()).clamp(min=1e-12)
        return self.temperature**2 * divergence, {"ess": effective.mean(dim=1)}

    def _log_shares(self, sets: RowSets, rows: Tensor) -> Tensor:
        """(B, N, C) logarithms of the distributions over the rows that there are."""
        return (rows / self.temperature).masked_fill(~sets.valid[:, :, None], NO_ROW).log_softmax(dim=1)
