"""Anchors, and what each of them should predict."""

from pcdet.models.dense_heads.target_assigner.axis_aligned_target_assigner import AxisAlignedTargetAssigner
from pcdet.registry import BOX_CODERS
from pcdet.utils.box_coder_utils import PointResidualCoder, ResidualCoder

for _coder in (ResidualCoder, PointResidualCoder):
    BOX_CODERS.register(_coder)  # here, because utils may not know the registry

__all__ = ["AxisAlignedTargetAssigner"]
