"""Pillar features written into a BEV map (PointPillars, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn as nn

from pcdet.models.model_utils.precision import autocast_dtype
from pcdet.registry import MAP_TO_BEV


@MAP_TO_BEV.register
class PointPillarScatter(nn.Module):
    """BEV map with each pillar's features in its cell and zeros elsewhere; its memory format is channels last.

    Args:
        num_bev_features: channels of a pillar.
        grid_size: cells, [x, y, z]; z must be 1.
    """

    def __init__(self, *, num_bev_features: int, grid_size: Sequence[int], input_channels: int | None = None):
        super().__init__()
        self.nx, self.ny, self.nz = (int(n) for n in grid_size)
        if self.nz != 1:
            raise ValueError(f"pillars need a grid of height 1, got {self.nz}; VOXEL_SIZE z must span the whole range")
        if input_channels is not None and input_channels != num_bev_features:
            raise ValueError(
                f"NUM_BEV_FEATURES must equal the channels of the pillars, got {num_bev_features}; set {input_channels}"
            )
        self.num_bev_features = num_bev_features

    def forward(self, batch_dict: dict) -> dict:
        """Scatters the pillars.

        Reads: ``pillar_features`` (V, C), ``voxel_coords`` (V, 4) [frame, z, y, x], ``batch_size``.
        Writes: ``spatial_features`` (B, C, ny, nx), in autocast's precision where that is on.
        """
        features, coords = batch_dict["pillar_features"], batch_dict["voxel_coords"].long()
        # the convolution that follows would cast the whole map; the pillars are much fewer than the cells
        features = features.to(autocast_dtype(features.device) or features.dtype)
        batch_size = int(batch_dict["batch_size"])
        cell = (coords[:, 0] * self.ny + coords[:, 2]) * self.nx + coords[:, 1] + coords[:, 3]
        rows = features.new_zeros(batch_size * self.ny * self.nx, features.shape[1]).index_copy(0, cell, features)
        batch_dict["spatial_features"] = rows.view(batch_size, self.ny, self.nx, -1).permute(0, 3, 1, 2)
        return batch_dict
