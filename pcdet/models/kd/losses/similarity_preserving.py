"""Similarity-preserving distillation (Tung and Mori, ICCV 2019).

    L = 1/n^2 |G_S - G_T|_F^2,    G = Q Q^T with every row scaled to length one

where Q holds one activation a row and n is their number; weight 3000, the source's. There the rows are the images of a
batch. Ours: a batch of a detector has two to six frames, so the rows are n sampled rows of one frame, and the frames
are averaged. A Gram matrix has no channels, so that no adapter is needed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pcdet.models.feature_spec import KINDS
from pcdet.models.kd.losses.row_set_loss import RowSetLoss, RowSets, unit_length
from pcdet.models.kd.presets import sampled_rows
from pcdet.registry import KD_LOSSES


@KD_LOSSES.register
class SimilarityPreserving(RowSetLoss):
    """Squared difference of how similar the rows of a frame are to one another.

    Args:
        weight: of the loss; the default is the source's.
        **common: see ``FeatureLoss``.
    """

    PRESETS = {"default": {kind: sampled_rows(kind, 512) for kind in KINDS}}

    def __init__(self, *, weight: float = 3000.0, **common: Any):
        super().__init__(weight=weight, **common)

    def compare_sets(self, sets: RowSets, *, diagnose: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs overlap: the mean cosine of matching rows of both matrices."""
        ours, theirs = (unit_length(x @ x.transpose(1, 2)) for x in (sets.student, sets.teacher))
        squares = (ours - theirs).square().sum(dim=2)  # rows and columns that are not there are zeros on both sides
        with torch.no_grad():
            overlap = sets.mean((ours * theirs).sum(dim=2))
        return sets.total(squares) / sets.count.square(), {"overlap": overlap}
