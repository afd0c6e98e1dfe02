"""Feature-based distillation for detectors, FBKD (Zhang and Ma, ICLR 2021), as in its released code.

    L = a |sqrt(M^s M^c) (A(F_S) - F_T)| + b |A_c(mean over rows F_S) - mean over rows F_T|
        + c |A_s(mean over channels F_S) - mean over channels F_T| + d |A_r(R(F_S)) - R(F_T)|

    M^s = n softmax over the rows of (mean over channels |F| / T),    M^c = C softmax over the channels likewise,
    both as the mean of the teacher's and the student's;    R(F) = F + softmax(F F^T / sqrt(C)) F

All norms are Euclidean norms of all entries, with a = d = 7e-5, b = c = 4e-3 and T = 0.5 of the released code.

Ours: the norms are of the sampled rows of one frame, and the frames are averaged; in the source they are of whole maps
of a batch. A set of rows has no neighbourhood, so A_s is a factor and an offset in place of a 3x3 convolution. R, the
non-local relation, has no projections: the source trains the teacher's with the loss, which can then make both vanish.
The student has fewer channels than the teacher, so its part of M^c is taken behind A.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from pcdet.models.feature_spec import KINDS
from pcdet.models.kd.losses.row_set_loss import NO_ROW, RowSetLoss, RowSets, root
from pcdet.models.kd.presets import sampled_rows
from pcdet.registry import KD_LOSSES


@KD_LOSSES.register
class FeatureBased(RowSetLoss):
    """Rows compared where both sides look, their means over rows and channels, and their relations.

    Args:
        temperature: of both attentions.
        mask_weight: of the rows under attention.
        channel_weight: of the means over the rows, one number a channel.
        spatial_weight: of the means over the channels, one number a row.
        relation_weight: of the relations.
        **common: see ``FeatureLoss``.
    """

    PRESETS = {"default": {kind: sampled_rows(kind, 512) for kind in KINDS}}

    def __init__(
        self,
        *,
        temperature: float = 0.5,
        mask_weight: float = 7e-5,
        channel_weight: float = 4e-3,
        spatial_weight: float = 4e-3,
        relation_weight: float = 7e-5,
        **common: Any,
    ):
        super().__init__(**common)
        self.part_weights = {
            "mask": mask_weight,
            "channel": channel_weight,
            "spatial": spatial_weight,
            "relation": relation_weight,
        }
        if not temperature > 0 or not all(value >= 0 for value in self.part_weights.values()):
            raise ValueError(
                "TEMPERATURE must be above 0, MASK_WEIGHT, CHANNEL_WEIGHT, SPATIAL_WEIGHT and RELATION_WEIGHT at least "
                f"0, got {temperature}, {mask_weight}, {channel_weight}, {spatial_weight} and {relation_weight}"
            )
        self.temperature = temperature
        self.mask_adapter = nn.Linear(self.student_channels, self.teacher_channels)
        self.channel_adapter = nn.Linear(self.student_channels, self.teacher_channels)
        self.spatial_adapter = nn.Linear(1, 1)
        self.relation_adapter = nn.Linear(self.student_channels, self.teacher_channels)

    def compare_sets(self, sets: RowSets, *, diagnose: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs the four parts before their weights, and ess: rows that the attention leaves."""
        student, teacher = sets.student, sets.teacher
        adapted = self.mask_adapter(student)
        rows, channels = self._attention(sets, adapted.detach())
        means = student.mean(dim=2, keepdim=True), teacher.mean(dim=2, keepdim=True)
        relations = self.relation_adapter(_related(student, sets.valid)) - _related(teacher, sets.valid)
        parts = {
            "mask": sets.total(rows[..., None] * channels[:, None] * (adapted - teacher).square()),
            "channel": (self.channel_adapter(sets.mean(student)) - sets.mean(teacher)).square(),
            "spatial": sets.total((self.spatial_adapter(means[0]) - means[1]).square()),
            "relation": sets.total(relations.square()),
        }
        norms = {name: root(squares.sum(dim=1)) for name, squares in parts.items()}
        present = sets.valid.any(dim=1)  # an adapter's offset is no difference in a frame without rows
        loss = sum(weight * norms[name] for name, weight in self.part_weights.items()) * present
        ess = rows.sum(dim=1).square() / rows.square().sum(dim=1).clamp(min=1e-12)
        return loss, norms | {"ess": ess}

    @torch.no_grad()
    def _attention(self, sets: RowSets, adapted: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N) and (B, C') attention, each with a mean of one: the mean of both sides'."""
        rows, channels = 0, 0
        for seen, as_wide_as_teacher in ((sets.teacher, sets.teacher), (sets.student, adapted)):
            by_row = (seen.abs().mean(dim=2) / self.temperature).masked_fill(~sets.valid, NO_ROW)
            rows = rows + by_row.softmax(dim=1) * sets.count[:, None] / 2
            by_channel = sets.mean(as_wide_as_teacher.abs()) / self.temperature
            channels = channels + by_channel.softmax(dim=1) * by_channel.shape[1] / 2
        return rows * sets.valid, channels


def _related(rows: Tensor, valid: Tensor) -> Tensor:
    """(B, N, C) rows -> each with what it attends to among the rows of its frame."""
    logits = rows @ rows.transpose(1, 2) / math.sqrt(rows.shape[2])
    return rows + logits.masked_fill(~valid[:, None], NO_ROW).softmax(dim=2) @ rows
