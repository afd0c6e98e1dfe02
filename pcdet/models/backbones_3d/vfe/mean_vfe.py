"""Voxel features that are the mean of the points in the voxel."""

from __future__ import annotations

import torch.nn as nn

from pcdet.registry import VFE


@VFE.register
class MeanVFE(nn.Module):
    """Mean of the raw point features; nothing is learned."""

    def __init__(self, *, num_point_features: int):
        super().__init__()
        self.num_point_features = num_point_features

    def get_output_feature_dim(self) -> int:
        """Channels of ``voxel_features``."""
        return self.num_point_features

    def forward(self, batch_dict: dict) -> dict:
        """Averages the points of every voxel.

        Reads: ``voxels`` (V, P, C), zero where there is no point; ``voxel_num_points`` (V,).
        Writes: ``voxel_features`` (V, C).
        """
        voxels, count = batch_dict["voxels"], batch_dict["voxel_num_points"]
        batch_dict["voxel_features"] = voxels.sum(dim=1) / count.to(voxels.dtype).clamp(min=1).unsqueeze(1)
        return batch_dict
