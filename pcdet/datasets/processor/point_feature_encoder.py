"""Picks the features of the points that the model gets."""

from __future__ import annotations

import numpy as np

from pcdet.registry import POINT_ENCODERS, ConfigError


@POINT_ENCODERS.register(name="absolute_coordinates_encoding")
class AbsoluteCoordinatesEncoding:
    """Keeps the named columns; x, y, z come first and stay as they are.

    Args:
        used_feature_list: what the model gets, beginning with x, y, z.
        src_feature_list: what the columns of the points are.
        point_cloud_range: (6,) metres, unused here.
        filter_sweeps: keep only the points of the latest ``max_sweeps`` times (nuScenes-like data).
        max_sweeps: how many.
    """

    def __init__(
        self,
        *,
        used_feature_list: list[str],
        src_feature_list: list[str],
        point_cloud_range: np.ndarray | None = None,
        filter_sweeps: bool = False,
        max_sweeps: int = 1,
    ):
        problems = [
            f"{key}: must begin with x, y, z, got {names}"
            for key, names in (("used_feature_list", used_feature_list), ("src_feature_list", src_feature_list))
            if list(names[:3]) != ["x", "y", "z"]
        ]
        problems += [
            f"used_feature_list: {name!r} is not in src_feature_list {src_feature_list}"
            for name in used_feature_list
            if name not in src_feature_list
        ]
        if filter_sweeps and "timestamp" not in src_feature_list:
            problems.append("filter_sweeps: needs 'timestamp' in src_feature_list")
        if problems:
            raise ConfigError(problems)
        self.used_feature_list = list(used_feature_list)
        self.src_feature_list = list(src_feature_list)
        self.point_cloud_range = point_cloud_range
        self.columns = [self.src_feature_list.index(name) for name in self.used_feature_list]
        self.max_sweeps = max_sweeps if filter_sweeps else None

    @property
    def num_point_features(self) -> int:
        """How many features the model gets."""
        return len(self.columns)

    def forward(self, sample: dict) -> dict:
        """Required: ``points`` (N, len(src_feature_list)). Modified: ``points``. Added: ``use_lead_xyz``."""
        points = sample["points"]
        if points.shape[1] != len(self.src_feature_list):
            raise ValueError(
                f"frame {sample.get('frame_id')}: points have {points.shape[1]} features, but src_feature_list names "
                f"{len(self.src_feature_list)}: {self.src_feature_list}"
            )
        if self.max_sweeps is not None:
            times = np.round(points[:, self.src_feature_list.index("timestamp")], 2)
            points = points[times <= np.unique(times)[: self.max_sweeps].max(initial=-np.inf)]
        if self.columns != list(range(points.shape[1])):
            points = points[:, self.columns]
        sample["points"] = points
        sample["use_lead_xyz"] = True
        return sample
