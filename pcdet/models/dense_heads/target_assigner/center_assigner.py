"""Targets of a centre head: heat maps, and what to say of the object at the cell of its centre."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from pcdet.models.model_utils.centernet_utils import draw_gaussians, gaussian_radius
from pcdet.registry import Count, CountOrZero
from pcdet.utils.transfer import constant

BOX = 7  # x, y, z, dx, dy, dz, heading
BOX_CODES = 8  # offsets x, y; z; logarithms of dx, dy, dz; cosine and sine of the heading


@dataclasses.dataclass(frozen=True, kw_only=True)
class CenterTargetConfig:
    """``TARGET_ASSIGNER_CONFIG`` of a centre head.

    Attributes:
        feature_map_stride: voxels along a side of a cell.
        num_max_objs: objects of a branch and frame that become targets; those behind them do not.
        gaussian_overlap: IoU that a box must keep whose corner is off by the radius of the bell.
        min_radius: least radius of a bell, cells.
    """

    feature_map_stride: Count
    num_max_objs: Count = 500
    gaussian_overlap: float = 0.1
    min_radius: CountOrZero = 2

    def __post_init__(self):
        if not 0 < self.gaussian_overlap < 1:
            raise ValueError(f"GAUSSIAN_OVERLAP: must lie between 0 and 1, got {self.gaussian_overlap}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CenterMap:
    """Where the cells of a centre head's maps lie.

    Attributes:
        shape: (H, W) cells.
        origin: (x, y) metres of the map's corner.
        voxel: (x, y) metres of a voxel.
        stride: voxels along a side of a cell.
    """

    shape: tuple[int, int]
    origin: tuple[float, float]
    voxel: tuple[float, float]
    stride: int

    @classmethod
    def of(
        cls, stride: int, grid_size: Sequence[int], voxel_size: Sequence[float], range_: Sequence[float]
    ) -> CenterMap:
        """The map of this stride over a grid of voxels: strided convolutions leave a cell for the voxels at the end."""
        return cls(
            shape=(-(-int(grid_size[1]) // stride), -(-int(grid_size[0]) // stride)),
            origin=(float(range_[0]), float(range_[1])),
            voxel=(float(voxel_size[0]), float(voxel_size[1])),
            stride=stride,
        )

    def cells(self, metres: Tensor, axis: int) -> Tensor:
        """Lengths along an axis (0 for x) in cells."""
        return metres / self.voxel[axis] / self.stride

    def metres(self, cells: Tensor, axis: int) -> Tensor:
        """Coordinates on the map along an axis (0 for x), in cells from its corner -> in the LiDAR frame."""
        return cells * self.stride * self.voxel[axis] + self.origin[axis]


class CenterTargetAssigner:
    """Assigns objects to cells.

    Args:
        config: see its class.
        place: of the cells.
        groups: ids, counted from 1, of the classes of each branch, in the order of its heat maps.
        num_codes: columns of a box code; those behind the eighth are velocities.
    """

    def __init__(
        self, config: CenterTargetConfig, *, place: CenterMap, groups: Sequence[Sequence[int]], num_codes: int
    ):
        self.config, self.place, self.num_codes = config, place, num_codes
        self.sizes = [len(group) for group in groups]
        ids = [i for group in groups for i in group]
        # row 0 and the last stand for padding and classes that there are not
        self._column, self._branch = ([-1] * (max(ids) + 2) for _ in range(2))
        for column, i in enumerate(ids):
            self._column[i] = column
            self._branch[i] = next(b for b, group in enumerate(groups) if i in group)

    @torch.no_grad()
    def assign_targets(self, gt_boxes: Tensor) -> dict[str, list[Tensor]]:
        """What every branch should predict. ``gt_boxes`` stays as it is. The host waits for the GPU once.

        Args:
            gt_boxes: (B, M, 8 + C) LiDAR boxes with the class id, counted from 1, last; rows of class 0, and those
                without a size, are no objects. C is the number of velocities, or more: what nobody predicts is left.

        Returns:
            A list with an entry for each branch, under ``heatmaps`` (B, classes, H, W) in [0, 1], 1 at centres;
            ``target_boxes`` (B, NUM_MAX_OBJS, codes) [x, y offset in cells, z, log dx, dy, dz, cos, sin, velocities];
            ``inds`` (B, NUM_MAX_OBJS) int64 y * W + x of their cells; ``masks`` (B, NUM_MAX_OBJS) bool, which rows hold
            an object; ``target_boxes_src`` (B, NUM_MAX_OBJS, 8 + C) their rows of ``gt_boxes``.

        Raises:
            ValueError: the boxes have fewer velocities than are predicted.
        """
        extra = self.num_codes - BOX_CODES
        if gt_boxes.shape[2] < BOX + extra + 1:
            raise ValueError(
                f"gt_boxes must have {BOX + extra + 1} columns, {extra} of them velocities, which HEAD_ORDER has, "
                f"got {gt_boxes.shape[2]}; set DATA_CONFIG.PRED_VELOCITY to True, or remove vel from HEAD_ORDER"
            )
        columns, branches = (constant(table, gt_boxes.device) for table in (self._column, self._branch))
        ids = gt_boxes[..., -1].long().clamp(0, len(columns) - 1)
        column, branch = columns[ids], branches[ids]
        centre = self._centres(gt_boxes)
        cell = centre.long()
        real = (gt_boxes[..., 3:6] > 0).all(dim=-1)
        rows_of = {
            "target_boxes": torch.where(real[..., None], self._codes(gt_boxes, centre - cell), 0),
            "inds": torch.where(real, cell[..., 1] * self.place.shape[1] + cell[..., 0], 0),
            "masks": real,
            "target_boxes_src": gt_boxes,
        }
        targets: dict[str, list[Tensor]] = {key: [] for key in rows_of}
        drawn = torch.zeros_like(real)
        for i in range(len(self.sizes)):
            slot, own = self._slots(branch == i)
            drawn |= own & real
            for key, rows in rows_of.items():
                targets[key].append(self._placed(rows, slot))
        return {"heatmaps": self._heatmaps(gt_boxes, column, cell, drawn), **targets}

    def _centres(self, gt_boxes: Tensor) -> Tensor:
        """(B, M, 2) centres in cells, x before y; those outside of the map at its border."""
        parts = []
        for axis, count in enumerate(self.place.shape[::-1]):
            along = self.place.cells(gt_boxes[..., axis] - self.place.origin[axis], axis)
            parts.append(torch.nan_to_num(along).clamp(0, count - 0.5))
        return torch.stack(parts, dim=-1)

    def _codes(self, gt_boxes: Tensor, offset: Tensor) -> Tensor:
        extra, heading = self.num_codes - BOX_CODES, gt_boxes[..., 6:7]
        size = gt_boxes[..., 3:6].log()
        velocity = gt_boxes[..., BOX : BOX + extra]
        return torch.cat([offset, gt_boxes[..., 2:3], size, heading.cos(), heading.sin(), velocity], dim=-1)

    def _slots(self, member: Tensor) -> tuple[Tensor, Tensor]:
        """(B, M) row of the targets of each ``member`` (B, M) of a branch, NUM_MAX_OBJS for none; and if it has one."""
        rank = member.cumsum(dim=1) - 1
        own = member & (rank < self.config.num_max_objs)
        return torch.where(own, rank, self.config.num_max_objs), own

    def _placed(self, rows: Tensor, slot: Tensor) -> Tensor:
        """Rows (B, M, ...) at their slots, (B, NUM_MAX_OBJS, ...); zeros elsewhere."""
        out = rows.new_zeros(len(rows), self.config.num_max_objs + 1, *rows.shape[2:])
        where = slot[..., None].expand_as(rows) if rows.dim() == 3 else slot
        return out.scatter_(1, where, rows)[:, :-1]

    def _heatmaps(self, gt_boxes: Tensor, column: Tensor, cell: Tensor, drawn: Tensor) -> list[Tensor]:
        frames, planes, config = len(gt_boxes), sum(self.sizes), self.config
        length, width = (torch.where(drawn, self.place.cells(gt_boxes[..., 3 + axis], axis), 1.0) for axis in (0, 1))
        radius = gaussian_radius(length, width, config.gaussian_overlap)
        plane = torch.arange(frames, device=column.device)[:, None] * planes + column
        maps = draw_gaussians(
            frames * planes,
            self.place.shape,
            plane.flatten(),
            cell.flatten(0, 1),
            radius.long().clamp(min=config.min_radius).flatten(),
            drawn.flatten(),
        )
        return list(maps.view(frames, planes, *self.place.shape).to(gt_boxes.dtype).split(self.sizes, dim=1))
