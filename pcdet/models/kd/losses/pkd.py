"""PKD (NeurIPS 2022): features standardised channel by channel, so that their distance is one minus their correlation.

Loss: half the mean squared difference of the student's and the teacher's channels, each with mean 0 and variance 1. The
teacher's scale and offset do not matter. The constants are the paper's: weight 6 (its 3-D detector has 10).
Ours: statistics within a frame instead of over the batch, and over sampled rows instead of all cells of a map, since
most cells of a LiDAR map are empty.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pcdet.models.feature_spec import KINDS
from pcdet.models.kd.losses.alignment import align_rows
from pcdet.models.kd.losses.base import frame_mean
from pcdet.models.kd.losses.feature_loss import FeatureLoss
from pcdet.registry import KD_LOSSES

LEAST_VARIANCE = 1e-8  # of a channel: a dead one is 0, not noise


@KD_LOSSES.register
class PKD(FeatureLoss):
    """Half the mean squared difference of channels standardised over the rows of a frame.

    The student's rows go through a linear map first where its width is not the teacher's.

    Args:
        weight: of the loss in the sum.
        **common: see ``FeatureLoss``.
    """

    PRESETS = {
        "default": {
            kind: {"SAMPLE": {"NUM": 1000, "BY": "channel_l2" if kind == "point" else "num_points"}} for kind in KINDS
        }
    }

    def __init__(self, *, weight: float = 6.0, **common: Any):
        super().__init__(weight=weight, **common)
        self.student_adapter = align_rows(self.student_channels, self.teacher_channels)

    def compare_sets(
        self, student_rows: Tensor, teacher_rows: Tensor, sizes: list[int]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs correlation, of student and teacher: the mean over rows and channels."""
        student = standardised(self.student_adapter(student_rows), sizes)
        teacher = standardised(teacher_rows, sizes)
        loss = frame_mean(0.5 * (student - teacher).square().mean(dim=1), sizes)
        return loss, {"correlation": frame_mean((student.detach() * teacher).mean(dim=1), sizes)}


def standardised(rows: Tensor, sizes: list[int]) -> Tensor:
    """(n, C) rows, frame by frame, with mean 0 and variance 1 in each channel of each frame; 0 where all are alike."""
    frames = []
    for frame in rows.split(sizes):
        centred = frame - frame.mean(dim=0) if len(frame) else frame
        variance = centred.square().sum(dim=0) / max(1, len(frame))
        frames.append(centred * (variance + LEAST_VARIANCE).rsqrt())
    return torch.cat(frames)
