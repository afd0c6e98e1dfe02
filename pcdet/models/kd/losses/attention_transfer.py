"""Attention transfer (Zagoruyko and Komodakis, ICLR 2017), equation 2 with the released code's normalisation.

    L = mean over the rows i of (a_i^S - a_i^T)^2,    a = Q / |Q|,    Q_i = mean over the channels of |F_i|^p

with p = 2 and weight 1000, the source's constants. Ours: a map of a LiDAR detector is mostly empty, so Q is taken over
the occupied rows alone (``OCCUPIED``), and over those of one frame; the frames are averaged. Q has no channels, so that
no adapter is needed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pcdet.models.feature_spec import KINDS
from pcdet.models.kd.diagnostics import target_variance
from pcdet.models.kd.features.matching import MatchedFeatures
from pcdet.models.kd.graphs.sampling import sample
from pcdet.models.kd.losses.base import rows_a_frame, zero_of
from pcdet.models.kd.losses.feature_loss import FeatureLoss, Importance
from pcdet.models.kd.presets import sampled_rows
from pcdet.registry import KD_LOSSES

ALL_BUT_HUGE = 16384  # rows of a frame: all of a small map, all pillars of a KITTI frame
NO_LENGTH = 1e-12


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
        if not power > 0:
            raise ValueError(f"POWER must be above 0, got {power}")
        self.power, self.occupied = power, occupied

    def compare(
        self, matched: MatchedFeatures, importance: Importance, *, diagnose: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs nodes (rows that count), target_var and overlap: the cosine of both attentions."""
        teacher = matched.teacher
        rows, sizes = sample(importance(self.sample.by), teacher.frame_sizes(), self.sample.num, self.sample.mode)
        if len(rows) == 0:
            return zero_of(matched.student.source), {"nodes": rows_a_frame(sizes)}
        frame, target = teacher.batch_idx[rows], teacher.take(rows)
        counted = torch.ones_like(target[:, 0])
        if self.occupied and teacher.count is not None:
            counted = (teacher.count[rows] > 0).to(target.dtype)

        def per_frame(value: Tensor) -> Tensor:
            return value.new_zeros(teacher.num_frames).index_add(0, frame, value)

        ours, theirs = (
            self._attention(values, counted, frame, per_frame) for values in (matched.student.take(rows), target)
        )
        counts = per_frame(counted)
        present = (counts > 0) / (counts > 0).sum().clamp(min=1)
        loss = per_frame((ours - theirs).square()) / counts.clamp(min=1)
        overlap = per_frame((ours * theirs).detach())
        logs = {"nodes": (counts * present).sum(), "target_var": target_variance(target)}
        return (loss * present).sum(), logs | {"overlap": (overlap * present).sum()}

    def _attention(self, rows: Tensor, counted: Tensor, frame: Tensor, per_frame: Any) -> Tensor:
        """(n, C) rows -> (n,) attention, of length one in each frame, 0 for rows that do not count."""
        attention = rows.abs().pow(self.power).mean(dim=1) * counted
        length = per_frame(attention.square())
        length = torch.where(length > NO_LENGTH**2, length, 1).sqrt()
        return attention / length[frame]
