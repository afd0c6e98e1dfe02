"""What modules and data must fit: ranges, strides, channels, anchors; and users' own modules."""

from __future__ import annotations

import os

import pytest
from easydict import EasyDict
from support.configs import CFGS, load, node_at, paths_with, problems_of

from pcdet import registry as R
from pcdet.config import (
    cfg_from_list,
)
from pcdet.config.check import RULES, find_problems
from pcdet.registry import ConfigError


@pytest.mark.parametrize(
    ("changes", "path", "said"),
    [
        (
            {"DATA_CONFIG.POINT_CLOUD_RANGE": [0, -39.68, -3, 69.0, 39.68, 1]},
            "DATA_CONFIG.POINT_CLOUD_RANGE",
            "69 m along x are 431.25 voxels of 0.16 m (DATA_CONFIG.DATA_PROCESSOR[2].VOXEL_SIZE), not a whole number; "
            "68.96 or 69.12 m would fit",
        ),
        (
            {"DATA_CONFIG.POINT_CLOUD_RANGE": [0, -40, -3, 70.4, 40, 1]},
            "DATA_CONFIG.POINT_CLOUD_RANGE",
            "the grid has 500 voxels along y, which the strides of the backbones (8 in all) do not divide; "
            "496 (79.36 m) or 504 (80.64 m) would fit",
        ),
        ({"DATA_CONFIG.POINT_CLOUD_RANGE": [0, 1, 2]}, "DATA_CONFIG.POINT_CLOUD_RANGE", "[0.0, 1.0, 2.0]"),
        ({"DATA_CONFIG.POINT_CLOUD_RANGE": [9, -1, -3, 0, 1, 1]}, "DATA_CONFIG.POINT_CLOUD_RANGE", "[9"),
        (
            {"DATA_CONFIG.DATA_PROCESSOR[2].VOXEL_SIZE": [0.16, 0.16, 0.5]},
            "DATA_CONFIG.DATA_PROCESSOR[2].VOXEL_SIZE",
            "PointPillarScatter needs one voxel over the whole height of 4 m, got 8 of 0.5 m",
        ),
        (
            {"DATA_CONFIG.DATA_PROCESSOR[2].VOXEL_SIZE": [0.16, 0, 4]},
            "DATA_CONFIG.DATA_PROCESSOR[2].VOXEL_SIZE",
            "[0.16, 0, 4]",
        ),
        (
            {"MODEL.BACKBONE_2D.UPSAMPLE_STRIDES": [1, 2, 2]},
            "MODEL.BACKBONE_2D.UPSAMPLE_STRIDES",
            "the stages must meet at one stride, but LAYER_STRIDES [2, 2, 2] and [1, 2, 2] end at 2, 2, 4",
        ),
        (
            {"MODEL.BACKBONE_2D.UPSAMPLE_STRIDES": [1, 2, 4.5]},
            "MODEL.BACKBONE_2D.UPSAMPLE_STRIDES[2]",
            "must be a whole number or one over a whole number, got 4.5",
        ),
        (
            {"MODEL.BACKBONE_2D.UPSAMPLE_STRIDES": [1]},
            "MODEL.BACKBONE_2D.UPSAMPLE_STRIDES",
            "an item for each of the 3 stages is needed, got [1]",
        ),
        (
            {"MODEL.BACKBONE_2D.NUM_UPSAMPLE_FILTERS": [128]},
            "MODEL.BACKBONE_2D.NUM_UPSAMPLE_FILTERS",
            "has 1 items, UPSAMPLE_STRIDES has 3",
        ),
        (
            {"MODEL.BACKBONE_2D.NUM_FILTERS": [64, 128]},
            "MODEL.BACKBONE_2D",
            "an item for each stage is needed in LAYER_NUMS (3), LAYER_STRIDES (3), NUM_FILTERS (2)",
        ),
        (
            {"MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[1].feature_map_stride": 4},
            "MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[1].feature_map_stride",
            "the map that the head reads has stride 2 (from MODEL.BACKBONE_2D), got 4",
        ),
        (
            {
                "MODEL.BACKBONE_2D.UPSAMPLE_STRIDES": [1, 2, 4, 2],
                "MODEL.BACKBONE_2D.NUM_UPSAMPLE_FILTERS": [1, 1, 1, 1],
            },
            "MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[0].feature_map_stride",
            "has stride 1",
        ),
        (
            {"MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[1].class_name": "Pedestrain"},
            "MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[1].class_name",
            "'Pedestrain' is not among CLASS_NAMES; did you mean Pedestrian?",
        ),
        (
            {"CLASS_NAMES": ["Car", "Pedestrian", "Cyclist", "Van"]},
            "MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG",
            "'Van' of CLASS_NAMES has no anchors",
        ),
        (
            {"MODEL.MAP_TO_BEV.NUM_BEV_FEATURES": 32},
            "MODEL.MAP_TO_BEV.NUM_BEV_FEATURES",
            "must equal the last of MODEL.VFE.NUM_FILTERS, 64, got 32",
        ),
        (
            {"DATA_CONFIG.DATA_PROCESSOR[2].NAME": "calculate_grid_size"},
            "DATA_CONFIG.DATA_PROCESSOR",
            "PillarVFE reads voxels; add transform_points_to_voxels to",
        ),
        (
            {"DATA_CONFIG.POINT_FEATURE_ENCODING.used_feature_list": ["y", "x", "z"]},
            "DATA_CONFIG.POINT_FEATURE_ENCODING",
            "x",
        ),
    ],
)
def test_an_impossible_geometry_is_told(pillars, changes, path, said):
    for where, value in changes.items():
        node, key = node_at(pillars, where)
        node[key] = value
    told = paths_with(problems_of(pillars), path)
    assert told and any(said in t for t in told), told


def test_everything_wrong_is_told_at_once(pillars):
    pillars.MODEL.BACKBONE_2D.NUM_FILTER = pillars.MODEL.BACKBONE_2D.pop("NUM_FILTERS")
    pillars.DATA_CONFIG.pop("INFO_PATH")
    pillars.OPTIMIZATION.LR = -1
    pillars.OPTIMIZATION.LRR = 1
    pillars.MODEL.POST_PROCESSING.NMS_CONFIG.NMS_TRESH = 0.1
    pillars.DATA_CONFIG.POINT_CLOUD_RANGE = [0, -39.68, -3, 69.0, 39.68, 1]
    pillars.MODEL.pop("DENSE_HEAD")
    paths = [p.split(": ")[0] for p in problems_of(pillars)]
    for path in (
        "MODEL.BACKBONE_2D.NUM_FILTER",
        "DATA_CONFIG.INFO_PATH",
        "OPTIMIZATION.LR",
        "OPTIMIZATION.LRR",
        "MODEL.POST_PROCESSING.NMS_CONFIG.NMS_TRESH",
        "DATA_CONFIG.POINT_CLOUD_RANGE",
        "MODEL.DENSE_HEAD",
    ):
        assert path in paths, (path, paths)


def test_a_model_without_a_name_is_told(pillars):
    pillars.MODEL.pop("NAME")
    assert any(p.startswith("MODEL.NAME: missing") for p in problems_of(pillars))


class OpenPCDetStyleBackbone:
    """What a user brings along: takes its node as it is."""

    def __init__(self, model_cfg, input_channels):
        self.model_cfg = model_cfg


class UsersDetector:
    def __init__(self, model_cfg, num_class, dataset):
        self.model_cfg = model_cfg


@pytest.fixture
def users_classes(monkeypatch):
    """Classes of a user's, registered for one test."""
    R.BACKBONES_2D.names(), R.BACKBONES_3D.names(), R.DETECTORS.names()
    monkeypatch.setattr(R.BACKBONES_2D, "_classes", {**R.BACKBONES_2D._classes, "MyBackbone": OpenPCDetStyleBackbone})
    monkeypatch.setattr(R.DETECTORS, "_classes", {**R.DETECTORS._classes, "MyDetector": UsersDetector})
    features = {**R.BACKBONES_3D._classes, "MyPointFeatures": OpenPCDetStyleBackbone}
    monkeypatch.setattr(R.BACKBONES_3D, "_classes", features)


def test_users_own_modules_are_left_alone(pillars, users_classes):
    pillars.MODEL.BACKBONE_2D = EasyDict(NAME="MyBackbone", ANYTHING={"x": [1]}, LAYER_STRIDES="none of ours")
    (told,) = find_problems(pillars)
    assert told.startswith("MODEL.WIDTH: cannot scale MODEL.BACKBONE_2D, since MyBackbone is not described: ")
    pillars.MODEL.pop("WIDTH")
    assert find_problems(pillars) == []
    pillars.MODEL.NAME = "MyDetector"
    pillars.MODEL.MY_PART = EasyDict(y=1)
    assert find_problems(pillars) == []


def test_set_wants_existing_keys_in_users_own_modules(pillars, users_classes):
    pillars.MODEL.pop("WIDTH")
    pillars.MODEL.BACKBONE_2D = EasyDict(NAME="MyBackbone", DEPTH=3)
    cfg_from_list(["MODEL.BACKBONE_2D.DEPTH", "4"], pillars)
    assert pillars.MODEL.BACKBONE_2D.DEPTH == 4
    with pytest.raises(ConfigError, match=r"MODEL.BACKBONE_2D.DEPHT: --set found no such key; did you mean DEPTH\?"):
        cfg_from_list(["MODEL.BACKBONE_2D.DEPHT", "4"], pillars)


def second_like(pillars: EasyDict) -> EasyDict:
    """The geometry of SECOND's file laid over PointPillars', for the rules alone."""
    pillars.DATA_CONFIG.POINT_CLOUD_RANGE = [0, -40, -3, 70.4, 40, 1]
    pillars.DATA_CONFIG.DATA_PROCESSOR[2].VOXEL_SIZE = [0.05, 0.05, 0.1]
    pillars.MODEL.pop("WIDTH")
    pillars.MODEL.VFE = EasyDict(NAME="MeanVFE")
    pillars.MODEL.BACKBONE_3D = EasyDict(NAME="VoxelBackBone8x")
    pillars.MODEL.MAP_TO_BEV = EasyDict(NAME="HeightCompression", NUM_BEV_FEATURES=256)
    pillars.MODEL.BACKBONE_2D.update(
        LAYER_NUMS=[5, 5],
        LAYER_STRIDES=[1, 2],
        NUM_FILTERS=[128, 256],
        UPSAMPLE_STRIDES=[1, 2],
        NUM_UPSAMPLE_FILTERS=[256, 256],
    )
    for anchor in pillars.MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG:
        anchor.feature_map_stride = 8
    return pillars


def geometry_problems(config) -> list[str]:
    """What the modules and the data set have against where they stand; without the check of every key."""
    return [problem for rule in RULES for problem in rule(config)]


def test_the_rules_know_seconds_geometry(pillars):
    config = second_like(pillars)
    assert geometry_problems(config) == []
    config.MODEL.MAP_TO_BEV.NUM_BEV_FEATURES = 128
    config.MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[0].feature_map_stride = 4
    config.DATA_CONFIG.POINT_CLOUD_RANGE[3] = 70.2
    told = geometry_problems(config)
    assert any("128 channels in 2 layers of height make 256, got 128" in t for t in told)
    assert any("has stride 8 (from MODEL.BACKBONE_2D), got 4" in t for t in told)
    assert any("has 1404 voxels along x" in t and "16 in all" in t for t in told)


@pytest.mark.parametrize(
    ("backbone", "width", "channels", "said"),
    [
        ({}, 0.5, 256, None),
        ({"OUT_CHANNELS": 32}, None, 64, None),
        ({"OUT_CHANNELS": 32, "NUM_FILTERS": [4, 4, 8, 8]}, 0.5, 64, None),
        ({"WIDTH": 0.25}, None, 64, None),
        ({"WIDTH": 0.5}, 0.5, 128, None),
        ({"last_pad": 1}, None, 384, None),  # 5 layers and one at either end, 3 apart: (5 + 2 - 3) // 2 + 1 = 3
        ({"last_pad": [1, 0, 0]}, None, 384, None),
        ({}, 0.5, 128, "128 channels in 2 layers of height make 256, got 128"),
        ({"OUT_CHANNELS": 32}, None, 256, "32 channels in 2 layers of height make 64, got 256"),
        ({"WIDTH": 0.5}, None, 256, "64 channels in 2 layers of height make 128, got 256"),
        ({"NUM_FILTERS": [4, 4, 8, 8]}, None, 64, "128 channels in 2 layers of height make 256, got 64"),
        # 0.357 * 128 is cut to 45, and the map has twice that
        ({}, 0.357, 256, None),
        ({}, 0.357, 253, None),  # as files had it to be cut to 90
        ({}, 0.357, 128, "128 channels in 2 layers of height make 256, got 128"),
    ],
)
def test_a_students_map_has_the_channels_that_its_volume_fills(pillars, backbone, width, channels, said):
    config = second_like(pillars)
    config.MODEL.BACKBONE_3D.update(backbone)
    config.MODEL.MAP_TO_BEV.NUM_BEV_FEATURES = channels
    if width is not None:
        config.MODEL.WIDTH = width
    told = geometry_problems(config)
    assert [t.partition("backbone's ")[2] for t in told] == ([] if said is None else [said])


def test_a_point_network_without_equally_many_points_is_told():
    config = load(CFGS / "kitti_models/pointrcnn.yaml")
    steps = config.DATA_CONFIG.DATA_PROCESSOR
    config.DATA_CONFIG.DATA_PROCESSOR = [step for step in steps if step.NAME != "sample_points"]
    (told,) = problems_of(config)
    assert told.startswith("DATA_CONFIG.DATA_PROCESSOR: PointNet2MSG reads equally many points of every frame; add")


def test_features_before_a_fusion_that_nothing_makes_are_told(users_classes):
    config = load(CFGS / "kitti_models/pointrcnn.yaml")
    config.MODEL.POINT_HEAD.USE_POINT_FEATURES_BEFORE_FUSION = True
    (told,) = problems_of(config)
    assert told.startswith("MODEL.POINT_HEAD.USE_POINT_FEATURES_BEFORE_FUSION: nothing makes such features here")
    config.MODEL.PFE = EasyDict(NAME="MyPointFeatures")  # which may
    assert find_problems(config) == []


def test_the_rules_know_multi_heads(pillars):
    head = pillars.MODEL.DENSE_HEAD
    head.NAME = "AnchorHeadMulti"
    branches = [{"HEAD_CLS_NAME": ["Car"]}, {"HEAD_CLS_NAME": ["Pedestrian", "Cyclist"]}]
    for head.RPN_HEAD_CFGS in (branches, branches[::-1], [{"HEAD_CLS_NAME": ["Cyclist", "Car", "Pedestrian"]}]):
        assert geometry_problems(pillars) == []
    own = {"HEAD_CLS_NAME": ["Pedestrian"], "LAYER_STRIDES": [2]}
    head.ANCHOR_GENERATOR_CONFIG[1].feature_map_stride = 4  # its head brings a stride of its own
    head.RPN_HEAD_CFGS = [{"HEAD_CLS_NAME": ["Cyclist", "Car"]}, own]
    assert geometry_problems(pillars) == []
    head.RPN_HEAD_CFGS = [{"HEAD_CLS_NAME": ["Car"]}, own]
    (told,) = geometry_problems(pillars)
    assert "must stand in one HEAD_CLS_NAME, in any order, got ['Car', 'Pedestrian']" in told
    head.RPN_HEAD_CFGS = [{"HEAD_CLS_NAME": ["Cyclist", "Car", "Car"]}, own]
    (told,) = geometry_problems(pillars)
    assert "got ['Cyclist', 'Car', 'Car', 'Pedestrian']" in told


def test_downsampling_by_a_fraction_meets_too(pillars):
    # OpenPCDet's cbgs_pp_multihead.yaml: strides 2, 4, 8 meet at 4
    pillars.MODEL.BACKBONE_2D.UPSAMPLE_STRIDES = [0.5, 1, 2]
    for anchor in pillars.MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG:
        anchor.feature_map_stride = 4
    assert find_problems(pillars) == []


def test_loading_needs_no_file_of_the_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load(CFGS / "kitti_models/pointpillar.yaml")
    assert os.listdir(tmp_path) == []
