"""Hard voxelisation: points -> voxels of at most so many points, in order of first appearance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import pcdet.ops  # noqa: F401  (loads the native library)


def voxelize(
    points: Tensor,
    voxel_size: Sequence[float],
    point_cloud_range: Sequence[float],
    max_points: int,
    max_voxels: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The points sorted into voxels, as spconv's ``PointToVoxel`` does it on the CPU. Not differentiable.

    Voxels stand in the order in which their first points appear, and keep their first ``max_points`` points in that
    order. Once there are ``max_voxels``, points in new voxels are dropped, points in old ones still enter. Points
    outside the range, or with a NaN or infinite coordinate, are dropped. The same on every device. On the CPU the
    memory of one freed result, of up to 32 MB, is kept for the next.

    Args:
        points: (N, 3 + C) [x, y, z, ...], float32 or float64.
        voxel_size: [dx, dy, dz], metres.
        point_cloud_range: [x0, y0, z0, x1, y1, z1]; a point's cell is floor((p - low) / size), in the points' own type.
        max_points: P, the most points a voxel keeps.
        max_voxels: the most voxels.

    Returns:
        voxels (V, P, 3 + C) padded with zeros, coords (V, 3) int32 [z, y, x], num_points (V,) int32 in [1, P].
    """
    size = [float(s) for s in voxel_size]
    limits = [float(r) for r in point_cloud_range]
    return torch.ops.pcdet.voxelize(points.detach(), size, limits, int(max_points), int(max_voxels))


@torch.library.register_fake("pcdet::voxelize")
def _fake_voxelize(points, voxel_size, point_cloud_range, max_points, max_voxels):
    num_voxels = torch.library.get_ctx().new_dynamic_size()
    voxels = points.new_empty(num_voxels, max_points, points.shape[1])
    coords = points.new_empty(num_voxels, 3, dtype=torch.int32)
    return voxels, coords, points.new_empty(num_voxels, dtype=torch.int32)
