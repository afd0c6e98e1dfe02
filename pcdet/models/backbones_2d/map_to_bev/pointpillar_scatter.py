"""Pillar features written into a BEV map (PointPillars, section 2.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace

from pcdet.models.backbones_2d.map_to_bev.bev_map import BEVMap
from pcdet.models.feature_spec import Entries
from pcdet.models.model_utils.precision import autocast_dtype
from pcdet.registry import MAP_TO_BEV, Count


@MAP_TO_BEV.register
class PointPillarScatter(BEVMap):
    """BEV map with each pillar's features in its cell and zeros elsewhere; its memory format is channels last.

    Args:
        num_bev_features: channels of a pillar.
        grid_size: cells, [x, y, z]; z must be 1.
    """

    READS = "pillar_features"

    def __init__(self, *, num_bev_features: Count, grid_size: Sequence[int], input_channels: int | None = None):
        super().__init__()
        self.nx, self.ny, self.nz = (int(n) for n in grid_size)
        if self.nz != 1:
            raise ValueError(f"pillars need a grid of height 1, got {self.nz}; VOXEL_SIZE z must span the whole range")
        if input_channels is not None and input_channels != num_bev_features:
            raise ValueError(
                f"NUM_BEV_FEATURES must equal the channels of the pillars, got {num_bev_features}; set {input_channels}"
            )
        self.num_bev_features = num_bev_features

    @classmethod
    def problems(cls, config: SimpleNamespace, inputs: Entries) -> Iterator[str]:
        """A pillar spans the height, and the map has its channels."""
        pillars = inputs["pillar_features"]
        if config.num_bev_features != pillars.channels:
            yield (
                f"NUM_BEV_FEATURES: must equal the last of MODEL.VFE.NUM_FILTERS, {pillars.channels}, got "
                f"{config.num_bev_features}"
            )
        if pillars.grid is not None and pillars.grid[0] != 1:
            height = config.point_cloud_range[5] - config.point_cloud_range[2]
            yield (
                f"DATA_CONFIG.VOXEL_SIZE: {cls.__name__} needs one voxel over the whole height of {height:g} m, got "
                f"{pillars.grid[0]} of {config.voxel_size[2]:g} m"
            )

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
