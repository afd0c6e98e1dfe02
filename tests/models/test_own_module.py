"""A detector's module is known everywhere by what its class says: one new 2-D backbone, and no other file touched."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from easydict import EasyDict
from models.kd.kd_pairs import FACTS, distil, pp, silence
from support.detectors import network
from torch import nn

from pcdet.config import cfg_from_yaml_file
from pcdet.config.check import find_problems
from pcdet.models import build_network
from pcdet.models.feature_spec import FeatureSpec, SlotModule
from pcdet.models.kd.features.tap_specs import kind_of_tap
from pcdet.models.kd.init.weight_slicing import inherit_weights
from pcdet.registry import BACKBONES_2D, BACKBONES_3D, ConfigError, Count

REPO_ROOT = Path(__file__).resolve().parents[2]
PAGE = REPO_ROOT / "docs" / "ARCHITECTURE.md"
FIT = {"NAME": "FitNet", "SAMPLE": {"NUM": 20}}
DERIVE = r"derive .*pcdet\.models\.feature_spec\.SlotModule"


class OneStage(SlotModule):
    """A strided convolution with its norm. Reads spatial_features, writes spatial_features_2d."""

    READS = "spatial_features"
    CHANNEL_KEYS = ("NUM_FILTERS",)

    def __init__(self, *, num_filters: Count, stride: Count = 2, input_channels: int):
        super().__init__()
        conv = nn.Conv2d(input_channels, num_filters, 3, stride=stride, padding=1, bias=False)
        self.stage = nn.Sequential(conv, nn.BatchNorm2d(num_filters), nn.ReLU())

    @classmethod
    def layers(cls, config, inputs):
        z, y, x = inputs[cls.READS].stride
        stride = (z, y * config.stride, x * config.stride)
        return {"stage": FeatureSpec(kind="stage", channels=config.num_filters, stride=stride)}

    @classmethod
    def outputs(cls, config, inputs):
        return {"spatial_features_2d": replace(cls.layers(config, inputs)["stage"], kind="map")}

    def forward(self, batch_dict):
        batch_dict["spatial_features_2d"] = self.stage(batch_dict["spatial_features"])
        return batch_dict


class Undescribed(nn.Module):
    """A user's own backbone, which says nothing of itself but its channels, in OpenPCDet's manner."""

    def __init__(self, *, num_filters: Count, input_channels: int):
        super().__init__()
        self.num_bev_features = num_filters
        self.stage = nn.Conv2d(input_channels, num_filters, 3, stride=2, padding=1)

    def forward(self, batch_dict):
        batch_dict["spatial_features_2d"] = self.stage(batch_dict["spatial_features"])
        return batch_dict


class WidensMap(nn.Module):
    """A user's own PFE, which writes spatial_features anew, with twice the channels."""

    def __init__(self, *, input_channels: int):
        super().__init__()
        self.num_bev_features = 2 * input_channels

    def forward(self, batch_dict):
        batch_dict["spatial_features"] = batch_dict["spatial_features"].repeat(1, 2, 1, 1)
        return batch_dict


class ReadsColumns(nn.Module):
    """A user's own PFE that asks for what the registry of its slot does not supply to every class."""

    INJECTED = ("num_point_features",)

    def __init__(self, *, num_point_features: int):
        super().__init__()
        self.columns = num_point_features

    def forward(self, batch_dict):
        return batch_dict


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The own modules, in copies of their registries."""
    for registry, classes in {BACKBONES_2D: (OneStage, Undescribed), BACKBONES_3D: (WidensMap, ReadsColumns)}.items():
        registry.names()
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))
        for cls in classes:
            registry.register(cls)


@pytest.fixture
def batch():
    return pp.random_batch(FACTS, frames=2, points=300, seed=3)


def model_cfg(backbone="OneStage", filters=24, pillars=8, **keys):
    """The MODEL block of a small PointPillars with this backbone, whose head has stride 2."""
    cfg = pp.tiny_model_cfg(VFE={"NUM_FILTERS": [pillars]}, MAP_TO_BEV={"NUM_BEV_FEATURES": pillars})
    cfg.BACKBONE_2D = EasyDict(NAME=backbone, NUM_FILTERS=filters, **keys)
    return cfg


def build(seed=0, **keys):
    """A detector with seeded weights, and running statistics and box predictions that are not the initial ones."""
    model = network(model_cfg(**keys), FACTS, seed)
    nn.init.normal_(model.dense_head.conv_box.weight, std=0.1)
    return model


def whole_cfg(stride, head_stride):
    """A configuration with this backbone on a grid of 96 x 96 pillars of 0.32 m."""
    cfg = cfg_from_yaml_file(REPO_ROOT / "tools" / "cfgs" / "simulated_models" / "pointpillar.yaml", EasyDict())
    cfg.MODEL.BACKBONE_2D = EasyDict(NAME="OneStage", NUM_FILTERS=24, STRIDE=stride)
    for anchors in cfg.MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG:
        anchors.feature_map_stride = head_stride
    return cfg


# ---------------------------------------------------------------------------------- a module that describes itself


def test_the_check_passes_an_own_backbone():
    assert find_problems(whole_cfg(stride=2, head_stride=2)) == []


def test_the_check_tells_a_head_stride_that_is_not_the_own_backbones():
    cfg = whole_cfg(stride=2, head_stride=2)
    cfg.MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[1].feature_map_stride = 1
    assert find_problems(cfg) == [
        "MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[1].feature_map_stride: the map that the head reads has stride 2 "
        "(from MODEL.BACKBONE_2D), got 1"
    ]


def test_the_check_tells_a_grid_that_the_own_backbones_stride_does_not_divide():
    told = find_problems(whole_cfg(stride=5, head_stride=5))
    assert told == [
        f"DATA_CONFIG.POINT_CLOUD_RANGE: the grid has 96 voxels along {axis}, which the strides of the backbones (5 in "
        "all) do not divide; 95 (30.4 m) or 100 (32 m) would fit"
        for axis in "xy"
    ]


def test_the_check_tells_a_key_that_an_own_backbone_does_not_have():
    cfg = whole_cfg(stride=2, head_stride=2)
    cfg.MODEL.BACKBONE_2D.NUM_FILTER = cfg.MODEL.BACKBONE_2D.pop("NUM_FILTERS")
    told = find_problems(cfg)
    assert {problem.partition(":")[0] for problem in told} == {
        "MODEL.BACKBONE_2D.NUM_FILTER",
        "MODEL.BACKBONE_2D.NUM_FILTERS",
    }


@pytest.mark.parametrize(("width", "pillars", "filters"), [(None, 8, 24), (0.5, 4, 12)])
def test_a_detector_has_the_own_backbones_channels_at_every_width(width, pillars, filters):
    cfg = model_cfg(filters=24, pillars=8)
    cfg.WIDTH = width
    model = build_network(cfg, 3, FACTS)
    conv = model.backbone_2d.stage[0]
    assert (conv.in_channels, conv.out_channels) == (pillars, filters)
    assert model.dense_head.conv_cls.in_channels == filters


@pytest.mark.parametrize(("tap", "kind"), [("spatial_features_2d", "map"), ("backbone_2d.stage", "stage")])
def test_a_loss_taps_what_an_own_backbone_writes_and_its_layer(tap, kind, batch):
    student = build(filters=12)
    assert kind_of_tap(student, tap) == kind
    distiller = distil(FIT | {"FEATURE": tap}, student=student, teacher=build(1, filters=24, pillars=16))
    loss = distiller.losses["FitNet"]
    assert (loss.student_channels, loss.teacher_channels) == (12, 24)
    ret_dict, tb_dict, _ = distiller(batch)
    assert tb_dict["kd/FitNet"] > 0 and tb_dict["kd/FitNet/nodes"] == 20
    ret_dict["loss"].backward()
    assert student.backbone_2d.stage[0].weight.grad.abs().sum() > 0


def test_a_sliced_student_with_an_own_backbone_is_its_teacher_with_silent_channels(batch):
    student, teacher = build(2, filters=12, pillars=4), build(1, filters=24, pillars=8)
    copied = inherit_weights(student, teacher)
    assert copied == sum(value.is_floating_point() for value in student.state_dict().values())
    silence(teacher, student)
    with torch.no_grad():
        narrow, wide = (model.eval().forward_features(dict(batch)) for model in (student, teacher))
    for key in ("batch_cls_preds", "batch_box_preds"):
        torch.testing.assert_close(narrow[key], wide[key], rtol=1e-4, atol=1e-4)
    assert narrow["spatial_features_2d"].abs().sum() > 0


def test_the_example_of_the_architecture_page_builds_scales_and_trains(batch):
    block = PAGE.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    exec(compile(block, str(PAGE), "exec"), {})
    cfg = model_cfg(backbone="OneConvolution", filters=24)
    cfg.WIDTH = 0.5
    model = build_network(cfg, 3, FACTS).train()
    assert model.backbone_2d.conv.out_channels == 12 == model.described.entries["spatial_features_2d"].channels
    assert model.described.entries["spatial_features_2d"].stride[1:] == (2, 2)
    assert model(batch)[0]["loss"].isfinite()


# --------------------------------------------------------------------------- a module that says nothing of itself


def test_a_module_without_description_builds_and_trains(batch):
    model = build(backbone="Undescribed").train()
    loss = model(batch)[0]["loss"]
    loss.backward()
    assert loss.isfinite() and model.backbone_2d.stage.weight.grad.abs().sum() > 0
    assert model.dense_head.conv_cls.in_channels == 24


def test_the_width_of_a_module_without_description_is_refused():
    cfg = model_cfg(backbone="Undescribed")
    cfg.WIDTH = 0.5
    with pytest.raises(ConfigError, match=rf"MODEL\.WIDTH: .*MODEL\.BACKBONE_2D, since Undescribed .*{DERIVE}"):
        build_network(cfg, 3, FACTS)


def test_slices_of_a_module_without_description_are_refused():
    student, teacher = build(backbone="Undescribed", filters=12), build(backbone="Undescribed", filters=24)
    with pytest.raises(ConfigError, match=rf"KD\.INIT slice: PointPillar\.backbone_2d .*Undescribed .*{DERIVE}"):
        inherit_weights(student, teacher)


@pytest.mark.parametrize("tap", ["spatial_features_2d", "backbone_2d.stage", "backbone_2d.stages"])
def test_taps_of_a_module_without_description_are_refused(tap):
    student, teacher = build(backbone="Undescribed", filters=12), build(1, backbone="Undescribed", filters=24)
    with pytest.raises(ConfigError, match=rf"KD\.LOSSES\[0\]: .*{tap!r} of PointPillar.*Undescribed.*{DERIVE}"):
        distil(FIT | {"FEATURE": tap}, student=student, teacher=teacher)


def test_a_described_module_behind_one_without_description_gets_the_channels_that_this_declares(batch):
    cfg = model_cfg(pillars=8)
    cfg.PFE = EasyDict(NAME="WidensMap")
    model = build_network(cfg, 3, FACTS).train()
    assert model.backbone_2d.stage[0].in_channels == 16
    assert model(batch)[0]["loss"].isfinite()


def test_a_module_gets_what_its_class_declares_as_injected():
    cfg = model_cfg()
    cfg.PFE = EasyDict(NAME="ReadsColumns")
    model = build_network(cfg, 3, FACTS)
    assert model.pfe.columns == FACTS.point_feature_encoder.num_point_features


def test_the_check_tells_what_is_wrong_with_a_head_behind_a_module_without_description():
    cfg = whole_cfg(stride=2, head_stride=2)
    cfg.MODEL.BACKBONE_2D = EasyDict(NAME="Undescribed", NUM_FILTERS=24)
    head = cfg.MODEL.DENSE_HEAD
    head.ANCHOR_GENERATOR_CONFIG[0].class_name = "Lorry"
    head.LOSS_CONFIG.LOSS_WEIGHTS.code_weights = [1.0] * 6
    assert {problem.partition(": ")[0] for problem in find_problems(cfg)} == {
        "MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[0].class_name",
        "MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG",
        "MODEL.DENSE_HEAD.LOSS_CONFIG.LOSS_WEIGHTS.code_weights",
    }
