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
