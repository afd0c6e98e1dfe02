"""Overhaul of feature distillation, OFD (Heo et al., ICCV 2019): margin ReLU and partial L2 distance.

    L = mean over rows and channels of d(A(S), max(T, m)),    d(S, T) = 0 if S <= T <= 0, else (S - T)^2
    m_c = E[x | x < 0] of a normal x with the mean beta_c and the deviation |gamma_c| of the teacher's batch norm

T and S are taken before their ReLU: what the ReLU of the teacher throws away is only to stay thrown away. So tap batch
norms (``backbone_2d.deblocks.0.1``), whose gamma and beta give the margin m, with one loss for each. ``MARGIN: zero``
is for taps behind a ReLU, as pooled pillars, where nothing of T is negative: m is 0 there.

Ours: sampled rows instead of whole maps; the mean of the squares instead of their sum over 1000 and the batch size; an
adapter A without a batch norm, whose statistics would join the frames; the source's weights of the stages, 1/4, 1/2 and
1, are left to WEIGHT. The default weight makes about a tenth of the detection loss of an untrained student, for the
three taps before ``spatial_features_2d`` together.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pcdet.models.feature_spec import KINDS, MAPS
from pcdet.models.kd.losses.row_set_loss import RowSetLoss, RowSets
from pcdet.models.kd.model_outputs import ModelPair
from pcdet.models.kd.presets import sampled_rows
from pcdet.registry import KD_LOSSES

RARELY_NEGATIVE = 1e-3  # below this probability the margin is three deviations below zero, as in the released code
NO_DEVIATION = 1e-6


@KD_LOSSES.register
class Overhaul(RowSetLoss):
    """Partial squared difference between the teacher's values before a ReLU and a linear map of the student's.

    Args:
        margin: the least target: "norm", each channel's mean of what its ReLU drops, from the batch norm that the
            teacher's tap is; "zero", for taps behind a ReLU.
        weight: of the loss.
        pair: both detectors.
        **common: see ``FeatureLoss``.
    """

    PRESETS = {
        "default": {kind: sampled_rows(kind, 1000) | {"MARGIN": "norm" if kind in MAPS else "zero"} for kind in KINDS}
    }

    def __init__(
        self, *, margin: Literal["norm", "zero"] = "norm", weight: float = 0.1, pair: ModelPair, **common: Any
    ):
        super().__init__(weight=weight, pair=pair, **common)
        self.student_adapter = nn.Linear(self.student_channels, self.teacher_channels)
        least = torch.zeros(self.teacher_channels) if margin == "zero" else self._margin_of(pair.teacher)
        self.register_buffer("margin", least, persistent=False)  # of this teacher, whatever a checkpoint was taught by

    def compare_sets(self, sets: RowSets, *, diagnose: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs active: the share of the values that differ in a way that counts."""
        ours, target = self.student_adapter(sets.student), torch.maximum(sets.teacher, self.margin)
        active = (ours > target) | (target > 0)
        loss = sets.mean(((ours - target).square() * active).mean(dim=2))
        return loss, {"active": sets.mean(active.to(loss.dtype).mean(dim=2))}

    def _margin_of(self, teacher: nn.Module) -> Tensor:
        """(C',) the margin of the batch norm that is tapped."""
        norm = dict(teacher.named_modules()).get(self.teacher_feature)
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
            found = "an entry of the batch" if norm is None else f"a {type(norm).__name__}"
            raise ValueError(
                f"MARGIN: norm needs a batch norm, but the teacher's tap {self.teacher_feature!r} is {found}; tap the "
                "norm before a ReLU (backbone_2d.deblocks.0.1), or set MARGIN to zero for a tap behind one"
            )
        if norm.weight is None:
            return negative_mean(torch.zeros(norm.num_features), torch.ones(norm.num_features))
        return negative_mean(norm.bias.detach().cpu(), norm.weight.detach().abs().cpu())


def negative_mean(mean: Tensor, deviation: Tensor) -> Tensor:
    """E[x | x < 0] of normal distributions, (C,) each; three deviations below zero for those that hardly are."""
    mean, deviation = mean.double(), deviation.double().clamp(min=NO_DEVIATION)
    below = torch.special.ndtr(-mean / deviation)
    density = torch.exp(-0.5 * (mean / deviation).square()) / math.sqrt(2 * math.pi)
    expected = mean - deviation * density / below.clamp(min=RARELY_NEGATIVE)
    return torch.where(below > RARELY_NEGATIVE, expected, -3 * deviation).float()
