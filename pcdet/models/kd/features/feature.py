"""Feature: one tapped tensor as a set of rows, whatever detector it comes from.

A loss written on sets serves pillars, voxels, points and BEV cells alike. Rows are in a canonical order, by frame and
then by position, so that nothing downstream depends on the order in which a network happened to hold them. Reading a
few rows of a large map (``take``) does not copy the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pcdet.models.kd.features.grid import Geometry, Grid
from pcdet.ops.edge_conv.terms import full_precision
from pcdet.utils.transfer import sizes_of_frames


@dataclass(frozen=True)
class Voxels:
    """The occupied voxels of a batch.

    Attributes:
        coords: (V, 4) int64 [batch_idx, z, y, x].
        count: (V,) floats, points in each.
    """

    coords: Tensor
    count: Tensor

    @classmethod
    def of(cls, batch_dict: dict[str, Any]) -> Voxels | None:
        """Those of a batch, or None where it has none."""
        coords, count = batch_dict.get("voxel_coords"), batch_dict.get("voxel_num_points")
        return None if coords is None or count is None else cls(coords.long(), count.float())


@dataclass(frozen=True, kw_only=True)
class Feature:
    """M rows of C channels with their frame and position. ``x``, the rows themselves, is read on demand.

    Attributes:
        source: (M', C) rows as the network holds them, or a (B, C, H, W) map, whose rows are its cells, row by row.
        rows: (M,) int64, where row i of this feature is in ``source``; None where they are in order already.
        batch_idx: (M,) int64, non-decreasing: the frame of each row.
        num_frames: B; frames without rows count.
        xyz: (M, 3) metres, LiDAR frame.
        count: (M,) LiDAR points behind each row, or None where that is not known.
        grid: whose cells the rows are; None for points.
        cells: (M,) int64, ascending: ``grid.flat`` of each row; None for points.
        around: (M, 4) cells of a map and (M, 4) weights, where a row is interpolated between them; else None.
    """

    source: Tensor
    rows: Tensor | None
    batch_idx: Tensor
    num_frames: int
    xyz: Tensor
    count: Tensor | None = None
    grid: Grid | None = None
    cells: Tensor | None = None
    around: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.batch_idx)

    @property
    def channels(self) -> int:
        """C."""
        return self.source.shape[1]

    @property
    def kind(self) -> str:
        """What its rows are: as ``FeatureSpec.kind``, stages being maps."""
        if self.source.dim() == 4:
            return "map"
        if self.grid is None:
            return "point"
        return "pillar" if self.grid.shape[0] == 1 else "voxel"

    @property
    def dense(self) -> Tensor | None:
        """(B, C, H, W) map of which every cell is a row, or None."""
        return self.source if self.source.dim() == 4 and self.rows is None else None

    @property
    def x(self) -> Tensor:
        """(M, C) all rows, float32 at least."""
        return self.take(None)

    def take(self, index: Tensor | None) -> Tensor:
        """(n, C) the rows ``index``, float32 at least, so that autocast does not reach a loss.

        Args:
            index: (n,) rows, frame by frame; None for all.
        """
        if self.around is not None:
            cells, weights = self.around if index is None else (part[index] for part in self.around)
            corners = zip(cells.unbind(1), weights.split(1, dim=1), strict=True)
            return sum(weight * full_precision(_cells_of(self.source, cell)) for cell, weight in corners)
        rows = index if self.rows is None else self.rows if index is None else self.rows[index]
        if self.source.dim() == 4:
            return full_precision(_cells_of(self.source, rows))
        return full_precision(self.source if rows is None else self.source.index_select(0, rows))

    def select(self, index: Tensor | None) -> Feature:
        """The rows ``index`` (n,), frame by frame, as a feature of their own; itself for None."""
        if index is None:
            return self
        return replace(
            self,
            rows=index if self.rows is None else self.rows[index],
            batch_idx=self.batch_idx[index],
            xyz=self.xyz[index],
            count=None if self.count is None else self.count[index],
            cells=None if self.cells is None else self.cells[index],
            around=None if self.around is None else tuple(part[index] for part in self.around),
        )

    def frame_sizes(self) -> list[int]:
        """Rows of every frame."""
        if self.dense is not None:
            return [self.dense[0, 0].numel()] * self.num_frames
        return sizes_of_frames(self.batch_idx, self.num_frames)

    def as_one_frame(self) -> Feature:
        """The same rows with all frames taken for one."""
        return replace(self, batch_idx=torch.zeros_like(self.batch_idx), num_frames=1)

    # ------------------------------------------------------------------------------------------------ constructors

    @classmethod
    def from_voxels(
        cls, x: Tensor, coords: Tensor, geometry: Geometry, num_frames: int, count: Tensor | None = None
    ) -> Feature:
        """Rows of pillars or voxels.

        Args:
            x: (M, C).
            coords: (M, 4) [batch_idx, z, y, x] cells of the voxel grid, of any number type.
            geometry: the grid.
            num_frames: B.
            count: (M,) points per voxel.
        """
        nx, ny, nz = geometry.grid_size
        return cls._from_cells(x, coords.long(), geometry.grid((max(nz, 1), ny, nx)), num_frames, count)

    @classmethod
    def from_sparse(
        cls,
        tensor: Any,
        geometry: Geometry,
        num_frames: int,
        voxels: Voxels | None = None,
        strides: Sequence[int] | None = None,
    ) -> Feature:
        """Rows of an spconv ``SparseConvTensor`` (``features``, ``indices`` [batch_idx, z, y, x], ``spatial_shape``).

        Args:
            tensor: the sparse tensor.
            geometry: the voxel grid.
            num_frames: B.
            voxels: they give the points in every cell, which may hold several voxels, or none where a strided
                convolution made it.
            strides: voxels to a cell, [z, y, x]; None: as far as the shape tells.
        """
        grid = geometry.grid(tensor.spatial_shape, strides)
        feature = cls._from_cells(tensor.features, tensor.indices.long(), grid, num_frames, None)
        return feature if voxels is None else replace(feature, count=_points_per_row(feature, voxels, geometry))

    @classmethod
    def _from_cells(cls, x: Tensor, coords: Tensor, grid: Grid, num_frames: int, count: Tensor | None) -> Feature:
        if x.dim() != 2 or coords.shape != (len(x), 4):
            raise ValueError(
                "a set of voxels needs x (M, C) and coords (M, 4) [batch_idx, z, y, x], "
                f"got {list(x.shape)} and {list(coords.shape)}"
            )
        cells, rows = grid.flat(coords[:, 0], coords[:, 1:]).sort(stable=True)
        coords = coords[rows]
        return cls(
            source=x,
            rows=rows,
            batch_idx=coords[:, 0].contiguous(),
            num_frames=num_frames,
            xyz=grid.centres(coords[:, 1:]),
            count=None if count is None else count[rows].float(),
            grid=grid,
            cells=cells,
        )

    @classmethod
    def from_points(cls, x: Tensor, coords: Tensor, num_frames: int) -> Feature:
        """Rows of points.

        Args:
            x: (M, C).
            coords: (M, 4) [batch_idx, x, y, z], metres.
            num_frames: B.
        """
        if x.dim() != 2 or coords.shape != (len(x), 4):
            raise ValueError(
                "a set of points needs x (M, C) and coords (M, 4) [batch_idx, x, y, z], "
                f"got {list(x.shape)} and {list(coords.shape)}"
            )
        rows = coords[:, 0].argsort(stable=True)
        coords = coords[rows]
        return cls(
            source=x, rows=rows, batch_idx=coords[:, 0].long(), num_frames=num_frames, xyz=coords[:, 1:4].float()
        )

    @classmethod
    def from_bev(cls, dense: Tensor, geometry: Geometry, voxels: Voxels | None = None) -> Feature:
        """Cells of a map, row by row.

        Args:
            dense: (B, C, H, W) over the whole range: H along y, W along x.
            geometry: the range.
            voxels: they give the points in every cell.
        """
        if dense.dim() != 4:
            raise ValueError(f"a BEV map must have shape (B, C, H, W), got {list(dense.shape)}")
        frames, _, height, width = dense.shape
        grid = geometry.map_grid(height, width)
        index = torch.arange(height * width, device=dense.device)
        cells = torch.stack([torch.zeros_like(index), index // width, index % width], dim=1)
        feature = cls(
            source=dense,
            rows=None,
            batch_idx=torch.arange(frames, device=dense.device).repeat_interleave(height * width),
            num_frames=frames,
            xyz=grid.centres(cells).repeat(frames, 1),
            grid=grid,
            cells=torch.arange(frames * height * width, device=dense.device),
        )
        return feature if voxels is None else replace(feature, count=_points_per_row(feature, voxels, geometry))


def _cells_of(dense: Tensor, index: Tensor | None) -> Tensor:
    """(n, C) cells of a (B, C, H, W) map by their flat index into B x H x W, frame by frame."""
    by_cell = dense.permute(0, 2, 3, 1)
    if index is None or by_cell.is_contiguous():
        flat = by_cell.flatten(0, 2)
        return flat if index is None else flat.index_select(0, index)
    if (
        dense.device.type != "cpu"
    ):  # the CPU's way below asks how many cells each frame has, for which a GPU's host waits
        cell, width = index % dense[0, 0].numel(), dense.shape[3]
        return by_cell[index // dense[0, 0].numel(), cell // width, cell % width]
    # Channels outermost: gathering channel by channel is several times faster than cell by cell, above all backward.
    frames, channels, height, width = dense.shape
    sizes = sizes_of_frames(index // (height * width), frames)
    cells = torch.nn.utils.rnn.pad_sequence((index % (height * width)).split(sizes), batch_first=True)
    rows = dense.flatten(2).gather(2, cells[:, None].expand(-1, channels, -1)).transpose(1, 2)
    if min(sizes) == max(sizes):
        return rows.reshape(len(index), channels)
    return torch.cat([frame[:size] for frame, size in zip(rows, sizes, strict=True)])


def _points_per_row(feature: Feature, voxels: Voxels, geometry: Geometry) -> Tensor:
    """(M,) LiDAR points in the cell of every row, by the centres of the voxels that hold them."""
    nx, ny, nz = geometry.grid_size
    centres = geometry.grid((max(nz, 1), ny, nx)).centres(voxels.coords[:, 1:])
    cells, _ = feature.grid.cells_at(centres)
    row = rows_of(feature.cells, feature.grid.flat(voxels.coords[:, 0], cells))
    total = voxels.count.new_zeros(len(feature))
    if not len(feature):
        return total
    return total.index_add_(0, row.clamp(min=0), torch.where(row >= 0, voxels.count, 0))  # a mask's rows cost a wait


def rows_of(ascending: Tensor, numbers: Tensor) -> Tensor:
    """(n,) where each number stands in (M,) ascending numbers, -1 for those that do not."""
    if len(ascending) == 0:
        return torch.full_like(numbers, -1)
    at = torch.searchsorted(ascending, numbers).clamp(max=len(ascending) - 1)
    return torch.where(ascending[at] == numbers, at, -1)
