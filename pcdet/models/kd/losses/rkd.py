"""Relational knowledge distillation (Park et al., CVPR 2019), the distance-wise loss.

    L = mean over pairs of smooth_L1(d_ij^S / mu^S, d_ij^T / mu^T),    d_ij = |x_i - x_j|,    mu = mean of all d_ij

weight 25, the source's. There the rows are the embeddings of a batch. Ours: they are sampled rows of one frame, scaled
to length one first (``UNIT_ROWS``, as in mmrazor), pairs of a row with itself are left out, and the frames are
averaged. The angle-wise loss is left out: it takes the cube of the number of rows. Distances have no channels, so that
no adapter is needed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from pcdet.models.feature_spec import KINDS
from pcdet.models.kd.losses.row_set_loss import RowSetLoss, RowSets, unit_length
from pcdet.models.kd.presets import sampled_rows
from pcdet.registry import KD_LOSSES

NO_DISTANCE = 1e-12  # rows that are all the same


@KD_LOSSES.register
class RKD(RowSetLoss):
    """Difference of the distances between the rows of a frame, each side's in units of their mean.

    Args:
        unit_rows: scale every row to length one before distances are taken.
        weight: of the loss; the default is the source's.
        **common: see ``FeatureLoss``.
    """

    PRESETS = {"default": {kind: sampled_rows(kind, 256) for kind in KINDS}}

    def __init__(self, *, unit_rows: bool = True, weight: float = 25.0, **common: Any):
        super().__init__(weight=weight, **common)
        self.unit_rows = unit_rows

    def compare_sets(self, sets: RowSets, *, diagnose: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs correlation: Pearson's, of the distances of both sides."""
        pairs = sets.valid[:, :, None] & sets.valid[:, None]
        pairs = (pairs & ~torch.eye(pairs.shape[1], dtype=torch.bool, device=pairs.device)).to(sets.teacher.dtype)
        count = pairs.sum(dim=(1, 2)).clamp(min=1)
        ours, theirs = (self._distances(x, pairs, count) for x in (sets.student, sets.teacher))
        loss = (smooth_l1_loss(ours, theirs, reduction="none") * pairs).sum(dim=(1, 2)) / count
        return loss, {"correlation": _correlation(ours.detach(), theirs, pairs, count)}

    def _distances(self, rows: Tensor, pairs: Tensor, count: Tensor) -> Tensor:
        """(B, N, N) distances over their mean in each frame."""
        rows = unit_length(rows) if self.unit_rows else rows
        # not through a matrix product, whose rounding is larger than the distance of rows that are nearly the same
        distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist") * pairs
        mean = distances.sum(dim=(1, 2)) / count
        return distances / torch.where(mean > NO_DISTANCE, mean, 1)[:, None, None]


def _correlation(a: Tensor, b: Tensor, pairs: Tensor, count: Tensor) -> Tensor:
    """(B,) Pearson's correlation over the pairs; 0 where a side has no variance."""
    a, b = (pairs * (x - ((x * pairs).sum(dim=(1, 2)) / count)[:, None, None]) for x in (a, b))
    scale = (a.square().sum(dim=(1, 2)) * b.square().sum(dim=(1, 2))).sqrt()
    return (a * b).sum(dim=(1, 2)) / scale.clamp(min=NO_DISTANCE)
