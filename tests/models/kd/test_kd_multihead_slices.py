"""Slices of a multi-head whose branches have stages of their own, each joining its own maps."""

import pytest
from kd_pairs import FACTS, pp
from support.detectors import network
from test_kd_init import check

from pcdet.models.kd.init.weight_slicing import concatenated_inputs

SEPARATE = {"NUM_MIDDLE_CONV": 1, "NUM_MIDDLE_FILTER": 8, "REG_LIST": ["reg:2", "height:1", "size:3", "angle:1"]}
BRANCHES = [
    {  # two maps side by side; the first stage reads as many channels as the head does without a shared convolution
        "HEAD_CLS_NAME": ["Car"],
        "LAYER_NUMS": [1, 1],
        "LAYER_STRIDES": [1, 2],
        "NUM_FILTERS": [24, 16],
        "UPSAMPLE_STRIDES": [1, 2],
        "NUM_UPSAMPLE_FILTERS": [12, 8],
    },
    {  # the same, brought together once more
        "HEAD_CLS_NAME": ["Pedestrian"],
        "LAYER_NUMS": [0, 0],
        "LAYER_STRIDES": [1, 1],
        "NUM_FILTERS": [8, 8],
        "UPSAMPLE_STRIDES": [1, 1, 1],
        "NUM_UPSAMPLE_FILTERS": [4, 8, 12],
    },
    {"HEAD_CLS_NAME": ["Cyclist"]},
]


def multi_head(seed, width, shared, separate):
    """A PointPillars with such a head and seeded weights; ``width`` scales all of it."""
    cfg = pp.tiny_model_cfg(VFE={"NUM_FILTERS": [16]}, MAP_TO_BEV={"NUM_BEV_FEATURES": 16})
    cfg.WIDTH = width
    cfg.BACKBONE_2D.NUM_FILTERS = [16, 16, 32]
    cfg.DENSE_HEAD.update(NAME="AnchorHeadMulti", SEPARATE_MULTIHEAD=False, RPN_HEAD_CFGS=BRANCHES)
    cfg.DENSE_HEAD.update({"SHARED_CONV_NUM_FILTER": shared, "SEPARATE_REG_CONFIG": separate})
    return network(cfg, FACTS, seed)


@pytest.mark.parametrize("shared", [None, 20])
@pytest.mark.parametrize("separate", [None, SEPARATE], ids=["together", "separate"])
def test_a_sliced_multi_head_is_its_teacher_with_silent_channels(batch, shared, separate):
    student, teacher = (multi_head(seed, width, shared, separate) for seed, width in ((1, 0.5), (2, 1)))
    check(student, teacher, batch, ["batch_cls_preds", "batch_box_preds"])


def test_every_joint_of_a_multi_head_is_named():
    parts = concatenated_inputs(multi_head(0, 1, None, SEPARATE))
    own = {path.removeprefix("dense_head."): sizes for path, sizes in parts.items() if path.startswith("dense_head.")}
    towers = ("cls.0", "box.conv_reg.0", "box.conv_height.0", "box.conv_size.0", "box.conv_angle.0", "dir_cls")
    read = {0: [12, 8], 2: [8, 8, 8]}  # by the predicting layers; branch 1 reads one map, branch 2 has no stages
    assert own == {
        **{f"rpn_heads.{i}.conv_{name}": sizes for i, sizes in read.items() for name in towers},
        "rpn_heads.0.blocks.0.1": [8, 8, 8],
        "rpn_heads.1.blocks.0.1": [8, 8, 8],
        "rpn_heads.1.deblocks.2.0": [4, 8],
    }
    shared = concatenated_inputs(multi_head(0, 1, 20, None))
    assert shared["dense_head.shared_conv.0"] == [8, 8, 8] and "dense_head.rpn_heads.2.conv_cls" not in shared
    assert shared["dense_head.rpn_heads.0.conv_cls"] == [12, 8]
