"""Runs the steps of DATA_PROCESSOR one after another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pcdet.registry import PROCESSORS, build_from_cfg


class DataProcessor:
    """The steps of DATA_PROCESSOR, built from their nodes.

    Args:
        processor_configs: nodes with NAME, in the order they run.
        point_cloud_range: (6,) metres.
        training: whether this is for training.
        num_point_features: columns of the points that arrive here.

    Attributes:
        grid_size: (3,) int64 cells along x, y, z; None where no step lays a grid.
        voxel_size: [x, y, z] metres, or None.
    """

    def __init__(
        self,
        processor_configs: Sequence[dict],
        point_cloud_range: np.ndarray,
        training: bool,
        num_point_features: int,
    ):
        self.mode = "train" if training else "test"
        self.data_processor_queue = [
            build_from_cfg(
                node,
                PROCESSORS,
                path=f"DATA_PROCESSOR[{i}]",
                point_cloud_range=point_cloud_range,
                training=training,
                mode=self.mode,
                num_point_features=num_point_features,
            )
            for i, node in enumerate(processor_configs)
        ]
        grids = [step for step in self.data_processor_queue if hasattr(step, "grid_size")]
        self.grid_size = grids[-1].grid_size if grids else None
        self.voxel_size = grids[-1].voxel_size if grids else None

    def forward(self, data_dict: dict, rng: np.random.Generator) -> dict:
        """The sample after every step."""
        for step in self.data_processor_queue:
            data_dict = step(data_dict, rng)
        return data_dict
