"""PKD (NeurIPS 2022): features standardised channel by channel, so that their distance is one minus their correlation.

Loss: half the mean squared difference of the student's and the teacher's channels, each with mean 0 and variance 1. The
teacher's scale and offset do not matter. The constants are the paper's: weight 6 (its 3-D detector has 10).
Ours: statistics within a frame instead of over the batch, and over sampled rows instead of all cells of a map, since
most cells of a LiDAR map are empty.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pcdet.models.feature_spec import KINDS
from pcdet.models.kd.losses.alignment import align_rows
from pcdet.models.kd.losses.row_set_loss import RowSetLoss, RowSets
from pcdet.models.kd.presets import sampled_rows
from pcdet.registry import KD_LOSSES

LEAST_VARIANCE = 1e-8  # of a channel: a dead one is 0, not noise


@KD_LOSSES.register
class PKD(RowSetLoss):
    """Half the mean squared difference of channels standardised over the rows of a frame.

    The student's rows go through a linear map first where its width is not the teacher's.

    Args:
        weight: of the loss in the sum.
        **common: see ``FeatureLoss``.
    """

    PRESETS = {"default": {kind: sampled_rows(kind, 1000, on_maps="num_points") for kind in KINDS}}

    def __init__(self, *, weight: float = 6.0, **common: Any):
        super().__init__(weight=weight, **common)
        self.student_adapter = align_rows(self.student_channels, self.teacher_channels)

    def compare_sets(self, sets: RowSets, *, diagnose: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs correlation, of student and teacher: the mean over rows and channels."""
        student, teacher = standardised(sets, self.student_adapter(sets.student)), standardised(sets, sets.teacher)
        loss = sets.mean(0.5 * (student - teacher).square().mean(dim=2))
        return loss, {"correlation": sets.mean((student.detach() * teacher).mean(dim=2))}


def standardised(sets: RowSets, rows: Tensor) -> Tensor:
    """(B, N, C) rows with mean 0 and variance 1 in each channel of each frame; 0 where all of a frame are alike."""
    centred = (rows - sets.mean(rows)[:, None]) * sets.valid[:, :, None]
    return centred * (sets.mean(centred.square()) + LEAST_VARIANCE).rsqrt()[:, None]
