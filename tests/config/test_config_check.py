"""The check of a configuration: every slip is told at its path, all at once."""

from __future__ import annotations

import copy

import pytest
from easydict import EasyDict
from support.configs import node_at, paths_with, problems_of

from pcdet.config.check import find_problems

FREE_KEYS = (".train", ".test", ".encoding_type")


def places(node, path="", key=None):
    """(path, is a leaf) of everything in a configuration that a schema knows by name."""
    if isinstance(node, dict):
        for name, child in node.items():
            if name not in ("NAME", "_BASE_CONFIG_"):
                yield from places(child, f"{path}.{name}" if path else name, name)
    elif isinstance(node, list) and node and isinstance(node[0], dict):
        for i, child in enumerate(node):
            yield from places(child, f"{path}[{i}]", key)
    if key is not None:
        yield path, not isinstance(node, dict)


def test_a_misspelt_key_is_found_wherever_it_is(loaded):
    for path, _ in places(loaded):
        config = copy.deepcopy(loaded)
        node, key = node_at(config, path)
        if isinstance(key, int):
            continue
        node[f"{key}_"] = node.pop(key)
        problems = find_problems(config)
        if path.endswith(FREE_KEYS):  # entries of a mapping: it tells which ones it needs
            assert paths_with(problems, path.rpartition(".")[0]), f"{path}_ was not noticed"
        else:
            told = paths_with(problems, f"{path}_")
            assert told and key in told[0], f"{path}_ was not noticed: {problems}"


def test_a_value_of_the_wrong_type_is_found_wherever_it_is(loaded):
    for path, _ in places(loaded):
        config = copy.deepcopy(loaded)
        node, key = node_at(config, path)
        node[key] = 3.25 if isinstance(node[key], (str, dict)) else EasyDict(no="type")
        assert paths_with(find_problems(config), path.split("[")[0]), f"{path}: {node[key]} was not noticed"


@pytest.mark.parametrize("junk", [None, -1, "", [], {}, [[1]], {"NAME": 3}, float("nan"), float("inf"), [0, 0, 0]])
def test_no_value_whatever_breaks_the_check(loaded, junk):
    for path, _ in list(places(loaded))[::4]:
        config = copy.deepcopy(loaded)
        node, key = node_at(config, path)
        node[key] = EasyDict(junk) if isinstance(junk, dict) else junk
        assert all(isinstance(problem, str) for problem in find_problems(config))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("MODEL.BACKBONE_2D.NUM_FILTER", [1], "BaseBEVBackbone has no such key; did you mean NUM_FILTERS?"),
        ("MODEL.BACKBONE_3DD", {"NAME": "x"}, "PointPillar has no such part; did you mean BACKBONE_3D?"),
        ("MODEL.NAME", "PointPilar", "unknown detector 'PointPilar'; did you mean PointPillar?"),
        ("MODEL.VFE.NAME", "PilarVFE", "unknown VFE 'PilarVFE'; did you mean PillarVFE?"),
        ("MODEL.WIDTH", 0, "must be a factor above 0 (0.5 halves every layer), got 0"),
        ("MODEL.BN_MOMENTUM", 0, "must be above 0 and at most 1 (a new batch's share), got 0"),
        ("MODEL.WIDTH", True, "must be a factor above 0 (0.5 halves every layer), got True"),
        ("CLASS_NAME", ["Car"], "there is no such section; did you mean CLASS_NAMES?"),
        ("CLASS_NAMES", "Car", "expected a list of class names, got 'Car'"),
        ("CLASS_NAMES", ["Car", "Car"], "every class may stand there once, got ['Car', 'Car']"),
        ("DATA_CONFIG", 3, "expected a mapping, got 3"),
        ("OPTIMIZATION.WEIGHT_DECAY", float("nan"), "must be finite, got nan"),
        ("MODEL.BACKBONE_2D.LAYER_STRIDES[1]", 0, "must be at least 1, got 0"),
        ("MODEL.BACKBONE_2D.LAYER_NUMS[1]", -1, "must not be negative, got -1"),
        ("MODEL.BACKBONE_2D.UPSAMPLE_STRIDES[2]", 0, "must be above 0, got 0"),
        ("MODEL.VFE.NUM_FILTERS", [], "must name the channels of at least one layer, got []"),
        ("DATA_CONFIG.DATA_PROCESSOR[2].MAX_NUMBER_OF_VOXELS.train", 0, "must be at least 1, got 0"),
        ("DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST[3].WORLD_SCALE_RANGE", [1.05, 0.95], "[low, high] with low <="),
        ("DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST[1].ALONG_AXIS_LIST", ["w"], "'w' is none of x, y, z"),
        ("MODEL.POST_PROCESSING.NMS_CONFIG", None, "missing; an anchor head's boxes overlap"),
        ("MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG", [], "'Car' of CLASS_NAMES has no anchors"),
        ("KD.LOSSES[0].SAMPLE.NAME", "x", "SampleConfig has no such key"),
        ("KD.TEACHER.CFG", "cfgs/none.yaml", "configuration file 'cfgs/none.yaml' not found; looked for"),
        ("DATA_CONFIG.DATASET", "KitiDataset", "unknown dataset 'KitiDataset'; did you mean KittiDataset?"),
        ("OPTIMIZATION.OPTIMIZER", "adam_oncycle", "unknown optimizer 'adam_oncycle'; did you mean adam_onecycle?"),
        ("OPTIMIZATION.LR_CLIP", "1e-7", "YAML reads this as text, write 1.0e-07"),
        ("HOOK", {"DisableAugmentationHok": None}, "HookConfig has no such key; did you mean"),
        ("KD.LOSSES[0].SAMPLE.NUMBER", 3, "SampleConfig has no such key; did you mean NUM?"),
        ("DATA_CONFIG.POINT_FEATURE_ENCODING.used_feature_list[3]", "intensty", "'intensty'"),
        (
            "DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST[0].SAMPLE_GROUPS[1]",
            "Pedestrian=3",
            "expected 'Class:number', got 'Pedestrian=3'",
        ),
        (
            "DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST[0].PREPARE.filter_by_points",
            ["Car:5"],
            "there is no such filter; did you mean filter_by_min_points?",
        ),
        (
            "DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST[0].NUM_POINT_FEATURES",
            3,
            "the points have 4 features, got 3",
        ),
        (
            "MODEL.DENSE_HEAD.TARGET_ASSIGNER_CONFIG.BOX_CODER",
            "ResidualCode",
            "unknown box coder 'ResidualCode'; did you mean ResidualCoder?",
        ),
        (
            "MODEL.DENSE_HEAD.TARGET_ASSIGNER_CONFIG.BOX_CODER",
            "PointResidualCoder",  # there is one, but not for anchors
            "unknown box coder 'PointResidualCoder'; did you mean ResidualCoder?",
        ),
        (
            "MODEL.DENSE_HEAD.LOSS_CONFIG.LOSS_WEIGHTS.code_weights",
            [1.0] * 8,
            "ResidualCoder makes 7 codes, got 8 weights",
        ),
    ],
)
def test_a_slip_is_told_at_its_path(pillars, path, value, said):
    node, key = node_at(pillars, path)
    node[key] = value
    told = paths_with(problems_of(pillars), path)
    assert told and said in told[0], told
