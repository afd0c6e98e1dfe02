"""Gaussian targets of centre heads (CornerNet's radius, CenterNet's heat maps)."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_radius(height: Tensor, width: Tensor, min_overlap: float = 0.5) -> Tensor:
    """How far a corner may be off for a box still to overlap the true one enough (Law and Deng, 2018, section 3.2).

    The smallest of three cases: both corners inside, both outside, one of each. As in OpenPCDet the roots are
    (b + sqrt(d)) / 2 in all of them, which is not the root of the equation in two.

    Args:
        height: (N,) cells.
        width: (N,) cells.
        min_overlap: overlap to keep.

    Returns:
        (N,) cells.
    """
    area, half = width * height, height + width
    one_each = (1.0, half, area * (1 - min_overlap) / (1 + min_overlap))
    inside = (4.0, 2 * half, (1 - min_overlap) * area)
    outside = (4 * min_overlap, -2 * min_overlap * half, (min_overlap - 1) * area)
    roots = [(b + torch.sqrt(b**2 - 4 * a * c)) / 2 for a, b, c in (one_each, inside, outside)]
    return torch.stack(roots).amin(dim=0)


def draw_gaussian_to_heatmap(heatmap: Tensor, center: Tensor, radius: int, k: float = 1.0) -> Tensor:
    """Raises a heat map, in place, to a bell of standard deviation (2 radius + 1) / 6 where that is higher.

    Args:
        heatmap: (H, W).
        center: (2,) integer cell, x before y.
        radius: cells; the bell is cut off there.
        k: its height.

    Returns:
        ``heatmap``.
    """
    x, y, radius = int(center[0]), int(center[1]), int(radius)
    height, width = heatmap.shape
    low_x, high_x, low_y, high_y = max(x - radius, 0), min(x + radius + 1, width), max(y - radius, 0), y + radius + 1
    if low_x >= high_x or low_y >= min(high_y, height):
        return heatmap
    patch = heatmap[low_y:high_y, low_x:high_x]
    steps = torch.arange(-radius, radius + 1, dtype=torch.float64, device=heatmap.device)
    bell = torch.exp(-(steps**2) / (2 * ((2 * radius + 1) / 6) ** 2))
    rows, columns = bell[low_y - y + radius :][: patch.shape[0]], bell[low_x - x + radius :][: patch.shape[1]]
    torch.maximum(patch, (k * torch.outer(rows, columns)).to(heatmap.dtype), out=patch)
    return heatmap


def draw_gaussians(
    planes: int, map_shape: tuple[int, int], plane: Tensor, cell: Tensor, radius: Tensor, drawn: Tensor
) -> Tensor:
    """Heat maps of many objects at once: what ``draw_gaussian_to_heatmap`` makes object by object; one wait for a GPU.

    Args:
        planes: how many maps.
        map_shape: (H, W).
        plane: (N,) int64, the map of each object.
        cell: (N, 2) int64 cell of its centre, x before y, within the map.
        radius: (N,) int64 cells at which its bell is cut off.
        drawn: (N,) bool; what the others have in their rows does not matter.

    Returns:
        (planes, H, W) float32: 1 in the cell of a centre, the highest bell elsewhere, 0 outside of all bells.
    """
    height, width = map_shape
    side = 2 * radius + 1
    count = torch.where(drawn, side * side, 0)
    owner = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    step = torch.arange(len(owner), device=count.device) - (count.cumsum(0) - count)[owner]
    side, radius = side[owner], radius[owner]
    dx, dy = step % side - radius, torch.div(step, side, rounding_mode="floor") - radius
    x, y = cell[owner, 0] + dx, cell[owner, 1] + dy
    bell = torch.exp(-(dx * dx + dy * dy).double() / (2 * (side.double() / 6) ** 2)).float()
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    index = torch.where(inside, (plane[owner] * height + y) * width + x, 0)
    heatmap = bell.new_zeros(planes * height * width)
    heatmap.scatter_reduce_(0, index, torch.where(inside, bell, 0), "amax")
    return heatmap.view(planes, height, width)
