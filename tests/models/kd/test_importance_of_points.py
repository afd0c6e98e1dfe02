"""The importance of points is that of the nearest cell or point of the detector, from 0 to 1."""

import numpy as np
import pytest
import torch
from torch import nn

from pcdet.models.kd.features.grid import Geometry
from pcdet.models.kd.importance import importance_of_points
from pcdet.registry import ConfigError

GEOMETRY = Geometry(point_cloud_range=(0.0, 0.0, -1.0, 4.0, 2.0, 1.0), grid_size=(4, 2, 1))  # cells of 1 m


class Writer(nn.Module):
    """A part of a detector that writes one entry of the batch."""

    def __init__(self, **entry):
        super().__init__()
        self.entry = entry

    def forward(self, batch):
        return {**batch, **self.entry}


class Detector(nn.Module):
    def __init__(self, backbone_2d, backbone_3d=None):
        super().__init__()
        self.backbone_2d, self.backbone_3d = backbone_2d, backbone_3d

    def forward(self, batch):
        for part in (self.backbone_3d, self.backbone_2d):
            batch.update({} if part is None else part(batch))


def test_points_of_a_map_take_the_norm_of_their_column():
    cells = torch.zeros(1, 2, 2, 4)  # (B, C, y, x)
    cells[0, :, 0, 1] = torch.tensor([3.0, 4.0])  # norm 5
    cells[0, 0, 1, 3] = 1.0
    points = np.array([[1.5, 0.5, 0.9], [1.4, 0.4, -0.9], [3.5, 1.5, 0.0], [0.5, 0.5, 0.0]] + [[1.6, 0.6, 0.1]] * 6)
    detector = Detector(Writer(spatial_features_2d=cells))
    found = importance_of_points(detector, {"batch_size": 1}, points, GEOMETRY)
    np.testing.assert_allclose(found, [1, 1, 0.2, 0] + [1] * 6, atol=1e-6)
    assert found.dtype == np.float32


def test_points_of_a_detector_without_a_map_take_the_norm_of_the_nearest_one():
    coords = torch.tensor([[0.0, 1, 1, 0], [0, 1, 1, 0.8]])  # frame, x, y, z
    parts = {"point_features": torch.tensor([[0.0, 2.0], [4.0, 0.0]]), "point_coords": coords}
    points = np.array([[1, 1, 0.1], [1, 1, 0.7], [1, 1, 0.9]])
    found = importance_of_points(Detector(None, Writer(**parts)), {"batch_size": 1}, points, GEOMETRY)
    np.testing.assert_allclose(found, [0, 1, 1], atol=1e-6)


def test_a_frame_without_points_has_no_importance():
    detector = Detector(Writer(spatial_features_2d=torch.ones(1, 2, 2, 4)))
    assert importance_of_points(detector, {"batch_size": 1}, np.zeros((0, 3)), GEOMETRY).shape == (0,)


def test_a_detector_that_writes_no_such_feature_is_named():
    with pytest.raises(ConfigError, match="has no tap 'spatial_features_2d'"):
        importance_of_points(Detector(Writer(other=torch.ones(1))), {"batch_size": 1}, np.ones((1, 3)), GEOMETRY)
