"""Student widths: parameters of the paper, rounding, and what is left alone."""

import copy

import pytest
import torch
from easydict import EasyDict
from models.pointpillars import KITTI_RANGE, dataset_facts, model_cfg
from torch import nn

from pcdet.models import build_network
from pcdet.models.width import scale_channels, scale_model_cfg
from pcdet.registry import ConfigError
from pcdet.utils.model_stats import count_macs


@pytest.mark.parametrize(
    ("width", "parameters", "filters"),
    [(1, "4.83", [64, 128, 256]), (0.5, "1.22", [32, 64, 128]), (0.25, "0.31", [16, 32, 64])],
)
def test_pointpillars_students_have_the_papers_sizes(width, parameters, filters):
    cfg = model_cfg()
    cfg.WIDTH = width
    model = build_network(cfg, 3, dataset_facts(KITTI_RANGE))
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}" == parameters  # millions
    assert [block[1].out_channels for block in model.backbone_2d.blocks] == filters
    assert model.vfe.get_output_feature_dim() == filters[0]
    assert cfg.WIDTH == width, "the block that was given stays as it is"


@pytest.mark.parametrize(("width", "macs"), [(1, "34.17"), (0.5, "8.91"), (0.25, "2.41")])
def test_pointpillars_students_have_their_macs(width, macs):
    """Those of the convolutions on KITTI's whole grid: verified figures; the paper writes 34.3, 9.0 and 2.5."""
    cfg = model_cfg()
    cfg.WIDTH = width
    model = build_network(cfg, 3, dataset_facts(KITTI_RANGE)).to("meta").eval()

    class OnAMap(nn.Module):
        def forward(self, spatial_features):
            batch = model.backbone_2d({"spatial_features": spatial_features, "decode_boxes": False})
            return model.dense_head(batch)

    empty = torch.empty(1, model.vfe.get_output_feature_dim(), 496, 432, device="meta")
    assert f"{count_macs(OnAMap(), empty).dense / 1e9:.2f}" == macs


POINT_MLPS = [[[16, 16, 32], [32, 32, 64]], [[64, 64, 128], [64, 96, 128]], [[128, 196, 256]], [[256, 384, 512]]]
POINT_MLPS_8X = [[[5, 5, 11], [11, 11, 22]], [[22, 22, 45], [22, 34, 45]], [[45, 70, 91]], [[91, 137, 182]]]
POINT_MLPS_16X = [[[4, 4, 8], [8, 8, 16]], [[16, 16, 32], [16, 24, 32]], [[32, 49, 64]], [[64, 96, 128]]]


@pytest.mark.parametrize(
    ("width", "expected"), [(1 / 2.8, POINT_MLPS_8X), (0.357, POINT_MLPS_8X), (0.25, POINT_MLPS_16X)]
)
def test_channels_are_cut_as_in_the_papers_tables(width, expected):
    assert scale_channels(POINT_MLPS, width) == expected


def test_the_papers_2x_student():
    assert scale_channels([64, 128, 256], 1 / 1.4) == [45, 91, 182]
    assert scale_channels([64, 128, 256], 0.714) == [45, 91, 182]


def test_every_part_that_has_channels_is_scaled():
    cfg = EasyDict(
        BACKBONE_3D={"NAME": "PointNet2MSG", "SA_CONFIG": {"NPOINTS": [64], "MLPS": [[[64, 128]]]}, "FP_MLPS": [[128]]},
        POINT_HEAD={"CLS_FC": [256, 256], "REG_FC": [256], "TARGET_CONFIG": {"GT_EXTRA_WIDTH": [0.2] * 3}},
        ROI_HEAD={"XYZ_UP_LAYER": [128], "CLS_FC": [256], "SA_CONFIG": {"NPOINTS": [128], "MLPS": [[128, 256]]}},
        DENSE_HEAD={"SHARED_CONV_NUM_FILTER": 64, "SEPARATE_REG_CONFIG": {"NUM_MIDDLE_FILTER": 64}},
        WIDTH=0.5,
    )
    before = copy.deepcopy(cfg)
    scaled = scale_model_cfg(cfg, cfg.WIDTH)
    assert cfg == before and "WIDTH" not in scaled
    assert scaled.BACKBONE_3D.SA_CONFIG == {"NPOINTS": [64], "MLPS": [[[32, 64]]]} and scaled.BACKBONE_3D.FP_MLPS == [
        [64]
    ]
    assert scaled.POINT_HEAD.CLS_FC == [128, 128] and scaled.POINT_HEAD.TARGET_CONFIG == before.POINT_HEAD.TARGET_CONFIG
    assert scaled.ROI_HEAD.SA_CONFIG == {"NPOINTS": [128], "MLPS": [[64, 128]]}
    assert scaled.DENSE_HEAD == {"SHARED_CONV_NUM_FILTER": 32, "SEPARATE_REG_CONFIG": {"NUM_MIDDLE_FILTER": 32}}


def test_a_backbone_with_channels_in_its_code_takes_the_factor():
    cfg = EasyDict(BACKBONE_3D={"NAME": "VoxelBackBone8x"}, MAP_TO_BEV={"NUM_BEV_FEATURES": 256})
    assert scale_model_cfg(cfg, 0.25) == {
        "BACKBONE_3D": {"NAME": "VoxelBackBone8x", "WIDTH": 0.25},
        "MAP_TO_BEV": {"NUM_BEV_FEATURES": 64},
    }
    named = EasyDict(BACKBONE_3D={"NAME": "VoxelBackBone8x", "NUM_FILTERS": [16, 32]})
    assert scale_model_cfg(named, 0.5).BACKBONE_3D == {"NAME": "VoxelBackBone8x", "NUM_FILTERS": [8, 16]}


def test_no_layer_vanishes():
    assert scale_channels([1, 2], 0.25) == [1, 1]


@pytest.mark.parametrize("width", [0, -1, "half", True, float("nan")])
def test_a_width_that_is_no_positive_number_is_an_error(width):
    with pytest.raises(ConfigError, match="MODEL.WIDTH: must be a positive number"):
        scale_model_cfg(model_cfg(), width)
