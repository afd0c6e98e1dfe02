"""Sizes of the shipped students of nuScenes models, as the guide tells them, and the widths of the paper's table 4."""

from pathlib import Path

import pytest
import torch
from easydict import EasyDict
from models.pointpillars import dataset_facts
from torch import nn

from pcdet.config import cfg_from_yaml_file
from pcdet.models import build_network
from pcdet.models.width import scale_model_cfg
from pcdet.utils.model_stats import count_macs

FOLDER = Path(__file__).resolve().parents[2] / "tools/cfgs/nuscenes_models"
SPARSE_STRIDE = 8
# docs/KD.md: millions of parameters, and G multiply-accumulates from the map of features on
SIZES = {
    "kd/cbgs_pp_multihead_2x": ("3.08", "33.01"),
    "kd/cbgs_pp_multihead_4x": ("1.56", "16.85"),
    "kd/cbgs_second_multihead_2x": ("4.57", "30.81"),
    "kd/cbgs_second_multihead_4x": ("2.30", "15.71"),
    "kd/cbgs_dyn_pp_centerpoint_2x": ("3.02", "31.90"),
    "kd/cbgs_dyn_pp_centerpoint_4x": ("1.51", "16.07"),
    "kd/cbgs_voxel01_res3d_centerpoint_2x": ("4.50", "29.71"),
    "kd/cbgs_voxel01_res3d_centerpoint_4x": ("2.25", "14.93"),
    "kd/cbgs_voxel0075_res3d_centerpoint_2x": ("4.50", "58.75"),
    "kd/cbgs_voxel0075_res3d_centerpoint_4x": ("2.25", "29.52"),
}


class MapPart(nn.Module):
    """A detector from its map of features to its raw predictions."""

    def __init__(self, model):
        super().__init__()
        self.backbone, self.head = model.backbone_2d, model.dense_head

    def forward(self, spatial_features):
        features = self.backbone({"spatial_features": spatial_features})["spatial_features_2d"]
        branches = self.head.heads_list if hasattr(self.head, "heads_list") else self.head.rpn_heads
        shared = self.head.shared_conv(features)
        return [branch(shared) for branch in branches]


def built(name):
    """(the model, of which nothing is computed; its data set's facts; whether it has a sparse backbone)."""
    cfg = cfg_from_yaml_file(FOLDER / f"{name}.yaml", EasyDict())
    data, sparse = cfg.DATA_CONFIG, "BACKBONE_3D" in cfg.MODEL
    if sparse:
        pytest.importorskip("spconv")
    voxel_size = data.DATA_PROCESSOR[-1].VOXEL_SIZE
    facts = dataset_facts(data.POINT_CLOUD_RANGE, voxel_size, cfg.CLASS_NAMES, features=5)
    with torch.device("meta"):
        return build_network(cfg.MODEL, len(cfg.CLASS_NAMES), facts).to("meta").eval(), facts, sparse


@pytest.mark.parametrize("name", SIZES)
def test_a_model_has_the_size_that_the_guide_tells(name):
    parameters, macs = SIZES[name]
    model, facts, sparse = built(name)
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}" == parameters
    ny, nx = (int(n) // (SPARSE_STRIDE if sparse else 1) for n in facts.grid_size[[1, 0]])
    empty = torch.empty(1, model.map_to_bev_module.num_bev_features, ny, nx, device="meta")
    assert f"{count_macs(MapPart(model), empty).dense / 1e9:.2f}" == macs


@pytest.mark.parametrize(
    ("ratio", "pillars", "stages"), [("2x", 45, [45, 91, 182]), ("4x", 32, [32, 64, 128])], ids=["2x", "4x"]
)
def test_pointpillars_students_have_the_papers_widths_up_to_the_neck(ratio, pillars, stages):
    """Those of the released configurations of nuScenes."""
    for recipe in ("", "_logits", "_paper", "_official"):
        model_cfg = cfg_from_yaml_file(FOLDER / f"kd/cbgs_pp_multihead_{ratio}{recipe}.yaml", EasyDict()).MODEL
        scaled = scale_model_cfg(model_cfg, model_cfg.WIDTH)
        assert scaled.VFE.NUM_FILTERS == [pillars] and scaled.BACKBONE_2D.NUM_FILTERS == stages
