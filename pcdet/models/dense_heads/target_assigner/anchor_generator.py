"""Anchors on a regular grid of BEV cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnchorConfig:
    """The anchors of one class: an entry of ``ANCHOR_GENERATOR_CONFIG``.

    Attributes:
        class_name: one of CLASS_NAMES.
        anchor_sizes: metres, [dx, dy, dz] of each size.
        anchor_rotations: radians.
        anchor_bottom_heights: metres, z of the anchors' bottom; one number.
        align_center: put anchors at the centres of the cells; otherwise the first and the last lie on the range's ends.
        feature_map_stride: cells of the voxel grid for one cell of the map.
        matched_threshold: an overlap from here on makes an anchor positive.
        unmatched_threshold: an overlap below makes it background.
    """

    class_name: str
    anchor_sizes: list[list[float]]
    anchor_rotations: list[float]
    anchor_bottom_heights: list[float]
    align_center: bool = False
    feature_map_stride: int
    matched_threshold: float
    unmatched_threshold: float

    def __post_init__(self):
        if not self.anchor_sizes or any(len(size) != 3 or min(size) <= 0 for size in self.anchor_sizes):
            raise ValueError(f"ANCHOR_SIZES: must be positive [dx, dy, dz], got {self.anchor_sizes}")
        if not self.anchor_rotations:
            raise ValueError("ANCHOR_ROTATIONS: must name at least one angle, got []")
        if len(self.anchor_bottom_heights) != 1:
            raise ValueError(
                f"ANCHOR_BOTTOM_HEIGHTS: must be one height, got {self.anchor_bottom_heights}; "
                "write one entry for each height"
            )
        if self.feature_map_stride < 1:
            raise ValueError(f"FEATURE_MAP_STRIDE: must be at least 1, got {self.feature_map_stride}")
        if not 0 < self.matched_threshold <= 1 or self.unmatched_threshold > self.matched_threshold:
            raise ValueError(
                "MATCHED_THRESHOLD: must lie in (0, 1] and not below UNMATCHED_THRESHOLD, got "
                f"{self.matched_threshold} and {self.unmatched_threshold}"
            )

    @property
    def num_per_location(self) -> int:
        """Anchors in one cell."""
        return len(self.anchor_sizes) * len(self.anchor_rotations)


def generate_anchors(
    config: AnchorConfig, *, grid_size: Sequence[int], point_cloud_range: Sequence[float], box_size: int = 7
) -> Tensor:
    """Anchors of one class.

    The number of cells is exact: positions are counted, not stepped, so no rounding adds or drops one.

    Args:
        config: the class.
        grid_size: cells of the voxel grid, [x, y, ...]; must be a multiple of the config's stride.
        point_cloud_range: metres, [x_min, y_min, z_min, x_max, y_max, z_max].
        box_size: columns of an anchor; those from the eighth on are zero.

    Returns:
        (1, ny, nx, S, R, box_size) float32 LiDAR boxes on the CPU: S sizes, R rotations.
    """
    nx, ny = map_size(config, grid_size)
    limits = np.asarray(point_cloud_range, dtype=np.float32)
    xs = _positions(limits[0], limits[3], nx, config.align_center)
    ys = _positions(limits[1], limits[4], ny, config.align_center)
    sizes = torch.tensor(config.anchor_sizes, dtype=torch.float32)
    rotations = torch.tensor(config.anchor_rotations, dtype=torch.float32)
    anchors = torch.zeros(1, ny, nx, len(sizes), len(rotations), box_size)
    anchors[..., 0] = xs[:, None, None]
    anchors[..., 1] = ys[:, None, None, None]
    anchors[..., 2] = (config.anchor_bottom_heights[0] + sizes[:, 2] / 2)[:, None]
    anchors[..., 3:6] = sizes[:, None]
    anchors[..., 6] = rotations
    return anchors


def map_size(config: AnchorConfig, grid_size: Sequence[int]) -> tuple[int, int]:
    """(nx, ny) cells of the feature map; ValueError if the stride does not divide the grid."""
    stride = config.feature_map_stride
    if any(int(n) % stride for n in grid_size[:2]):
        raise ValueError(
            f"FEATURE_MAP_STRIDE of {config.class_name} must divide the voxel grid {[int(n) for n in grid_size[:2]]}, "
            f"got {stride}"
        )
    return int(grid_size[0]) // stride, int(grid_size[1]) // stride


def _positions(low: np.float32, high: np.float32, count: int, align_center: bool) -> Tensor:
    """(count,) float32 positions, bit for bit those of OpenPCDet on a CPU with AVX2, whatever the CPU is here.

    Bits matter: an object that lies within several anchors is the best of those whose area rounds down. OpenPCDet calls
    ``torch.arange``, which there rounds the first number of every eight and counts on from it in float64, but for the
    numbers behind the last whole sixteen.
    """
    step = float(high - low) / (count if align_center else max(count - 1, 1))
    index = np.arange(count)
    eight = index // 8 * 8
    start = float(low) + (step / 2 if align_center else 0.0) + step * eight
    start = np.where(index < count // 16 * 16, start.astype(np.float32), start)
    return torch.from_numpy((start + step * (index - eight)).astype(np.float32))
