"""Feature: one tapped tensor as a set of rows, whatever detector it comes from.

A loss written on sets serves pillars, voxels, points and BEV cells alike. Rows are in a canonical order, by frame and
then by position, so that nothing downstream depends on the order in which a network happened to hold them. Reading a
few rows of a large map (``take``) does not copy the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where the grid lies.

    Attributes:
        point_cloud_range: [x, y, z, x, y, z] minimum and maximum, metres.
        grid_size: voxels along x, y, z.
    """

    point_cloud_range: tuple[float, ...]
    grid_size: tuple[int, ...]

    @classmethod
    def of(cls, dataset: Any) -> Geometry:
        """Read off a dataset's ``point_cloud_range`` and ``grid_size``."""
        return cls(
            point_cloud_range=tuple(float(v) for v in dataset.point_cloud_range),
            grid_size=tuple(int(v) for v in dataset.grid_size),
        )

    def centres(self, cells_zyx: Tensor, shape_zyx: tuple[int, int, int]) -> Tensor:
        """(M, 3) cells of a grid of ``shape_zyx`` that fills the range -> (M, 3) their centres [x, y, z], metres."""
        low, high = self._corners(cells_zyx.device)
        cells = cells_zyx.new_tensor(shape_zyx, dtype=torch.float32).flip(0)
        return low + (cells_zyx.flip(1).float() + 0.5) * (high - low) / cells

    def cells(self, xyz: Tensor, height: int, width: int) -> Tensor:
        """(M, 3) metres -> (M,) index of the cell of an H x W ground grid that holds each, clamped to the grid."""
        low, high = self._corners(xyz.device)
        size = xyz.new_tensor([width, height])
        cell = ((xyz[:, :2] - low[:2]) / (high - low)[:2] * size).long()
        column, row = cell[:, 0].clamp(0, width - 1), cell[:, 1].clamp(0, height - 1)
        return row * width + column

    def _corners(self, device: torch.device) -> tuple[Tensor, Tensor]:
        corners = torch.tensor(self.point_cloud_range, dtype=torch.float32, device=device)
        return corners[:3], corners[3:]


@dataclass(frozen=True, kw_only=True)
class Feature:
    """M rows of C channels with their frame and position. ``x``, the rows themselves, is read on demand.

    Attributes:
        source: (M', C) rows as the network holds them, or a (B, C, H, W) map.
        rows: (M,) int64, where row i of this feature is in ``source``; None where they are in order already.
        frame: (M,) int64, non-decreasing.
        num_frames: B; frames without rows count.
        xyz: (M, 3) metres, LiDAR frame.
        count: (M,) LiDAR points behind each row, or None where that is not known.
    """

    source: Tensor
    rows: Tensor | None
    frame: Tensor
    num_frames: int
    xyz: Tensor
    count: Tensor | None = None

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def channels(self) -> int:
        """C."""
        return self.source.shape[1]

    @property
    def dense(self) -> Tensor | None:
        """(B, C, H, W) map, or None for a sparse set."""
        return self.source if self.source.dim() == 4 else None

    @property
    def x(self) -> Tensor:
        """(M, C) all rows, float32 at least."""
        return self.take(None)

    def take(self, index: Tensor | None) -> Tensor:
        """(n, C) the rows ``index``, float32 at least, so that autocast does not reach a loss.

        Args:
            index: (n,) rows, frame by frame; None for all.
        """
        if self.source.dim() == 4:
            return _full(_cells_of(self.source, index))
        rows = index if self.rows is None else self.rows if index is None else self.rows[index]
        return _full(self.source if rows is None else self.source.index_select(0, rows))

    def frame_sizes(self) -> list[int]:
        """Rows of every frame."""
        return torch.bincount(self.frame, minlength=self.num_frames).tolist()

    def as_one_frame(self) -> Feature:
        """The same rows with all frames taken for one."""
        return Feature(
            source=self.source,
            rows=self.rows,
            frame=torch.zeros_like(self.frame),
            num_frames=1,
            xyz=self.xyz,
            count=self.count,
        )

    # ------------------------------------------------------------------------------------------------ constructors

    @classmethod
    def from_voxels(
        cls, x: Tensor, coords: Tensor, geometry: Geometry, num_frames: int, count: Tensor | None = None
    ) -> Feature:
        """Rows of pillars or voxels.

        Args:
            x: (M, C).
            coords: (M, 4) [frame, z, y, x] cells of the voxel grid, of any number type.
            geometry: the grid.
            num_frames: B.
            count: (M,) points per voxel.
        """
        coords = coords.long()
        nx, ny, nz = geometry.grid_size
        shape = (max(nz, 1), ny, nx)
        return cls._from_cells(x, coords, shape, geometry, num_frames, count)

    @classmethod
    def from_sparse(cls, tensor: Any, geometry: Geometry, num_frames: int) -> Feature:
        """Rows of an spconv ``SparseConvTensor`` (``features``, ``indices`` [frame, z, y, x], ``spatial_shape``)."""
        shape = tuple(int(v) for v in tensor.spatial_shape)
        return cls._from_cells(tensor.features, tensor.indices.long(), shape, geometry, num_frames, None)

    @classmethod
    def _from_cells(
        cls,
        x: Tensor,
        coords: Tensor,
        shape: tuple[int, int, int],
        geometry: Geometry,
        num_frames: int,
        count: Tensor | None,
    ) -> Feature:
        if x.dim() != 2 or coords.shape != (len(x), 4):
            raise ValueError(
                "a set of voxels needs x (M, C) and coords (M, 4) [frame, z, y, x], "
                f"got {list(x.shape)} and {list(coords.shape)}"
            )
        strides = coords.new_tensor([shape[0] * shape[1] * shape[2], shape[1] * shape[2], shape[2], 1])
        rows = (coords * strides).sum(dim=1).argsort(stable=True)
        coords = coords[rows]
        return cls(
            source=x,
            rows=rows,
            frame=coords[:, 0].contiguous(),
            num_frames=num_frames,
            xyz=geometry.centres(coords[:, 1:], shape),
            count=None if count is None else count[rows].float(),
        )

    @classmethod
    def from_points(cls, x: Tensor, coords: Tensor, num_frames: int) -> Feature:
        """Rows of points.

        Args:
            x: (M, C).
            coords: (M, 4) [frame, x, y, z], metres.
            num_frames: B.
        """
        if x.dim() != 2 or coords.shape != (len(x), 4):
            raise ValueError(
                "a set of points needs x (M, C) and coords (M, 4) [frame, x, y, z], "
                f"got {list(x.shape)} and {list(coords.shape)}"
            )
        rows = coords[:, 0].argsort(stable=True)
        coords = coords[rows]
        return cls(source=x, rows=rows, frame=coords[:, 0].long(), num_frames=num_frames, xyz=coords[:, 1:4].float())

    @classmethod
    def from_bev(
        cls, dense: Tensor, geometry: Geometry, voxel_coords: Tensor | None = None, count: Tensor | None = None
    ) -> Feature:
        """Cells of a map, row by row.

        Args:
            dense: (B, C, H, W) over the whole range: H along y, W along x.
            geometry: the range.
            voxel_coords: (V, 4) [frame, z, y, x] occupied voxels; with ``count`` they give the points in every cell.
            count: (V,) points per voxel.
        """
        if dense.dim() != 4:
            raise ValueError(f"a BEV map must have shape (B, C, H, W), got {list(dense.shape)}")
        frames, _, height, width = dense.shape
        index = torch.arange(height * width, device=dense.device)
        cells = torch.stack([torch.zeros_like(index), index // width, index % width], dim=1)
        xyz = geometry.centres(cells, (1, height, width)).repeat(frames, 1)
        frame = torch.arange(frames, device=dense.device).repeat_interleave(height * width)
        points = None
        if voxel_coords is not None and count is not None:
            points = _points_per_cell(voxel_coords.long(), count.float(), geometry, dense.shape)
        return cls(source=dense, rows=None, frame=frame, num_frames=frames, xyz=xyz, count=points)


def _full(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _cells_of(dense: Tensor, index: Tensor | None) -> Tensor:
    """(n, C) cells of a (B, C, H, W) map by their flat index into B x H x W, frame by frame."""
    by_cell = dense.permute(0, 2, 3, 1)
    if index is None or by_cell.is_contiguous():
        flat = by_cell.flatten(0, 2)
        return flat if index is None else flat.index_select(0, index)
    # Channels outermost: gathering channel by channel is several times faster than cell by cell, above all backward.
    frames, channels, height, width = dense.shape
    sizes = torch.bincount(index // (height * width), minlength=frames).tolist()
    cells = torch.nn.utils.rnn.pad_sequence((index % (height * width)).split(sizes), batch_first=True)
    rows = dense.flatten(2).gather(2, cells[:, None].expand(-1, channels, -1)).transpose(1, 2)
    if min(sizes) == max(sizes):
        return rows.reshape(len(index), channels)
    return torch.cat([frame[:size] for frame, size in zip(rows, sizes, strict=True)])


def _points_per_cell(coords: Tensor, count: Tensor, geometry: Geometry, shape: torch.Size) -> Tensor:
    """(B * H * W,) LiDAR points above every cell of a map that may be coarser than the voxel grid."""
    frames, _, height, width = shape
    nx, ny, _ = geometry.grid_size
    row, column = coords[:, 2] * height // ny, coords[:, 3] * width // nx
    cell = (coords[:, 0] * height + row) * width + column
    return count.new_zeros(frames * height * width).index_add_(0, cell, count)
