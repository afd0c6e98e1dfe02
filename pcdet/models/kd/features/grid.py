"""Where things lie: a detector's range and voxels, and the coarser grids that its layers make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pcdet.utils.transfer import constant


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where a detector's voxels lie.

    Attributes:
        point_cloud_range: [x, y, z, x, y, z] minimum and maximum, metres.
        grid_size: voxels along x, y, z; None for a detector without voxels.
    """

    point_cloud_range: tuple[float, ...]
    grid_size: tuple[int, ...] | None

    @classmethod
    def of(cls, dataset: Any) -> Geometry:
        """Read off a dataset's ``point_cloud_range`` and ``grid_size``."""
        grid_size = getattr(dataset, "grid_size", None)
        return cls(
            point_cloud_range=tuple(float(v) for v in dataset.point_cloud_range),
            grid_size=None if grid_size is None else tuple(int(v) for v in grid_size),
        )

    def grid(self, shape: Sequence[int], strides: Sequence[int] | None = None) -> Grid:
        """The grid of a layer.

        A cell is a whole number of voxels wide, although the shape may not say so exactly: strided layers round it up,
        and sparse backbones add a layer of height (41 layers, halved to 21, 11, 5 and 2, of 40 voxels).

        Args:
            shape: cells, [z, y, x].
            strides: voxels to a cell, [z, y, x]; None: the whole numbers next to what the shape says, which are wrong
                by a few where a volume has few layers (20 for the 16 voxels of each of the 2 layers above).
        """
        low, high = self.point_cloud_range[:3], self.point_cloud_range[3:]
        cells = [int(n) for n in shape][::-1]
        voxels = self.grid_size or cells
        if strides is None:
            along = [max(1, round(v / n)) if v >= n / 1.5 else v / n for v, n in zip(voxels, cells, strict=True)]
        else:
            along = strides[::-1]
        size = [(b - a) / v * s for a, b, v, s in zip(low, high, voxels, along, strict=True)]
        return Grid(low=tuple(low), high=tuple(high), size=tuple(size), shape=tuple(cells[::-1]))

    def map_grid(self, height: int, width: int) -> Grid:
        """The grid of a BEV map, whose one layer spans the whole height."""
        return self.grid((1, height, width))


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Cells of a layer.

    Attributes:
        low, high: corners of the range, [x, y, z] metres.
        size: of a cell along x, y, z, metres.
        shape: cells along z, y, x.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    size: tuple[float, ...]
    shape: tuple[int, int, int]

    def centres(self, cells: Tensor) -> Tensor:
        """(M, 3) cells [z, y, x] -> (M, 3) their centres [x, y, z], metres, float32."""
        low, size = (constant(v, cells.device, torch.float32) for v in (self.low, self.size))
        return low + (cells.flip(1).float() + 0.5) * size

    def flat(self, batch_idx: Tensor, cells: Tensor) -> Tensor:
        """(M,) batch_idx and (M, 3) cells [z, y, x], int64 -> (M,) one number for each cell of each frame, in order."""
        depth, height, width = self.shape
        return ((batch_idx * depth + cells[:, 0]) * height + cells[:, 1]) * width + cells[:, 2]

    def cells_at(self, xyz: Tensor) -> tuple[Tensor, Tensor]:
        """The cells that hold positions.

        Args:
            xyz: (M, 3) metres.

        Returns:
            (M, 3) int64 cells [z, y, x], clamped to the grid; (M,) False for positions outside the range.
        """
        low, high, size = (constant(v, xyz.device, torch.float32) for v in (self.low, self.high, self.size))
        last = constant(self.shape, xyz.device).flip(0) - 1
        cells = ((xyz - low) / size).floor().long().clamp(min=0).minimum(last)
        return cells.flip(1), ((xyz >= low) & (xyz <= high)).all(dim=1)

    def cells_around(self, batch_idx: Tensor, xyz: Tensor) -> tuple[Tensor, Tensor]:
        """The four cells of a map around positions, for bilinear interpolation; constant beyond the outer centres.

        Args:
            batch_idx: (M,) int64, the frame of each position.
            xyz: (M, 3) metres.

        Returns:
            (M, 4) ``flat`` cells and (M, 4) their weights, which sum to one.
        """
        low, size = (constant(v[:2], xyz.device, torch.float32) for v in (self.low, self.size))
        last = constant(self.shape[:0:-1], xyz.device) - 1
        at = (xyz[:, :2] - low) / size - 0.5
        first = at.floor()
        share = at - first
        layer = torch.zeros_like(batch_idx)
        cells, weights = [], []
        for dy in (0, 1):
            for dx in (0, 1):
                corner = (first.long() + constant([dx, dy], xyz.device)).clamp(min=0).minimum(last)
                cells.append(self.flat(batch_idx, torch.stack([layer, corner[:, 1], corner[:, 0]], dim=1)))
                along_x, along_y = (share[:, i] if step else 1 - share[:, i] for i, step in enumerate((dx, dy)))
                weights.append(along_x * along_y)
        return torch.stack(cells, dim=1), torch.stack(weights, dim=1)
