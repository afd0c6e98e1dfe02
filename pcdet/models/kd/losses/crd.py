"""Contrastive representation distillation (Tian et al., ICLR 2020), with the negatives of the frame.

    L = CE(z^S (z^T)^T / tau) + CE(z^T (z^S)^T / tau),    z = W F scaled to length one,    CE: the match is the class

A student's row must tell the teacher's row at its own place from the teacher's other rows of the frame, and the other
way round: both directions, tau 0.07 and 128 channels are the source's. Ours: the source draws 16 384 negatives from a
memory bank of embeddings, one for each image of the data set, and estimates the loss by noise contrast. The rows of a
LiDAR frame have no identity from epoch to epoch, so the negatives are the other sampled rows, and the loss is InfoNCE.
Both projections are trained, as in the source; the contrast keeps the target from vanishing. The source's weight of 0.8
belongs to its estimate; here 0.02 makes about a tenth of the detection loss of an untrained student.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pcdet.models.feature_spec import KINDS
from pcdet.models.kd.diagnostics import explained_variance
from pcdet.models.kd.losses.row_set_loss import NO_ROW, RowSetLoss, RowSets, unit_length
from pcdet.models.kd.presets import sampled_rows
from pcdet.registry import KD_LOSSES


@KD_LOSSES.register
class CRD(RowSetLoss):
    """Contrast of every row's match with the frame's other rows.

    Args:
        dim: channels of the embeddings.
        temperature: tau.
        weight: of the loss.
        **common: see ``FeatureLoss``.
    """

    PRESETS = {"default": {kind: sampled_rows(kind, 512) for kind in KINDS}}

    def __init__(self, *, dim: int = 128, temperature: float = 0.07, weight: float = 0.02, **common: Any):
        super().__init__(weight=weight, **common)
        if dim < 1 or not temperature > 0:
            raise ValueError(f"DIM must be at least 1 and TEMPERATURE above 0, got {dim} and {temperature}")
        self.temperature = temperature
        self.student_adapter = nn.Linear(self.student_channels, dim)
        self.teacher_adapter = nn.Linear(self.teacher_channels, dim)

    def compare_sets(self, sets: RowSets, *, diagnose: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class.

        Logs top1 (the share of the student's rows whose match is the nearest of the teacher's), target_var of the
        teacher's embeddings and, at times, explained.
        """
        ours = unit_length(self.student_adapter(sets.student))
        theirs = unit_length(self.teacher_adapter(sets.teacher))
        logits = ours @ theirs.transpose(1, 2) / self.temperature
        target = torch.arange(logits.shape[1], device=logits.device)
        loss = self._cross_entropy(logits, sets) + self._cross_entropy(logits.transpose(1, 2), sets)
        with torch.no_grad():
            nearest = logits.masked_fill(~sets.valid[:, None], NO_ROW).argmax(dim=2)
            logs = {"top1": sets.mean((nearest == target).to(logits.dtype)), "target_var": sets.variance(theirs)}
            if diagnose:
                logs["explained"] = explained_variance(theirs[sets.valid], sets.teacher[sets.valid])
        return loss, logs

    @staticmethod
    def _cross_entropy(logits: Tensor, sets: RowSets) -> Tensor:
        """(B,) mean over the rows of minus the log-probability of the match, which is on the diagonal."""
        among = logits.masked_fill(~sets.valid[:, None], NO_ROW)
        return sets.mean(among.logsumexp(dim=2) - among.diagonal(dim1=1, dim2=2))
