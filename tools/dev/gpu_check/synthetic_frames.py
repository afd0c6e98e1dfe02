"""Training frames that need no data: clouds and boxes at KITTI's density, through the pipeline of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pcdet.datasets.dataset import DatasetTemplate
from pcdet.testing import random_boxes, random_cloud

POINTS, OBJECTS = 20_000, 16  # of a KITTI frame: what camera 2 sees, and objects with those that are pasted
SMALL_POINTS, SMALL_OBJECTS = 1_500, 4
SIZES = {"Car": [3.9, 1.6, 1.56], "Pedestrian": [0.8, 0.6, 1.73], "Cyclist": [1.76, 0.6, 1.73]}
FROM_FILES = "gt_sampling"  # pastes objects of a database, which lies on disk


class SyntheticFrames(DatasetTemplate):
    """Frame ``index`` depends on the index alone; augmentation is the configuration's, but for pasted objects.

    Args:
        dataset_cfg: DATA_CONFIG.
        class_names: among KITTI's three.
        small: fewer points and objects.
    """

    def __init__(self, dataset_cfg: Mapping[str, Any], class_names: list[str], small: bool):
        self.num_points, self.num_objects = (SMALL_POINTS, SMALL_OBJECTS) if small else (POINTS, OBJECTS)
        self.frames = 64
        augmentor = {**dataset_cfg["DATA_AUGMENTOR"]}
        augmentor["DISABLE_AUG_LIST"] = [*augmentor.get("DISABLE_AUG_LIST", []), FROM_FILES]
        super().__init__({**dataset_cfg, "DATA_AUGMENTOR": augmentor}, class_names, training=True, root_path=".")
        self.set_seed(0)

    def num_frames(self) -> int:
        """As many as anyone asks for."""
        return self.frames

    def load_frame(self, index: int) -> dict:
        """See the base class."""
        low, high = self.point_cloud_range[:3], self.point_cloud_range[3:]
        reach = float(min(high[0] - low[0], high[1] - low[1]) * 0.4)
        boxes = random_boxes(self.num_objects, seed=index, extent=reach)
        names = np.array([self.class_names[i % len(self.class_names)] for i in range(self.num_objects)])
        boxes[:, :2] += torch.from_numpy((low[:2] + high[:2]) / 2)
        boxes[:, 2] = -0.9
        boxes[:, 3:6] = torch.tensor([SIZES[name] for name in names])
        return {
            "points": self._points(index, float(high[0])),
            "gt_boxes": boxes.numpy(),
            "gt_names": names,
            "frame_id": f"{index:06d}",
        }

    def _points(self, index: int, reach: float) -> np.ndarray:
        """A scan; one of a small range is drawn together, so that its points lie within."""
        points = random_cloud(self.num_points, seed=index)
        points[:, :2] *= min(1.0, reach / 40.0)
        return points.numpy()
