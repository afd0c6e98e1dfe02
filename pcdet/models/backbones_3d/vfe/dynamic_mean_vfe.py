"""Voxel features that are the mean of all points in the voxel, however many there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace

from pcdet.models.backbones_3d.vfe.dynamic_voxels import grid_problems, grid_zyx, voxel_points
from pcdet.models.channel_flow import ChannelFlow, Parts
from pcdet.models.feature_spec import Entries, FeatureSpec, SlotModule
from pcdet.ops.scatter import scatter_mean
from pcdet.registry import VFE


@VFE.register(name="DynMeanVFE")
@VFE.register
class DynamicMeanVFE(SlotModule):
    """Mean of the raw features of a voxel's points; nothing is learned and no point is dropped for want of room.

    Args:
        num_point_features: channels of a raw point, x, y, z first.
        voxel_size: metres, [x, y, z].
        point_cloud_range: metres, [x_min, y_min, z_min, x_max, y_max, z_max]; points outside it are in no voxel.
    """

    READS = "points"

    def __init__(self, *, num_point_features: int, voxel_size: Sequence[float], point_cloud_range: Sequence[float]):
        super().__init__()
        self.num_point_features = num_point_features
        self.voxel_size, self.point_cloud_range = list(voxel_size), list(point_cloud_range)

    @classmethod
    def outputs(cls, config: SimpleNamespace, inputs: Entries) -> dict[str, FeatureSpec]:
        """``voxel_features``: a row for each voxel."""
        channels = inputs["points"].channels
        return {"voxel_features": FeatureSpec(kind="voxel", channels=channels, grid=grid_zyx(config.grid_size))}

    @classmethod
    def problems(cls, config: SimpleNamespace, inputs: Entries) -> Iterator[str]:
        """There must be a grid."""
        yield from grid_problems(cls, config)

    def channel_flow(self, flow: ChannelFlow, path: str, entries: Mapping[str, Parts]) -> dict[str, Parts]:
        """The columns of the points."""
        return {"voxel_features": entries["points"]}

    def get_output_feature_dim(self) -> int:
        """Channels of ``voxel_features``."""
        return self.num_point_features

    def forward(self, batch_dict: dict) -> dict:
        """Averages the points of every voxel.

        Reads: ``points`` (N, 1 + C) [batch_idx, x, y, z, ...]; ``batch_size``.
        Writes: ``voxel_features`` (V, C); ``voxel_coords`` (V, 4) int32 [batch_idx, z, y, x], ascending;
        ``voxel_num_points`` (V,).
        """
        points, groups, _ = voxel_points(batch_dict, self.voxel_size, self.point_cloud_range, any_height=False)
        batch_dict["voxel_features"] = scatter_mean(points, groups)
        return batch_dict
