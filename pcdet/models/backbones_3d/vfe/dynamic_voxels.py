"""What the encoders that make their own voxels share: the grid, and the points of a batch voxel by voxel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import NamedTuple

from torch import Tensor

from pcdet.models.feature_spec import STEPS
from pcdet.ops.scatter import RowGroups
from pcdet.ops.voxel import dynamic_voxelize


class VoxelPoints(NamedTuple):
    """The points of a batch that lie in the range, voxel by voxel.

    Attributes:
        points: (M, C) [x, y, z, ...].
        groups: the points of each of the V voxels.
        coords: (V, 4) int32 [batch_idx, z, y, x], ascending.
    """

    points: Tensor
    groups: RowGroups
    coords: Tensor


def voxel_points(
    batch_dict: dict, voxel_size: Sequence[float], point_cloud_range: Sequence[float], *, any_height: bool
) -> VoxelPoints:
    """Sorts ``points`` (N, 1 + C) [batch_idx, x, y, z, ...] of a batch of ``batch_size`` frames into voxels.

    Writes ``voxel_coords`` (V, 4) and ``voxel_num_points`` (V,). ``any_height``: see ``dynamic_voxelize``.
    """
    points = batch_dict["points"]
    found = dynamic_voxelize(
        points, voxel_size, point_cloud_range, batch_size=int(batch_dict["batch_size"]), any_height=any_height
    )
    batch_dict["voxel_coords"], batch_dict["voxel_num_points"] = found.coords, found.counts
    return VoxelPoints(points.index_select(0, found.order)[:, 1:], RowGroups(None, found.offsets), found.coords)


def grid_zyx(grid_size: Sequence[int] | None) -> tuple[int, int, int] | None:
    """(x, y, z) cells as a ``FeatureSpec`` has them, or None where they are not known."""
    return None if grid_size is None else tuple(int(n) for n in reversed(list(grid_size)))


def grid_problems(cls: type, config: SimpleNamespace) -> Iterator[str]:
    """There must be a grid."""
    if config.point_cloud_range is not None and config.voxel_size is None:
        yield f"{STEPS}: {cls.__name__} needs a grid; add transform_points_to_voxels_placeholder with its VOXEL_SIZE"
