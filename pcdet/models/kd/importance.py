"""How important a detector finds each point of a frame, as PointDistiller (arXiv 2205.11098) ranks its rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import nn

from pcdet.models.kd.features.grid import Geometry
from pcdet.models.kd.features.taps import Taps
from pcdet.models.kd.graphs.sampling import importance_scores
from pcdet.models.kd.model_outputs import ModelOutputs

MAP, POINTS = "spatial_features_2d", "point_features"  # taps: what a head reads of a detector with a map, and without
BRIGHT = 0.99  # of the points have at most importance 1: a single one must not leave the others dark


def importance_of_points(
    model: nn.Module, batch: dict[str, Any], points: np.ndarray, geometry: Geometry, by: str = "channel_l2"
) -> np.ndarray:
    """The importance of each of a frame's points: that of the cell or point of the detector that is nearest to it.

    Args:
        model: a detector in evaluation mode.
        batch: one frame, on the model's device.
        points: (N, 3 or more) metres, LiDAR frame.
        geometry: of the model's grid.
        by: a measure of ``importance_scores`` that needs no labels.

    Returns:
        (N,) float32 0..1, from the least important point to the most.

    Raises:
        ConfigError: the detector writes no such feature.
        ValueError: the measure needs what is not there.
    """
    tap = POINTS if model.backbone_2d is None else MAP
    with torch.no_grad():
        with Taps(model, [tap]) as taps:
            model(batch)
        feature = ModelOutputs(model, batch, taps.complete(batch), geometry).feature(tap)
        value = importance_scores(by, feature).float().cpu().numpy()
    columns = 2 if feature.kind == "map" else 3  # a cell of a map is a whole column
    _, nearest = cKDTree(feature.xyz[:, :columns].cpu().numpy()).query(points[:, :columns])
    value = value[nearest]
    low, high = (value.min(), np.quantile(value, BRIGHT)) if len(value) else (0.0, 1.0)
    return np.clip((value - low) / max(high - low, 1e-12), 0.0, 1.0).astype(np.float32)
