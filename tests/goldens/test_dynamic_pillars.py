"""Dynamic pillars and their map against OpenPCDet's numbers (cbgs_dyn_pp_centerpoint), from weights drawn by rule."""

import json

import numpy as np
import pytest
import torch
from support.golden_numbers import EXACT, check_tensor
from support.golden_weights import fill
from torch import nn

from pcdet.models.backbones_2d.map_to_bev import PointPillarScatter
from pcdet.models.backbones_3d.vfe import DynamicPillarVFE

VOXEL_SIZE = [0.2, 0.2, 8.0]


@pytest.fixture(scope="module")
def data(goldens):
    return np.load(goldens / "reference" / "models" / "cbgs_dyn_pp_centerpoint.npz")


@pytest.fixture(scope="module")
def batch(data):
    clouds = [np.pad(data[f"input.points{i}"], ((0, 0), (1, 0)), constant_values=i) for i in (0, 1)]
    points, limits = torch.from_numpy(np.concatenate(clouds)), data["input.point_cloud_range"]
    inside = [(points[:, k] >= limits[k - 1]) & (points[:, k] <= limits[k + 2]) for k in (1, 2)]
    return {"points": points[inside[0] & inside[1]], "batch_size": 2}


def _build(data):
    limits = data["input.point_cloud_range"]
    grid = np.round((limits[3:] - limits[:3]) / VOXEL_SIZE).astype(int)
    vfe = DynamicPillarVFE(num_filters=[64, 64], num_point_features=5, voxel_size=VOXEL_SIZE, point_cloud_range=limits)
    model = nn.Module()  # the rule draws weights by their names in the detector
    model.vfe, model.map_to_bev_module = vfe, PointPillarScatter(num_bev_features=64, grid_size=grid)
    return fill(model, json.loads(str(data["meta"]))["salt"])


def test_the_weights_have_openpcdets_names(data):
    names = [name for name in data["fill.names"].tolist() if name.startswith("vfe.")]
    assert list(_build(data).state_dict()) == names


@pytest.mark.parametrize("mode", ["test", "train"])
def test_pillars_and_map(data, batch, mode):
    model = _build(data).train(mode == "train")
    found = model.map_to_bev_module(model.vfe(dict(batch)))
    coords = found["voxel_coords"]
    by_x = coords[:, 0].long() * 10000**2 + coords[:, 3].long() * 10000 + coords[:, 2]  # OpenPCDet's order
    rows = by_x.argsort()
    assert np.array_equal(coords[rows].numpy(), data[f"{mode}.voxel_coords"])
    check_tensor(data, f"{mode}.pillar_features", found["pillar_features"][rows], lambda x: x[:200])
    check_tensor(data, f"{mode}.spatial_features", found["spatial_features"], lambda x: x[:, ::12, ::5, ::7])
    assert found["voxel_features"] is found["pillar_features"]
    if mode == "train":
        own = [float(b.double().norm()) for b in (dict(model.named_buffers())[n] for n in _norm_names(data))]
        expected = dict(zip(data["train.after.bn_names"].tolist(), data["train.after.bn_norms"], strict=True))
        np.testing.assert_allclose(own, [expected[n] for n in _norm_names(data)], rtol=EXACT)


def _norm_names(data):
    return [name for name in data["train.after.bn_names"].tolist() if name.startswith("vfe.")]
