"""Dynamic voxelisation: every point keeps its place, and every occupied voxel all of its points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

import pcdet.ops  # noqa: F401  (loads the native library)


class DynamicVoxels(NamedTuple):
    """The V occupied voxels of N points, M of which lie in the range.

    Attributes:
        coords: (V, 4) int32 [batch_idx, z, y, x], ascending.
        inverse: (N,) int64, the voxel of each point; -1 outside the range.
        order: (M,) int64, the points in the range, voxel by voxel, those of a voxel ascending.
        offsets: (V + 1,) int64: voxel v has the points ``order[offsets[v] : offsets[v + 1]]``.
    """

    coords: Tensor
    inverse: Tensor
    order: Tensor
    offsets: Tensor

    @property
    def counts(self) -> Tensor:
        """(V,) int64 points of each voxel, at least one."""
        return self.offsets.diff()


def dynamic_voxelize(
    points: Tensor,
    voxel_size: Sequence[float],
    point_cloud_range: Sequence[float],
    *,
    batch_size: int,
    any_height: bool = False,
) -> DynamicVoxels:
    """The points of a batch sorted into voxels, none of which has a limit. Not differentiable.

    Points outside the range, or with a NaN or infinite coordinate, are in no voxel. The same on every device; a GPU's
    host waits once, for the numbers of voxels and of points in them.

    Args:
        points: (N, 4 + C) [batch_idx, x, y, z, ...], float32 or float64.
        voxel_size: [dx, dy, dz], metres.
        point_cloud_range: [x0, y0, z0, x1, y1, z1]; a point's cell is floor((p - low) / size), in the points' own type.
        batch_size: B; frames without points count.
        any_height: pillars: a column of cells is one voxel, with z = 0, and has the points above and below the range
            too.

    Raises:
        ValueError: another shape or dtype, no grid, or, on the CPU, a batch_idx that is no frame's number; a GPU leaves
            such points out.
    """
    size = [float(s) for s in voxel_size]
    limits = [float(r) for r in point_cloud_range]
    return DynamicVoxels(*torch.ops.pcdet.dynamic_voxelize(points.detach(), size, limits, int(batch_size), any_height))


@torch.library.register_fake("pcdet::dynamic_voxelize")
def _fake_dynamic_voxelize(points, voxel_size, point_cloud_range, batch_size, any_height):
    context = torch.library.get_ctx()
    num_voxels, num_inside = context.new_dynamic_size(), context.new_dynamic_size()
    coords = points.new_empty(num_voxels, 4, dtype=torch.int32)
    sizes = (points.shape[0], num_inside, num_voxels + 1)
    return coords, *(points.new_empty(size, dtype=torch.int64) for size in sizes)
