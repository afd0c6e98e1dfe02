"""Readable version of ``voxelize``: the specification that tests compare to."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def voxelize(
    points: Tensor, voxel_size, point_cloud_range, max_points: int, max_voxels: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Voxels (V, P, C), coords (V, 3) int32 [z, y, x], num_points (V,) int32: one point after the other into a dict."""
    table = points.cpu().numpy()
    low, high = np.array(point_cloud_range, dtype=np.float64).reshape(2, 3)
    grid_size = np.round((high - low) / np.array(voxel_size, dtype=np.float64))
    low, size = low.astype(table.dtype), np.array(voxel_size, dtype=table.dtype)
    members: dict[tuple[int, int, int], list[int]] = {}
    for i, point in enumerate(table):
        cell = np.floor((point[:3] - low) / size)
        if not np.all((cell >= 0) & (cell < grid_size)):
            continue
        x, y, z = map(int, cell)
        if (z, y, x) in members or len(members) < max_voxels:
            members.setdefault((z, y, x), []).append(i)

    voxels = points.new_zeros(len(members), max_points, points.shape[1])
    for row, rows in enumerate(members.values()):
        voxels[row, : len(rows[:max_points])] = points[rows[:max_points]]
    coords = torch.tensor(list(members), dtype=torch.int32, device=points.device).view(-1, 3)
    counts = [min(len(rows), max_points) for rows in members.values()]
    return voxels, coords, torch.tensor(counts, dtype=torch.int32, device=points.device)


def dynamic_voxelize(
    points: Tensor, voxel_size, point_cloud_range, batch_size: int, any_height: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coords (V, 4) int32 [batch_idx, z, y, x], inverse (N,), order (M,) and offsets (V + 1,) int64, by sorting."""
    low, high = torch.tensor(point_cloud_range, dtype=torch.float64, device=points.device).view(2, 3)
    size = torch.tensor(voxel_size, dtype=torch.float64, device=points.device)
    grid = ((high - low) / size).round()
    batch_idx, xyz = points[:, 0], points[:, 1:4]
    cell = ((xyz - low.to(points.dtype)) / size.to(points.dtype)).floor()
    if any_height:
        grid[2], cell[:, 2] = 1, 0
    inside = ((cell >= 0) & (cell < grid)).all(1) & xyz.isfinite().all(1) & (batch_idx >= 0) & (batch_idx < batch_size)

    rows = inside.nonzero().squeeze(1)
    x, y, z = cell[rows].long().unbind(1)
    nx, ny, nz = grid.long().tolist()
    number = ((batch_idx[rows].long() * nz + z) * ny + y) * nx + x
    occupied, voxel, counts = number.unique(return_inverse=True, return_counts=True)
    coords = [occupied // (nx * ny * nz), occupied // (nx * ny) % nz, occupied // nx % ny, occupied % nx]
    inverse = torch.full((len(points),), -1, device=points.device).index_copy(0, rows, voxel)
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    return torch.stack(coords, dim=1).int(), inverse, rows[voxel.argsort(stable=True)], offsets
