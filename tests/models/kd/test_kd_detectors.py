"""Distillation of SECOND and PointRCNN: every kind of tap and preset, on networks of a few channels."""

import pytest
import torch
from easydict import EasyDict
from kd_detectors import CFGS, POINTS, VOXELS, network, point_rcnn, pointrcnn, second, voxel_batch
from kd_pairs import kd_terms, pp

from pcdet.config import cfg_from_yaml_file
from pcdet.models.kd import build_distiller
from pcdet.models.kd.features.grid import Geometry
from pcdet.models.kd.model_outputs import ModelOutputs
from pcdet.registry import ConfigError

GRID = Geometry.of(VOXELS)
SMALL = {"SAMPLE": {"NUM": 30}, "GRAPH": {"K": 8}}
STAGES = {"NAME": "PointDistiller", "FEATURE": ["backbone_2d.blocks.0", "backbone_2d.blocks.1"], **SMALL}
SPARSE = {"NAME": "PointDistiller", "FEATURE": "multi_scale_3d_features.x_conv3", **SMALL}
POINT = {"NAME": "PointDistiller", "FEATURE": "point_features", **SMALL}
SECOND_LOSSES = {
    "stages": [STAGES],
    "stages, official": [STAGES | {"PRESET": "official"}],
    "stages, paper": [STAGES | {"PRESET": "paper"}],
    "sparse voxels": [SPARSE],
    "sparse voxels, official": [SPARSE | {"PRESET": "official"}],
    "volume by path": [SPARSE | {"FEATURE": "backbone_3d.conv_out"}],
    "regression of voxels": [{"NAME": "FitNet", "FEATURE": "encoded_spconv_tensor"}],
    "map by points, and logits": [
        {"NAME": "FitNet", "FEATURE": "spatial_features_2d", "SAMPLE": {"BY": "num_points"}},
        {"NAME": "PivotalLogit"},
    ],
}
POINT_LOSSES = {
    "points": [POINT],
    "points, official": [POINT | {"PRESET": "official"}],
    "points, paper": [POINT | {"PRESET": "paper"}],
    "regression": [{"NAME": "FitNet", "FEATURE": "point_features"}],
}
CASES = [("second", name) for name in SECOND_LOSSES] + [("pointrcnn", name) for name in POINT_LOSSES]


def case(detector, name):
    """Student, teacher, facts, losses and batch."""
    if detector == "second":
        return second(0.125, seed=1), second(0.25, seed=2), VOXELS, SECOND_LOSSES[name], voxel_batch()
    batch = pointrcnn.random_batch(points=256)
    return point_rcnn(0.125, seed=1), point_rcnn(0.25, seed=2), POINTS, POINT_LOSSES[name], batch


def distil(student, teacher, facts, losses):
    torch.manual_seed(7)
    cfg = EasyDict(KD={"TEACHER": {"CFG": "unused"}, "LOSSES": losses})
    return build_distiller(cfg, student, facts, teacher=teacher).train()


@pytest.mark.parametrize(("detector", "name"), CASES, ids=[": ".join(c) for c in CASES])
def test_training_lowers_the_loss_and_its_gradient_reaches_the_first_layer(detector, name):
    student, teacher, facts, losses, batch = case(detector, name)
    distiller = distil(student, teacher, facts, losses)
    first = next(student.backbone_3d.parameters())
    optimizer = torch.optim.Adam([p for p in distiller.parameters() if p.requires_grad], lr=3e-3)
    totals = []
    for step in range(5):
        torch.manual_seed(3)  # the second stage draws its proposals
        ret_dict, tb_dict, _ = distiller(batch)
        kd = ret_dict["loss"] - student.get_training_loss()[0]
        if step == 0:
            kd.backward(retain_graph=True)
            assert first.grad.abs().sum() > 0
            assert all(p.grad is not None for p in distiller.losses.parameters() if p.requires_grad)
        optimizer.zero_grad()
        ret_dict["loss"].backward()
        optimizer.step()
        totals.append(tb_dict["kd/total"])
    assert totals[-1] < totals[0]
    assert not any(key.endswith("matched") for key in tb_dict), "teacher and student have the same rows"


@pytest.mark.parametrize("feature", ["multi_scale_3d_features.x_conv2", "backbone_2d.blocks.1"])
def test_the_order_of_voxels_does_not_matter(feature):
    """Sites of strided layers come in another order then."""
    node = SPARSE | {"FEATURE": feature}
    batch = voxel_batch()
    order = torch.randperm(len(batch["voxels"]), generator=torch.Generator().manual_seed(5))
    other = {k: v[order] if k.startswith("voxel") else v for k, v in batch.items()}
    values = [
        kd_terms(distil(second(0.125, seed=1), second(0.25, seed=2), VOXELS, [node])(b)[1]) for b in (batch, other)
    ]
    for key, value in values[0].items():
        if not key.endswith("explained"):
            assert values[1][key] == pytest.approx(value, rel=1e-3, abs=1e-6), key


def test_weights_of_points_act_and_have_a_mean_of_one():
    """B2: the released code computes them and leaves them out."""
    student, teacher, facts, _, batch = case("pointrcnn", "points")
    distiller = distil(student, teacher, facts, [POINT])
    loss, seen = distiller.losses["PointDistiller"], []
    original = loss._weights
    loss._weights = lambda *args: seen.append(original(*args)) or seen[-1]
    logs = kd_terms(distiller(batch)[1])
    for frame in seen[0].split(30):
        assert float(frame.mean()) == pytest.approx(1, rel=1e-5) and float(frame.std()) > 0.01
    assert 1 <= logs["kd/PointDistiller/ess"] < 30
    official = distil(student, teacher, facts, [POINT | {"PRESET": "official"}])
    assert kd_terms(official(batch)[1])["kd/PointDistiller/ess"] == pytest.approx(30)


@pytest.mark.parametrize("feature", ["backbone_2d.blocks.0", "backbone_2d.blocks.1", "encoded_spconv_tensor"])
def test_by_default_the_points_behind_a_cell_of_second_decide_its_weight(feature):
    """In proportion: sections 3.1 and 3.3 of the paper, at a temperature under which no cell takes everything."""
    student, teacher, facts, _, batch = case("second", "stages")
    distiller = distil(student, teacher, facts, [STAGES | {"FEATURE": feature}])
    loss, seen = distiller.losses["PointDistiller"], []
    original = loss._weights
    loss._weights = lambda importance, target, graphs, *rest: (
        seen.append((importance("num_points")[graphs.rows], original(importance, target, graphs, *rest))) or seen[-1][1]
    )
    logs = kd_terms(distiller(batch)[1])
    for points, weight in zip(*(part.split(30) for part in seen[0]), strict=True):
        points = points.clamp(min=1)
        torch.testing.assert_close(weight, points / points.mean())
    assert 1 < logs["kd/PointDistiller/ess"] < 29


@pytest.mark.parametrize(
    "layer",
    ["backbone_3d.FP_modules.0", "backbone_3d.SA_modules.0.mlps.0", "roi_head.xyz_up_layer", "point_head.box_layers"],
)
def test_a_layer_whose_rows_have_no_place_is_refused_with_what_to_tap_instead(layer):
    """Those of set abstractions and of the second stage have the shape of a map, over points and proposals."""
    student, teacher, facts, _, batch = case("pointrcnn", "points")
    node = {"NAME": "FitNet", "FEATURE": layer, "SAMPLE": {"BY": "channel_l2"}}
    with pytest.raises(
        ConfigError, match=rf"LOSSES\[0\]: where the rows of tap '{layer}' .* not known; tap point_feat"
    ):
        distil(student, teacher, facts, [node])


@pytest.mark.parametrize(
    ("layer", "instead"), [("conv2.0.1", "conv2.0"), ("conv1.0.1", "conv1.0"), ("conv_out.1", "conv_out")]
)
def test_a_norm_or_relu_of_a_sparse_backbone_is_refused_for_the_sparse_layer_around_it(layer, instead):
    """It gets the rows alone: behind a strided convolution these are not the voxels'."""
    student, teacher, facts, _, batch = case("second", "stages")
    node = {"NAME": "FitNet", "FEATURE": f"backbone_3d.{layer}"}
    with pytest.raises(
        ConfigError, match=f"rows of tap 'backbone_3d.{layer}' .* tap backbone_3d.{instead}, the sparse"
    ):
        distil(student, teacher, facts, [node])
    logs = kd_terms(distil(student, teacher, facts, [node | {"FEATURE": f"backbone_3d.{instead}"}])(batch)[1])
    assert logs["kd/FitNet"] > 0


@pytest.mark.parametrize(
    ("detector", "node", "message"),
    [
        (
            "second",
            {"FEATURE": "spatial_features_2d", "TEACHER_FEATURE": "encoded_spconv_tensor"},
            "the student's tap is a map and the teacher's a set of voxels.*give TEACHER_FEATURE a map too",
        ),
        (
            "pointpillar",
            {"FEATURE": "pillar_features", "TEACHER_FEATURE": "multi_scale_3d_features.x_conv1"},
            ".* a pillar would meet the one at half its height; give TEACHER_FEATURE a map",
        ),
        (
            "pointrcnn",
            {"FEATURE": "point_features", "SAMPLE": {"BY": "num_points"}},
            "BY: num_points needs the number of points .* point_features is one point; use channel_max",
        ),
        (
            "pointrcnn",
            {"FEATURE": "point_features", "REWEIGHT": {"BY": "log_points"}},
            "BY: log_points needs the number of points",
        ),
    ],
)
def test_rows_that_cannot_be_matched_or_counted_are_refused_when_the_distiller_is_built(detector, node, message):
    if detector == "pointrcnn":
        student, teacher, facts = point_rcnn(0.125), point_rcnn(0.25), POINTS
    else:
        student, teacher, facts = second(0.125), second(0.25), VOXELS
    if detector == "pointpillar":
        facts = pp.dataset_facts(pp.TINY_RANGE)
        student = network(pp.tiny_model_cfg(), facts, seed=1)
    with pytest.raises(ConfigError, match=rf"KD.LOSSES\[0\]: {message}"):
        distil(student, teacher, facts, [{"NAME": "PointDistiller", **node}])


def test_a_map_is_read_only_where_there_are_maps():
    """A hook of one's own may have put anything into the batch; a layer of the second stage is no map."""
    outputs = ModelOutputs(
        None, {"batch_size": 2}, {"roi_head.layer": torch.zeros(2, 3, 4, 4), "own": torch.zeros(2, 3, 4, 4)}, GRID
    )
    assert outputs.feature("own").frame_sizes() == [16, 16]
    with pytest.raises(ConfigError, match=r"rows of tap 'roi_head.layer' \[2, 3, 4, 4\] stand is not known"):
        outputs.feature("roi_head.layer")


@pytest.mark.parametrize(
    ("frozen", "feature", "instead"),
    [
        ((), "voxel_features", "encoded_spconv_tensor, spatial_features, spatial_features_2d"),
        (("backbone_3d",), "multi_scale_3d_features.x_conv2", "spatial_features_2d"),
        (("backbone_3d",), "backbone_3d.conv2", "spatial_features_2d"),
        (("backbone_3d",), "spatial_features", "spatial_features_2d"),
    ],
)
def test_a_tap_before_all_that_is_trained_is_refused_with_what_to_tap_instead(frozen, feature, instead):
    """The mean of a voxel's points has no parameters: nothing that the student trains can lower such a loss."""
    student, teacher, facts, *_ = case("second", "stages")
    for slot in frozen:
        student.get_submodule(slot).requires_grad_(False)
    message = rf"KD.LOSSES\[1\]: SECONDNet trains nothing before its tap '{feature}'.*\({instead}\)"
    with pytest.raises(ConfigError, match=message):
        distil(student, teacher, facts, [{"NAME": "PivotalLogit"}, {"NAME": "FitNet", "FEATURE": feature}])


def test_a_stage_that_a_sparse_backbone_has_not_is_refused_with_those_that_it_has():
    student, teacher, facts, *_ = case("second", "stages")
    known = ", ".join(f"multi_scale_3d_features.x_conv{i}" for i in (1, 2, 3, 4))
    with pytest.raises(ConfigError, match=f"channels 'multi_scale_3d_features.x_conv5' .*; known: {known}$"):
        distil(student, teacher, facts, [{"NAME": "FitNet", "FEATURE": "multi_scale_3d_features.x_conv5"}])


def test_a_point_detector_has_no_scores_on_a_map():
    student, teacher, facts, *_ = case("pointrcnn", "points")
    with pytest.raises(ValueError, match="PointRCNN has no dense_head"):
        distil(student, teacher, facts, [POINT | {"SAMPLE": {"BY": "score"}}])


def test_a_head_of_several_branches_teaches_by_its_predictions_and_its_surest_cells():
    pytest.importorskip("spconv")
    student, teacher = (network(multihead_cfg(width), VOXELS, seed=1) for width in (0.125, 0.25))
    by_score = {"NAME": "PointDistiller", "FEATURE": "spatial_features_2d", "SAMPLE": {"NUM": 30}}
    logs = distil(student, teacher, VOXELS, [{"NAME": "PivotalLogit"}, by_score])(voxel_batch())[1]
    assert min(logs["kd/PivotalLogit"], logs["kd/PointDistiller"]) > 0


def multihead_cfg(width):
    """The MODEL block of second_multihead.yaml, shallower."""
    cfg = cfg_from_yaml_file(CFGS / "second_multihead.yaml", EasyDict()).MODEL
    cfg.BACKBONE_2D.LAYER_NUMS = [1] * len(cfg.BACKBONE_2D.LAYER_NUMS)
    cfg.WIDTH = width
    return cfg
