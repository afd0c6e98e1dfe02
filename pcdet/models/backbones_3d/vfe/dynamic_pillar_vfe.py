"""Pillar features learned by a small PointNet from all points of a pillar, without slots (Zhou et al., CoRL 2019).

It differs from ``PillarVFE`` in what enters the batch statistics and the maximum: the points alone, of which a pillar
may have any number, and no rows of zeros. Their height does not matter: a pillar has the points above and below the
range too, as in OpenPCDet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcdet.models.backbones_3d.vfe.dynamic_voxels import VoxelPoints, grid_problems, grid_zyx, voxel_points
from pcdet.models.backbones_3d.vfe.pillar_vfe import PFNLayer, PillarVFE
from pcdet.models.feature_spec import Entries, FeatureSpec
from pcdet.models.model_utils.precision import full_precision
from pcdet.ops.scatter import RowGroups, expand_groups, scatter_max, scatter_mean
from pcdet.registry import VFE


class DynamicPFNLayer(PFNLayer):
    """The layer of ``PillarVFE``, with its weights, over the points alone."""

    def forward(self, points: Tensor, groups: RowGroups) -> Tensor:
        """Features of every point, or of every pillar if this is the last layer.

        Args:
            points: (M, in_channels).
            groups: the points of each of the V pillars.

        Returns:
            (M, out_channels), or (V, out_channels).
        """
        x = self.linear(points)
        x = F.relu(self._normalise(x) if self.use_norm else x)
        pillar = scatter_max(x, groups)
        return pillar if self.last_layer else torch.cat((x, expand_groups(pillar, groups, len(x))), dim=1)

    def _normalise(self, x: Tensor) -> Tensor:
        """Batch normalisation; fewer than two points have no statistics, and take the running ones."""
        norm = self.norm
        if norm.training and len(x) < 2 and not isinstance(norm, nn.SyncBatchNorm):  # whose other processes wait
            return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        # a channel's points side by side: with a row for each point PyTorch's float32 statistics are off by percents
        return norm(x.t()[None])[0].t()


@VFE.register(name="DynPillarVFE")
@VFE.register
class DynamicPillarVFE(PillarVFE):
    """Pillar features from points decorated as ``PillarVFE`` does it. The arguments are the same.

    Always runs in the precision of its parameters, whatever autocast says.
    """

    READS = "points"
    LAYER = DynamicPFNLayer

    def __init__(self, *, point_cloud_range: Sequence[float], **options: Any):
        super().__init__(point_cloud_range=point_cloud_range, **options)
        self.point_cloud_range = list(point_cloud_range)

    @classmethod
    def outputs(cls, config: SimpleNamespace, inputs: Entries) -> dict[str, FeatureSpec]:
        """``pillar_features``: a row for each pillar."""
        if not config.num_filters:
            return {}
        grid = grid_zyx(config.grid_size)
        return {"pillar_features": FeatureSpec(kind="pillar", channels=config.num_filters[-1], grid=grid)}

    @classmethod
    def problems(cls, config: SimpleNamespace, inputs: Entries) -> Iterator[str]:
        """There must be a grid, and a layer."""
        if not config.num_filters:
            yield "NUM_FILTERS: must name the channels of at least one layer, got []"
        yield from grid_problems(cls, config)

    def forward(self, batch_dict: dict) -> dict:
        """Encodes every pillar.

        Reads: ``points`` (N, 1 + C) [batch_idx, x, y, z, ...]; ``batch_size``.
        Writes: ``pillar_features`` (V, num_filters[-1]), and the same as ``voxel_features``; ``voxel_coords`` (V, 4)
        int32 [batch_idx, 0, y, x], ascending; ``voxel_num_points`` (V,).
        """
        found = voxel_points(batch_dict, self.voxel_size, self.point_cloud_range, any_height=True)
        with full_precision(found.points.device):
            features = self._decorate_points(found)
            for layer in self.pfn_layers:
                features = layer(features, found.groups)
        batch_dict["pillar_features"] = batch_dict["voxel_features"] = features
        return batch_dict

    def _decorate_points(self, found: VoxelPoints) -> Tensor:
        """(M, C') features of every point."""
        points, groups = found.points.to(self.pfn_layers[0].linear.weight.dtype), found.groups
        centres = self._centres(found.coords, points.dtype)
        of_pillar = torch.cat((scatter_mean(points[:, :3], groups), centres), dim=1)
        mean, centre = expand_groups(of_pillar, groups, len(points)).split(3, dim=1)
        return self._decorate(points, mean, centre)
