"""Anchors, and what each of them should predict."""

from pcdet.models.dense_heads.target_assigner.axis_aligned_target_assigner import AxisAlignedTargetAssigner
from pcdet.registry import BOX_CODERS
from pcdet.utils.box_coder_utils import ResidualCoder

BOX_CODERS.register(ResidualCoder)  # here, because utils may not know the registry

__all__ = ["AxisAlignedTargetAssigner"]
