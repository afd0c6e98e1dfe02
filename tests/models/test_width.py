"""Student widths: parameters of the paper, rounding, and what is left alone."""

import copy
from pathlib import Path

import pytest
import torch
from easydict import EasyDict
from models import pointrcnn, seconds
from models.pointpillars import KITTI_RANGE, TINY_RANGE, dataset_facts, model_cfg, random_batch
from torch import nn

from pcdet.config import cfg_from_yaml_file
from pcdet.models import build_network
from pcdet.models.feature_spec import scale_channels
from pcdet.models.width import scale_model_cfg
from pcdet.registry import ConfigError
from pcdet.utils.model_stats import count_macs

CFGS = Path(__file__).resolve().parents[2] / "tools" / "cfgs" / "kitti_models"


def shipped(name):
    """The MODEL block of a shipped file."""
    return cfg_from_yaml_file(CFGS / f"{name}.yaml", EasyDict()).MODEL


def papers_flops(model, *inputs):
    """What the paper's tables give as F, in G, by the counter of the framework that its code is built on.

    A multiply-accumulate is one; to those of convolutions and linear layers come two for every value that a batch norm
    gives, and one for every value of a ReLU and of a layer with a bias.
    """
    extra = []

    def count(module, _given, out):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            extra.append(2 * out.numel())
        elif isinstance(module, nn.ReLU) or getattr(module, "bias", None) is not None:
            extra.append(out.numel())

    leaves = [m for m in model.modules() if not list(m.children())]
    handles = [m.register_forward_hook(count) for m in leaves]
    macs = count_macs(model, *inputs).dense
    for handle in handles:
        handle.remove()
    return (macs + sum(extra)) / 1e9


class MapPart(nn.Module):
    """A detector from its map of features on."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, spatial_features):
        batch = self.model.backbone_2d({"spatial_features": spatial_features, "decode_boxes": False})
        return self.model.dense_head(batch)


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


@pytest.mark.parametrize(
    ("width", "macs", "papers"), [(1, "34.17", "34.3"), (0.5, "8.91", "9.0"), (0.25, "2.41", "2.5")]
)
def test_pointpillars_students_have_their_macs(width, macs, papers):
    """Those of the convolutions on KITTI's whole grid, and as the paper counts."""
    cfg = model_cfg()
    cfg.WIDTH = width
    model = build_network(cfg, 3, dataset_facts(KITTI_RANGE)).to("meta").eval()
    empty = torch.empty(1, model.vfe.get_output_feature_dim(), 496, 432, device="meta")
    assert f"{count_macs(MapPart(model), empty).dense / 1e9:.2f}" == macs
    assert f"{papers_flops(MapPart(model), empty):.1f}" == papers


@pytest.mark.parametrize(
    ("name", "parameters", "macs", "papers"),
    [
        ("second", "5.33", "69.64", "69.8"),
        ("kd/second_4x", "1.34", "17.73", "17.8"),
        ("kd/second_16x", "0.34", "4.60", "4.6"),
    ],
)
def test_seconds_students_have_the_papers_sizes(name, parameters, macs, papers):
    """The paper's MACs leave the sparse part out: those of the 2-D part on KITTI's whole grid, 200 x 176 cells."""
    pytest.importorskip("spconv")
    model = build_network(shipped(name), 3, dataset_facts((0, -40, -3, 70.4, 40, 1), (0.05, 0.05, 0.1)))
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}" == parameters
    model = model.to("meta").eval()
    empty = torch.empty(1, model.map_to_bev_module.num_bev_features, 200, 176, device="meta")
    assert f"{count_macs(MapPart(model), empty).dense / 1e9:.2f}" == macs
    assert f"{papers_flops(MapPart(model), empty):.1f}" == papers


@pytest.mark.parametrize(
    ("name", "sparse", "bev", "filters", "up"),
    [
        ("second", [16, 16, 32, 64, 64, 128], 256, [128, 256], [256, 256]),
        ("kd/second_4x", [8, 8, 16, 32, 32, 64], 128, [64, 128], [128, 128]),
        ("kd/second_16x", [4, 4, 8, 16, 16, 32], 64, [32, 64], [64, 64]),
    ],
)
def test_seconds_students_have_the_papers_widths(name, sparse, bev, filters, up):
    """Sparse layers: base, four stages, out."""
    pytest.importorskip("spconv")
    model = build_network(shipped(name), 3, dataset_facts((0, -3.2, -3, 6.4, 3.2, 1), (0.05, 0.05, 0.1)))
    backbone = model.backbone_3d
    ends = [backbone.conv_input, backbone.conv1, backbone.conv2, backbone.conv3, backbone.conv4, backbone.conv_out]
    assert [out_channels(end) for end in ends] == sparse
    assert model.map_to_bev_module.num_bev_features == bev
    assert [out_channels(block) for block in model.backbone_2d.blocks] == filters
    assert [out_channels(branch) for branch in model.backbone_2d.deblocks] == up


def out_channels(layers):
    return [m.out_channels for m in layers.modules() if hasattr(m, "out_channels")][-1]


# PointRCNN in the paper's released files: scales of each level, propagation (in, hidden, out) to the points last, point
# head, and of the second stage the lifting layers, set abstraction and hidden layers.
POINTRCNN = {
    "pointrcnn": (
        "4.04",
        [
            [[16, 16, 32], [32, 32, 64]],
            [[64, 64, 128], [64, 96, 128]],
            [[128, 196, 256]] * 2,
            [[256, 256, 512], [256, 384, 512]],
        ],
        [(1536, 512, 512), (768, 512, 512), (608, 256, 256), (257, 128, 128)],
        [256, 256],
        [128, 128],
        [[128, 128, 128], [128, 128, 256], [256, 256, 512]],
    ),
    "kd/pointrcnn_8x": (
        "0.52",
        [
            [[5, 5, 11], [11, 11, 22]],
            [[22, 22, 45], [22, 34, 45]],
            [[45, 70, 91]] * 2,
            [[91, 91, 182], [91, 137, 182]],
        ],
        [(546, 182, 182), (272, 182, 182), (215, 91, 91), (92, 45, 45)],
        [91, 91],
        [45, 45],
        [[45, 45, 45], [45, 45, 91], [91, 91, 182]],
    ),
    "kd/pointrcnn_16x": (
        "0.26",
        [
            [[4, 4, 8], [8, 8, 16]],
            [[16, 16, 32], [16, 24, 32]],
            [[32, 49, 64]] * 2,
            [[64, 64, 128], [64, 96, 128]],
        ],
        [(384, 128, 128), (192, 128, 128), (152, 64, 64), (65, 32, 32)],
        [64, 64],
        [32, 32],
        [[32, 32, 32], [32, 32, 64], [64, 64, 128]],
    ),
}


@pytest.mark.parametrize("name", POINTRCNN)
def test_pointrcnns_students_have_the_papers_sizes_and_widths(name):
    parameters, scales, propagation, point_head, lifted, refined = POINTRCNN[name]
    model = build_network(shipped(name), 3, pointrcnn.dataset_facts())
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}" == parameters
    assert [[widths(mlp)[1:] for mlp in m.mlps] for m in model.backbone_3d.SA_modules] == scales
    assert [tuple(widths(m.mlp)) for m in list(model.backbone_3d.FP_modules)[::-1]] == propagation
    for layers in (model.point_head.cls_layers, model.point_head.box_layers):
        assert widths(layers)[:-1] == [lifted[-1], *point_head]
    assert widths(model.roi_head.xyz_up_layer)[1:] == lifted
    assert [widths(m.mlps[0])[1:] for m in model.roi_head.SA_modules] == refined
    for layers in (model.roi_head.cls_layers, model.roi_head.reg_layers):
        assert widths(layers)[:-1] == [refined[-1][-1], *point_head]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "papers"), [("pointrcnn", "104.9"), ("kd/pointrcnn_8x", "13.7"), ("kd/pointrcnn_16x", "7.1")]
)
def test_pointrcnns_students_have_the_papers_macs(name, papers):
    """On 40,000 points and with 512 proposals, as the framework of the paper's code counts unless told otherwise."""
    cfg = shipped(name)
    cfg.ROI_HEAD.NMS_CONFIG.TEST.NMS_POST_MAXSIZE = 512
    model = build_network(cfg, 3, pointrcnn.dataset_facts()).eval()
    assert f"{papers_flops(model, pointrcnn.random_batch(frames=1, points=40_000)):.1f}" == papers


def widths(layers):
    """Channels into the first layer and out of each."""
    dense = [m for m in layers.modules() if hasattr(m, "weight") and m.weight.dim() > 1]
    return [dense[0].weight.shape[1], *(m.weight.shape[0] for m in dense)]


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


MAP, MULTI = {"NAME": "HeightCompression"}, {"NAME": "AnchorHeadMulti"}
WIDTHS = (1 / 2.8, 0.357, 1 / 1.4, 0.714, 0.5, 0.25)


def second_of(backbone, name="second"):
    """SECOND or its multi-head with one of the sparse backbones, its maps shallower."""
    cfg = seconds.model_cfg(name, width=None)
    cfg.BACKBONE_3D.NAME = backbone
    cfg.BACKBONE_2D.LAYER_NUMS = [1, 1]
    return cfg, seconds.facts(), seconds.batch()


def two_layers_of_pillars():
    facts = dataset_facts(TINY_RANGE)
    changes = {"VFE": {"NUM_FILTERS": [64, 64]}, "BACKBONE_2D": {"LAYER_NUMS": [1, 1, 1]}}
    return model_cfg(**changes), facts, random_batch(facts, points=300)


SCALED = {
    "SECOND": lambda: second_of("VoxelBackBone8x"),
    "SECOND, residual": lambda: second_of("VoxelResBackBone8x"),
    "multi-head": lambda: second_of("VoxelBackBone8x", "second_multihead"),
    "PointPillars, two layers": two_layers_of_pillars,
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("network", SCALED)
def test_a_detector_is_built_and_trained_at_every_width_of_the_paper(network, width):
    if network != "PointPillars, two layers":
        pytest.importorskip("spconv")
    cfg, facts, batch = SCALED[network]()
    cfg.WIDTH = width
    torch.manual_seed(0)
    model = build_network(cfg, 3, facts).train()
    loss = model(batch)[0]["loss"]
    loss.backward()
    assert loss.isfinite() and all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("width", "volume", "bev"), [(1 / 2.8, 45, 90), (0.357, 45, 90), (1 / 1.4, 91, 182), (0.5, 64, 128)]
)
@pytest.mark.parametrize("named", [False, True])
def test_the_map_has_twice_the_channels_of_the_volume_that_fills_it(width, volume, bev, named):
    """256 cut by itself would be 91 at 1 / 2.8."""
    backbone = {"NAME": "VoxelBackBone8x", **({"OUT_CHANNELS": 128} if named else {})}
    scaled = scale_model_cfg(EasyDict(BACKBONE_3D=backbone, MAP_TO_BEV={**MAP, "NUM_BEV_FEATURES": 256}), width)
    assert scaled.MAP_TO_BEV.NUM_BEV_FEATURES == bev
    if named:
        assert scaled.BACKBONE_3D.OUT_CHANNELS == volume


def test_pillar_layers_that_are_joined_with_their_maximum_have_even_channels():
    cfg = model_cfg(VFE={"NUM_FILTERS": [64, 2, 64]})
    scaled = scale_model_cfg(cfg, 1 / 1.4)  # 64 / 1.4 is cut to 45
    assert scaled.VFE.NUM_FILTERS == [44, 2, 45] and scaled.MAP_TO_BEV.NUM_BEV_FEATURES == 45
    with pytest.raises(ConfigError, match=r"MODEL.VFE: NUM_FILTERS must be even .* but the last.* got \[45, 64\]"):
        build_network(model_cfg(VFE={"NUM_FILTERS": [45, 64]}), 3, dataset_facts(TINY_RANGE))


def test_every_part_that_has_channels_is_scaled():
    cfg = EasyDict(
        BACKBONE_3D={"NAME": "PointNet2MSG", "SA_CONFIG": {"NPOINTS": [64], "MLPS": [[[64, 128]]]}, "FP_MLPS": [[128]]},
        POINT_HEAD={
            "NAME": "PointHeadBox",
            "CLS_FC": [256, 256],
            "REG_FC": [256],
            "TARGET_CONFIG": {"GT_EXTRA_WIDTH": [0.2] * 3},
        },
        ROI_HEAD={
            "NAME": "PointRCNNHead",
            "XYZ_UP_LAYER": [128],
            "CLS_FC": [256],
            "SA_CONFIG": {"NPOINTS": [128], "MLPS": [[128, 256]]},
        },
        DENSE_HEAD={**MULTI, "SHARED_CONV_NUM_FILTER": 64, "SEPARATE_REG_CONFIG": {"NUM_MIDDLE_FILTER": 64}},
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
    assert scaled.DENSE_HEAD == {
        **MULTI,
        "SHARED_CONV_NUM_FILTER": 32,
        "SEPARATE_REG_CONFIG": {"NUM_MIDDLE_FILTER": 32},
    }


def test_the_branches_of_a_multi_head_are_scaled_with_their_own_stages():
    own = {"HEAD_CLS_NAME": ["Car"], "LAYER_NUMS": [1], "LAYER_STRIDES": [1], "NUM_FILTERS": [32]}
    own |= {"UPSAMPLE_STRIDES": [1], "NUM_UPSAMPLE_FILTERS": [48]}
    cfg = EasyDict(DENSE_HEAD={**MULTI, "RPN_HEAD_CFGS": [own, {"HEAD_CLS_NAME": ["Cyclist"]}]})
    before = copy.deepcopy(cfg)
    branches = scale_model_cfg(cfg, 0.5).DENSE_HEAD.RPN_HEAD_CFGS
    assert cfg == before
    assert branches == [{**own, "NUM_FILTERS": [16], "NUM_UPSAMPLE_FILTERS": [24]}, {"HEAD_CLS_NAME": ["Cyclist"]}]


def test_a_backbone_with_channels_in_its_code_takes_the_factor():
    cfg = EasyDict(BACKBONE_3D={"NAME": "VoxelBackBone8x"}, MAP_TO_BEV={**MAP, "NUM_BEV_FEATURES": 256})
    assert scale_model_cfg(cfg, 0.25) == {
        "BACKBONE_3D": {"NAME": "VoxelBackBone8x", "WIDTH": 0.25},
        "MAP_TO_BEV": {**MAP, "NUM_BEV_FEATURES": 64},
    }
    named = EasyDict(BACKBONE_3D={"NAME": "VoxelBackBone8x", "NUM_FILTERS": [16, 32]})
    assert scale_model_cfg(named, 0.5).BACKBONE_3D == {"NAME": "VoxelBackBone8x", "NUM_FILTERS": [8, 16], "WIDTH": 0.5}
    named.BACKBONE_3D.OUT_CHANNELS = 128
    assert "WIDTH" not in scale_model_cfg(named, 0.5).BACKBONE_3D


def test_no_layer_vanishes():
    assert scale_channels([1, 2], 0.25) == [1, 1]


@pytest.mark.parametrize("width", [0, -1, "half", True, float("nan")])
def test_a_width_that_is_no_positive_number_is_an_error(width):
    with pytest.raises(ConfigError, match="MODEL.WIDTH: must be a positive number"):
        scale_model_cfg(model_cfg(), width)
