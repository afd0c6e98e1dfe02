"""The steps that every sample goes through, one small class each: range mask, shuffling, sampling, voxels.

A step is called with ``(sample, rng)`` and returns the sample. Those that lay a grid have ``grid_size`` and
``voxel_size``, which the models read off the data set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pcdet.registry import PROCESSORS, ConfigError, Count
from pcdet.utils.box_utils import mask_boxes_outside_range_numpy
from pcdet.utils.common_utils import mask_points_by_range

FAR = 40.0  # metres; points from here on are few, and sampling keeps them


@dataclass(frozen=True, kw_only=True)
class CountByMode:
    """A number for training and one for testing."""

    train: int
    test: int


@dataclass(frozen=True, kw_only=True)
class LimitByMode:
    """A limit for training and one for testing."""

    train: Count
    test: Count


@dataclass(frozen=True, kw_only=True)
class FlagByMode:
    """A switch for training and one for testing."""

    train: bool
    test: bool


@PROCESSORS.register(name="mask_points_and_boxes_outside_range")
class MaskPointsAndBoxesOutsideRange:
    """Drops points outside the range's x and y limits and, in training, boxes outside the range.

    Args:
        remove_outside_boxes: whether boxes are dropped.
        min_num_corners: how many BEV corners of a box must lie inside, where the centre does not decide.
        use_center_to_filter: a box stays if its centre lies in the range, z included.
        point_cloud_range: (6,) metres.
        training: whether this is for training.
    """

    def __init__(
        self,
        *,
        remove_outside_boxes: bool,
        point_cloud_range: np.ndarray,
        training: bool,
        min_num_corners: int = 1,
        use_center_to_filter: bool = True,
    ):
        self.point_cloud_range = point_cloud_range
        self.filters_boxes = remove_outside_boxes and training
        self.min_num_corners = min_num_corners
        self.use_center_to_filter = use_center_to_filter

    def __call__(self, sample: dict, rng: np.random.Generator) -> dict:
        """Modified: ``points`` (N, C), ``gt_boxes`` (M, 7+)."""
        if sample.get("points") is not None:
            inside = mask_points_by_range(sample["points"], self.point_cloud_range)
            sample["points"] = sample["points"].compress(inside, axis=0)  # a third of the time that [inside] takes
        if sample.get("gt_boxes") is not None and self.filters_boxes:
            keep = mask_boxes_outside_range_numpy(
                sample["gt_boxes"], self.point_cloud_range, self.min_num_corners, self.use_center_to_filter
            )
            for key in ("gt_boxes", "gt_boxes2d"):
                if key in sample:
                    sample[key] = sample[key][keep]
        return sample


@PROCESSORS.register(name="shuffle_points")
class ShufflePoints:
    """Puts the points in a random order.

    Args:
        shuffle_enabled: in training and in testing.
        training: whether this is for training.
    """

    def __init__(self, *, shuffle_enabled: FlagByMode, training: bool):
        self.enabled = shuffle_enabled.train if training else shuffle_enabled.test

    def __call__(self, sample: dict, rng: np.random.Generator) -> dict:
        """Modified: ``points``."""
        if self.enabled:
            order = rng.permutation(len(sample["points"]))
            sample["points"] = sample["points"].take(order, axis=0)  # a third of the time that [order] takes
        return sample


@PROCESSORS.register(name="sample_points")
class SamplePoints:
    """Gives every sample the same number of points.

    Of too many, all far ones stay (unless they alone are too many) and random near ones; of too few, all stay and
    random ones are repeated, as often as it takes. An empty cloud becomes points of zeros.

    Args:
        num_points: in training and in testing; -1 leaves the points alone.
        training: whether this is for training.
    """

    EQUAL_FRAMES = True  # every frame has as many points behind this step

    def __init__(self, *, num_points: CountByMode, training: bool):
        self.num_points = num_points.train if training else num_points.test
        if self.num_points < 1 and self.num_points != -1:
            raise ConfigError(f"NUM_POINTS: must be positive, or -1 for all points, got {self.num_points}")

    def __call__(self, sample: dict, rng: np.random.Generator) -> dict:
        """Modified: ``points``, afterwards (num_points, C) in random order."""
        if self.num_points != -1:
            points = sample["points"]
            if len(points) == 0:
                sample["points"] = np.zeros((self.num_points, points.shape[1]), dtype=points.dtype)
            else:
                sample["points"] = points[rng.permutation(self._choose(points, rng))]
        return sample

    def _choose(self, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        wanted, have = self.num_points, len(points)
        if wanted >= have:
            extra = rng.choice(have, wanted - have, replace=wanted - have > have)
            return np.concatenate([np.arange(have), extra])
        far = np.linalg.norm(points[:, :3], axis=1) >= FAR
        far_points = np.flatnonzero(far)
        if len(far_points) >= wanted:
            return rng.choice(have, wanted, replace=False)
        near = rng.choice(np.flatnonzero(~far), wanted - len(far_points), replace=False)
        return np.concatenate([near, far_points])


def grid_of(point_cloud_range: np.ndarray, voxel_size: list[float]) -> np.ndarray:
    """Cells along x, y, z, (3,) int64."""
    extent = np.asarray(point_cloud_range[3:6], dtype=np.float64) - np.asarray(point_cloud_range[:3], dtype=np.float64)
    return np.round(extent / np.asarray(voxel_size, dtype=np.float64)).astype(np.int64)


@PROCESSORS.register(name="transform_points_to_voxels_placeholder")
class TransformPointsToVoxelsPlaceholder:
    """Lays the grid and leaves the points alone, for models that make their own voxels.

    Args:
        voxel_size: [x, y, z] metres.
        point_cloud_range: (6,) metres.
    """

    def __init__(self, *, voxel_size: list[float], point_cloud_range: np.ndarray):
        self.voxel_size = list(voxel_size)
        self.grid_size = grid_of(point_cloud_range, voxel_size)

    def __call__(self, sample: dict, rng: np.random.Generator) -> dict:
        """Changes nothing."""
        return sample


@PROCESSORS.register(name="calculate_grid_size")
class CalculateGridSize(TransformPointsToVoxelsPlaceholder):
    """The same as ``transform_points_to_voxels_placeholder``, under its other name."""


@PROCESSORS.register(name="transform_points_to_voxels")
class TransformPointsToVoxels:
    """Sorts the points into voxels, first come, first served.

    Args:
        voxel_size: [x, y, z] metres.
        max_points_per_voxel: further points of a voxel are dropped.
        max_number_of_voxels: in training and in testing; further voxels are dropped.
        point_cloud_range: (6,) metres; points outside it are in no voxel.
        training: whether this is for training.
    """

    MAKES_VOXELS = True

    def __init__(
        self,
        *,
        voxel_size: list[float],
        max_points_per_voxel: Count,
        max_number_of_voxels: LimitByMode,
        point_cloud_range: np.ndarray,
        training: bool,
    ):
        self.voxel_size = list(voxel_size)
        self.grid_size = grid_of(point_cloud_range, voxel_size)
        self.point_cloud_range = [float(value) for value in point_cloud_range]
        self.max_points = max_points_per_voxel
        self.max_voxels = max_number_of_voxels.train if training else max_number_of_voxels.test

    def __call__(self, sample: dict, rng: np.random.Generator) -> dict:
        """Required: ``points`` (N, C).

        Added: ``voxels`` (V, P, C) float32, zero padded; ``voxel_coords`` (V, 3) int32 [z, y, x]; ``voxel_num_points``
        (V,) int32.
        """
        import torch

        from pcdet.ops.voxel import voxelize

        points = torch.from_numpy(np.ascontiguousarray(sample["points"], dtype=np.float32))
        voxels, coords, counts = voxelize(
            points, self.voxel_size, self.point_cloud_range, max_points=self.max_points, max_voxels=self.max_voxels
        )
        sample["voxels"], sample["voxel_coords"] = voxels.numpy(), coords.numpy()
        sample["voxel_num_points"] = counts.numpy()
        return sample
