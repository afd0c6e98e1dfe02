"""Attention transfer (Zagoruyko and Komodakis, ICLR 2017), equation 2 with the released code's normalisation.

    L = mean over the rows i of (a_i^S - a_i^T)^2,    a = Q / |Q|,    Q_i = mean over the channels of |F_i|^p

with p = 2 and weight 1000, the source's constants. Ours: a map of a LiDAR detector is mostly empty, so Q is taken over
the occupied rows alone (``OCCUPIED``), and over those of one frame; the frames are averaged. Q has no channels, so that
no adapter is needed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pcdet.models.feature_spec import KINDS
from pcdet.models.kd.diagnostics import target_variance, thinned_out
from pcdet.models.kd.features.feature import Feature
from pcdet.models.kd.features.matching import MatchedFeatures
from pcdet.models.kd.graphs.sampling import sample
from pcdet.models.kd.losses.base import rows_a_frame, zero_of
from pcdet.models.kd.losses.feature_loss import FeatureLoss, Importance
from pcdet.models.kd.losses.row_set_loss import RowSets, padded, unit_length
from pcdet.models.kd.presets import sampled_rows
from pcdet.ops.edge_conv.terms import full_precision
from pcdet.registry import KD_LOSSES

ALL_BUT_HUGE = 16384  # rows of a frame: all of a small map, all pillars of a KITTI frame


@KD_LOSSES.register
class AttentionTransfer(FeatureLoss):
    """Mean squared difference of where the features are large, each side's as a vector of length one.

    Args:
        power: p, of the absolute values before their mean over the channels.
        occupied: only rows with LiDAR points behind them count, where that number is known.
        weight: of the loss; the default is the source's.
        **common: see ``FeatureLoss``.
    """

    PRESETS = {"default": {kind: sampled_rows(kind, ALL_BUT_HUGE, on_maps="num_points") for kind in KINDS}}

    def __init__(self, *, power: float = 2.0, occupied: bool = True, weight: float = 1000.0, **common: Any):
        super().__init__(weight=weight, **common)
        if not power >= 1:  # below, the slope at 0 is infinite
            raise ValueError(f"POWER must be at least 1, got {power}")
        self.power, self.occupied = power, occupied

    def compare(
        self, matched: MatchedFeatures, importance: Importance, *, diagnose: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs nodes (rows that count), target_var and overlap: the cosine of both attentions."""
        teacher = matched.teacher
        rows, sizes = sample(importance(self.sample.by), teacher.frame_sizes(), self.sample.num, self.sample.mode)
        if len(rows) == 0:
            return zero_of(matched.student.source), {"nodes": rows_a_frame(sizes)}
        sets = RowSets.of(*(self._energies(side, rows) for side in (matched.student, teacher)), sizes)
        if self.occupied and teacher.count is not None:
            sets = replace(sets, valid=sets.valid & (padded(teacher.count[rows], sizes) > 0))
        ours, theirs = (unit_length(energies * sets.valid) for energies in (sets.student, sets.teacher))
        with torch.no_grad():
            logs = {
                "nodes": sets.over_frames(sets.valid.sum(dim=1)),
                "target_var": target_variance(teacher.take(rows[thinned_out(len(rows), rows.device)])),
                "overlap": sets.over_frames((ours * theirs).sum(dim=1)),
            }
        return sets.over_frames(sets.mean((ours - theirs).square())), logs

    def _energies(self, feature: Feature, rows: Tensor) -> Tensor:
        """(n,) Q of some rows. Of a map it is taken before the rows are, which spares a copy of nearly all cells."""
        dense = feature.dense
        values = feature.take(rows) if dense is None else full_precision(dense)
        energies = torch.linalg.vector_norm(values, ord=self.power, dim=1).pow(self.power) / values.shape[1]
        return energies if dense is None else energies.flatten()[rows]
