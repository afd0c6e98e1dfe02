"""``--set``: values take the type of what they replace, and slips are told all at once."""

from __future__ import annotations

import copy

import pytest
from easydict import EasyDict
from support.configs import node_at

from pcdet.config import (
    cfg_from_list,
)
from pcdet.registry import BACKBONES_2D, ConfigError


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("OPTIMIZATION.LR", "1", 1.0),
        ("OPTIMIZATION.LR", "1e-3", 1e-3),
        ("OPTIMIZATION.NUM_EPOCHS", "5", 5),
        ("OPTIMIZATION.NUM_EPOCHS", "5.0", 5),
        ("OPTIMIZATION.GRAD_NORM_CLIP", "7.5", 7.5),
        ("OPTIMIZATION.LR_WARMUP", "true", True),
        ("OPTIMIZATION.LR_WARMUP", "True", True),
        ("OPTIMIZATION.USE_AMP", "True", True),  # not in the file
        ("DATA_CONFIG.SKIP_BAD_FRAMES", "true", True),  # nor this; as YAML writes it
        ("OPTIMIZATION.DECAY_STEP_LIST", "10,20", [10, 20]),
        ("OPTIMIZATION.DECAY_STEP_LIST", "[10,20]", [10, 20]),
        ("OPTIMIZATION.DECAY_STEP_LIST", "(10,20)", [10, 20]),
        ("OPTIMIZATION.DECAY_STEP_LIST", "10", [10]),
        ("DATA_CONFIG.DATA_PATH", "../data/123", "../data/123"),
        ("DATA_CONFIG.DATA_PATH", "123", "123"),
        ("DATA_CONFIG.DATA_PATH", "'../x'", "../x"),
        ("DATA_CONFIG.DATA_SPLIT.train", "trainval", "trainval"),
        ("DATA_CONFIG.DATA_SPLIT", "train:a,test:b", {"train": "a", "test": "b"}),
        ("DATA_CONFIG.DATA_SPLIT", "{train: c}", {"train": "c", "test": "val"}),
        ("DATA_CONFIG.DATA_PROCESSOR[2].VOXEL_SIZE", "0.32,0.32,4", [0.32, 0.32, 4.0]),
        ("DATA_CONFIG.DATA_PROCESSOR.2.VOXEL_SIZE", "[0.32,0.32,4]", [0.32, 0.32, 4.0]),
        ("DATA_CONFIG.DATA_PROCESSOR[-1].MAX_POINTS_PER_VOXEL", "16", 16),
        ("DATA_CONFIG.DATA_PROCESSOR.transform_points_to_voxels.MAX_NUMBER_OF_VOXELS.train", "8000", 8000),
        ("DATA_CONFIG.DATA_PROCESSOR[2].MAX_NUMBER_OF_VOXELS", "train:1,test:2", {"train": 1, "test": 2}),
        ("DATA_CONFIG.DATA_PROCESSOR[2].VOXEL_SIZE[2]", "4", 4),
        ("DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST.gt_sampling.SAMPLE_GROUPS", "Car:3,Cyclist:4", None),
        ("DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST.gt_sampling.SAMPLE_GROUPS", "[Car:3,Cyclist:4]", None),
        ("DATA_CONFIG.DATA_AUGMENTOR.DISABLE_AUG_LIST", "gt_sampling", ["gt_sampling"]),
        ("MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG.Car.matched_threshold", "0.55", 0.55),
        ("MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[0].anchor_sizes", "[[4, 2, 1.5]]", [[4.0, 2.0, 1.5]]),
        ("MODEL.WIDTH", "1", 1.0),
        ("KD.LOSSES[1].CLS_WEIGHT", "5", 5.0),
        ("KD.LOSSES.PivotalLogit.REG_WEIGHT", "1", 1.0),
        ("KD.TEACHER.CKPT", "a/b.pth", "a/b.pth"),
        ("KD.TEACHER.MODE", "None", None),
    ],
)
def test_set_takes_the_type_of_the_old_value(pillars, key, text, value):
    value = ["Car:3", "Cyclist:4"] if key.endswith("SAMPLE_GROUPS") else value
    before = copy.deepcopy(pillars)
    assert cfg_from_list([key, text], pillars) is pillars
    path = key
    for name, index in (
        ("transform_points_to_voxels", "2"),
        ("gt_sampling", "0"),
        ("Car", "0"),
        ("PivotalLogit", "1"),
    ):
        path = path.replace(f".{name}.", f"[{index}].")
    path = path.replace("[-1]", "[2]")
    node, last = node_at(pillars, path)
    assert node[last] == value
    if isinstance(value, float):
        assert isinstance(node[last], float)
    node, last = node_at(before, path)  # nothing else has changed
    node[last] = value
    assert before == pillars


def test_set_takes_values_that_are_no_text(pillars):
    cfg_from_list(["OPTIMIZATION.LR", 1, "OPTIMIZATION.DECAY_STEP_LIST", [3, 4]], pillars)
    assert pillars.OPTIMIZATION.LR == 1.0 and pillars.OPTIMIZATION.DECAY_STEP_LIST == [3, 4]


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["OPTIMIZATION.LRR", "1"], "OPTIMIZATION.LRR: "),
        (["OPTIMIZATIN.LR", "1"], "OPTIMIZATIN: "),
        (["OPTIMIZATIN.LR", "1"], "did you mean OPTIMIZATION?"),
        (["A.LR", "1"], "A: --set found no such key; known: "),
        (["OPTIMIZATION.LR.x", "1"], "OPTIMIZATION.LR: has no key 'x', it is 0.003"),
        (["OPTIMIZATION.LR.x.y", "1"], "OPTIMIZATION.LR.x: --set found no such key; OPTIMIZATION.LR is 0.003"),
        (["OPTIMIZATION.LR", "fast"], "OPTIMIZATION.LR: expected a number like 0.003, got 'fast'"),
        (["OPTIMIZATION.NUM_EPOCHS", "inf"], "OPTIMIZATION.NUM_EPOCHS: "),
        (["OPTIMIZATION.NUM_EPOCHS", "2.5"], "OPTIMIZATION.NUM_EPOCHS: expected int, got 2.5 (float)"),
        (["OPTIMIZATION.LR_WARMUP", "3"], "OPTIMIZATION.LR_WARMUP: expected True or False, got '3'"),
        (["DATA_CONFIG.DATA_PROCESSOR[3].NAME", "x"], "DATA_CONFIG.DATA_PROCESSOR[3]: --set found no such item"),
        (["DATA_CONFIG.DATA_PROCESSOR.shuffle_point.A", "x"], "did you mean shuffle_points?"),
        (["DATA_CONFIG.DATA_SPLIT", "trian:x"], "DATA_CONFIG.DATA_SPLIT.trian: --set found no such key; did you mean"),
        (["DATA_CONFIG.DATA_SPLIT", "x"], "DATA_CONFIG.DATA_SPLIT: expected entries like {a: 1, b: 2} or a:1,b:2"),
        (["DATA_CONFIG.DATA_PROCESSOR[2].VOXEL_SIZE", "a,b,c"], "VOXEL_SIZE[0]: expected a number like 0.16, got 'a'"),
        (["MODEL.BACKBONE_2D.NUM_FILTER", "64"], "MODEL.BACKBONE_2D.NUM_FILTER: "),
        (["OPTIMIZATION.LR"], "--set takes pairs of key and value, got 1 items"),
    ],
)
def test_set_names_what_is_wrong(pillars, pairs, said):
    with pytest.raises(ConfigError) as caught:
        cfg_from_list(pairs, pillars)
    assert said in str(caught.value)


def test_set_reports_all_its_problems_and_those_of_the_result_at_once(pillars):
    with pytest.raises(ConfigError) as caught:
        cfg_from_list(["A.B", "1", "OPTIMIZATION.LR", "x", "MODEL.BACKBONE_2D.LAYER_STRIDES", "1,2,2"], pillars)
    paths = [p.split(":")[0] for p in caught.value.problems]
    assert paths[:2] == ["A", "OPTIMIZATION.LR"] and "MODEL.BACKBONE_2D.UPSAMPLE_STRIDES" not in paths
    assert "MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[0].feature_map_stride" in paths


def test_set_on_an_unchecked_configuration_wants_existing_keys():
    config = EasyDict({"A": {"B": 1}, "L": [{"NAME": "x"}, {"NAME": "x"}]})
    cfg_from_list(["A.B", "2"], config)
    assert config.A.B == 2
    for key in ("A.C", "L.x.y", "L[0].q"):
        with pytest.raises(ConfigError):
            cfg_from_list([key, "2"], config)


def test_a_key_of_a_group_that_the_file_leaves_out_may_be_set(pillars):
    loss = pillars.KD.LOSSES[0]
    loss.pop("SAMPLE", None)
    cfg_from_list(["KD.LOSSES[0].SAMPLE.NUM", "500", "KD.LOSSES[0].SAMPLE.BY", "channel_l2"], pillars)
    assert loss.SAMPLE == {"NUM": 500, "BY": "channel_l2"}
    for key, said in (
        ("KD.LOSSES[0].SAMPEL.NUM", r"KD.LOSSES\[0\].SAMPEL: --set found no such key; did you mean SAMPLE\?"),
        ("KD.LOSSES[0].GRAPH.KK", r"KD.LOSSES\[0\].GRAPH.KK: GraphConfig has no such key"),
        ("MODELL.VFE.NAME", r"MODELL: --set found no such key; did you mean MODEL\?"),
    ):
        with pytest.raises(ConfigError, match=said):
            cfg_from_list([key, "5"], pillars)


def test_a_new_key_in_a_nested_node_hides_nothing_that_is_wrong_with_the_result(pillars):
    for anchors in pillars.MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG:
        anchors.pop("align_center")
    anchors = "MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[0]"
    with pytest.raises(ConfigError) as caught:
        cfg_from_list([f"{anchors}.align_center", "True", f"{anchors}.feature_map_stride", "4"], pillars)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [f"{anchors}.feature_map_stride"]


def test_a_width_that_was_not_there_is_checked_at_the_widths_that_it_makes(pillars, monkeypatch):
    BACKBONES_2D.names()
    monkeypatch.setattr(BACKBONES_2D, "_classes", dict(BACKBONES_2D._classes))

    @BACKBONES_2D.register
    class SaysNothing:
        def __init__(self, *, input_channels: int):
            pass

    pillars.MODEL.pop("WIDTH", None)
    pillars.MODEL.BACKBONE_2D = EasyDict(NAME="SaysNothing")
    with pytest.raises(ConfigError, match=r"MODEL\.WIDTH: cannot scale MODEL\.BACKBONE_2D, since SaysNothing"):
        cfg_from_list(["MODEL.WIDTH", "0.5"], pillars)


def test_a_new_key_may_stand_in_a_node_that_a_later_pair_changes_as_a_whole(pillars):
    pillars.MODEL.VFE.pop("WITH_DISTANCE")
    cfg_from_list(["MODEL.VFE.WITH_DISTANCE", "True", "MODEL.VFE", "USE_NORM:False"], pillars)
    assert pillars.MODEL.VFE.WITH_DISTANCE is True and pillars.MODEL.VFE.USE_NORM is False
