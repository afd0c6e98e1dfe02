"""Taps, features, sampling, weights and initialisation, each for itself."""

from types import SimpleNamespace

import pytest
import torch
from kd_pairs import FACTS, LOGITS, MAP, PILLARS, detector, distil, pp, wide_detector
from torch import nn

from pcdet.models.kd.diagnostics import explained_variance, target_variance
from pcdet.models.kd.features.feature import Feature, Voxels
from pcdet.models.kd.features.grid import Geometry
from pcdet.models.kd.features.tap_specs import channels_of_tap
from pcdet.models.kd.features.taps import Taps, TapsFilled, head_taps
from pcdet.models.kd.graphs.adapters import EdgeAdapter
from pcdet.models.kd.graphs.sampling import (
    ReweightConfig,
    effective_sample_size,
    importance_scores,
    inside_boxes,
    sample,
    softmax_weights,
)
from pcdet.models.kd.model_outputs import ModelOutputs, ModelPair
from pcdet.models.kd.step import Step
from pcdet.ops.edge_conv import edge_graph, reduced
from pcdet.registry import ConfigError

GEOMETRY = Geometry(point_cloud_range=(0.0, -4.0, -3.0, 8.0, 4.0, 1.0), grid_size=(8, 8, 1))


# ------------------------------------------------------------------------------------------------------------- taps


def test_keys_and_module_paths_are_both_read(batch):
    model = detector().eval()
    names = ("pillar_features", "backbone_2d.blocks.0", "spatial_features_2d")
    with Taps(model, names) as taps, torch.no_grad():
        out = model.forward_features(dict(batch))
    values = taps.complete(out)
    assert values["pillar_features"] is out["pillar_features"]
    assert values["spatial_features_2d"] is out["spatial_features_2d"]
    assert values["backbone_2d.blocks.0"].shape == (2, 8, 32, 32)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_tap_on_a_batch_norm_shows_what_comes_before_the_relu(batch):
    """Which works in place."""
    model, norm = detector().eval(), "backbone_2d.deblocks.0.1"
    with Taps(model, (norm, "backbone_2d.deblocks.0")) as taps, torch.no_grad():
        model.forward_features(dict(batch))
    assert taps.values[norm].min() < 0
    assert torch.equal(taps.values[norm].relu(), taps.values["backbone_2d.deblocks.0"])


def test_the_first_value_of_a_key_is_kept_when_a_later_module_overwrites_it():
    class Writes(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, batch_dict):
            return {**batch_dict, "point_features": torch.full((1,), self.value)}

    model = nn.Sequential(Writes(1.0), Writes(2.0))
    with Taps(model, ["point_features"]) as taps:
        out = model({})
    assert taps.complete(out)["point_features"].item() == 1


def test_the_teacher_stops_after_its_last_tap(batch):
    distiller = distil(PILLARS)
    ran = []
    for name in ("map_to_bev_module", "backbone_2d", "dense_head"):
        getattr(distiller.teacher, name).register_forward_hook(lambda *_, name=name: ran.append(name))
    distiller(batch)
    assert ran == []
    distiller = distil(MAP)  # samples by the teacher's score
    distiller.teacher.dense_head.finish = lambda *_: pytest.fail("the teacher decoded its boxes")
    distiller(batch)


def test_a_tap_that_is_nowhere_is_an_error_that_lists_what_there_is(batch):
    model = detector()
    with Taps(model, ["spatial_features_3d"]) as taps:
        out = model.forward_features(dict(batch))
    with pytest.raises(ConfigError, match="PointPillar has no tap 'spatial_features_3d'.*spatial_features_2d"):
        taps.complete(out)


def test_other_exceptions_pass_through_the_taps():
    with pytest.raises(ValueError), Taps(nn.Identity(), []):
        raise ValueError
    with Taps(nn.Identity(), []):
        raise TapsFilled


def test_channels_are_read_off_the_modules():
    model = wide_detector()
    assert channels_of_tap(model, "pillar_features") == 16
    assert channels_of_tap(model, "spatial_features") == 16
    assert channels_of_tap(model, "spatial_features_2d") == 48
    assert channels_of_tap(model, "backbone_2d.blocks.2") == 32
    assert ModelPair(detector(), model).channels("spatial_features_2d", "spatial_features_2d") == (24, 48)
    with pytest.raises(ValueError, match="cannot tell how many channels 'voxels'"):
        channels_of_tap(model, "voxels")
    with pytest.raises(ValueError, match="has no dense_head"):
        head_taps(nn.Identity())
    assert head_taps(SimpleNamespace(dense_head=SimpleNamespace())) == ("dense_head",)


# --------------------------------------------------------------------------------------------------------- features


def test_voxels_stand_at_their_centres_in_canonical_order():
    coords = torch.tensor([[1, 0, 7, 0], [0, 0, 2, 5], [0, 0, 0, 3]]).float()
    feature = Feature.from_voxels(torch.arange(3.0)[:, None], coords, GEOMETRY, 2, torch.tensor([3.0, 2.0, 1.0]))
    assert feature.batch_idx.tolist() == [0, 0, 1]
    assert feature.x.flatten().tolist() == [2, 1, 0]
    assert feature.count.tolist() == [1, 2, 3]
    assert feature.xyz.tolist() == [[3.5, -3.5, -1.0], [5.5, -1.5, -1.0], [0.5, 3.5, -1.0]]
    assert feature.take(torch.tensor([2])).item() == 0
    assert (len(feature), feature.channels, feature.frame_sizes()) == (3, 1, [2, 1])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("index", [[0, 5, 17, 20, 30, 31], [3, 16, 18, 30], None])
def test_cells_of_a_map_are_read_with_their_gradients(memory_format, index):
    dense = torch.randn(2, 3, 4, 4).contiguous(memory_format=memory_format).requires_grad_()
    feature = Feature.from_bev(dense, GEOMETRY)
    index = None if index is None else torch.tensor(index)
    rows = feature.take(index)
    expected = dense.permute(0, 2, 3, 1).reshape(-1, 3)[slice(None) if index is None else index]
    assert torch.equal(rows, expected)
    weight = torch.randn_like(rows)
    torch.testing.assert_close(
        torch.autograd.grad((rows * weight).sum(), dense)[0], torch.autograd.grad((expected * weight).sum(), dense)[0]
    )
    assert feature.dense is dense and feature.frame_sizes() == [16, 16]


def test_cells_of_a_map_know_where_they_are_and_how_many_points_they_hold():
    coords = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1], [1, 0, 7, 6]]).float()
    feature = Feature.from_bev(torch.zeros(2, 1, 4, 4), GEOMETRY, Voxels(coords.long(), torch.tensor([3.0, 4.0, 5.0])))
    assert feature.xyz[0].tolist() == [1.0, -3.0, -1.0] and feature.xyz[31].tolist() == [7.0, 3.0, -1.0]
    assert feature.count.nonzero().flatten().tolist() == [0, 16 + 15] and feature.count.max() == 7
    grid = GEOMETRY.map_grid(4, 4)
    cells, inside = grid.cells_at(feature.xyz)
    assert inside.all() and grid.flat(feature.batch_idx, cells).tolist() == list(range(32))


def test_points_and_sparse_tensors_become_features():
    points = torch.tensor([[1, 0.5, 0, 0], [0, 1.5, 1, 1]])
    feature = Feature.from_points(torch.tensor([[5.0], [6.0]]), points, 2)
    assert feature.x.flatten().tolist() == [6, 5] and feature.xyz.tolist() == [[1.5, 1, 1], [0.5, 0, 0]]
    tensor = SimpleNamespace(
        features=torch.ones(1, 2), indices=torch.tensor([[0, 1, 1, 1]], dtype=torch.int32), spatial_shape=[2, 4, 4]
    )
    outputs = ModelOutputs(None, {"batch_size": 1}, {"x_conv2": tensor}, GEOMETRY)
    assert outputs.feature("x_conv2").xyz.tolist() == [[3.0, -1.0, 0.0]]
    outputs = ModelOutputs(
        None, {"batch_size": 2, "point_coords": points}, {"point_features": torch.zeros(2, 1)}, GEOMETRY
    )
    assert outputs.feature("point_features").num_frames == 2


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Feature.from_voxels(torch.zeros(3, 2), torch.zeros(2, 4), GEOMETRY, 1), "a set of voxels needs"),
        (lambda: Feature.from_points(torch.zeros(3, 2), torch.zeros(3, 3), 1), "a set of points needs"),
        (lambda: Feature.from_bev(torch.zeros(3, 2), GEOMETRY), r"shape \(B, C, H, W\), got \[3, 2\]"),
        (
            lambda: ModelOutputs(None, {"batch_size": 1}, {"x": {}}, GEOMETRY).feature("x"),
            "tap 'x' gives dict, not a tensor",
        ),
    ],
)
def test_wrong_shapes_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_half_precision_features_are_compared_in_float32(batch):
    distiller = distil(PILLARS, MAP, LOGITS)
    with torch.autocast("cpu", torch.bfloat16):
        ret_dict, tb_dict, _ = distiller(batch)
    ret_dict["loss"].backward()
    assert ret_dict["loss"].dtype == torch.float32 and tb_dict["kd/total"] > 0


# --------------------------------------------------------------------------------------------------------- sampling


def a_feature(count=None, rows=6):
    coords = torch.zeros(rows, 4)
    coords[:, 3] = torch.arange(rows)
    x = torch.tensor([[3.0, -4.0], [1.0, 1.0], [0.0, 2.0], [6.0, 8.0], [0.0, 0.0], [-5.0, 1.0]])[:rows]
    return Feature.from_voxels(x, coords, GEOMETRY, 1, count)


def test_every_measure_of_importance():
    feature = a_feature(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 0.0]))
    assert importance_scores("num_points", feature).tolist() == [1, 2, 3, 4, 5, 0]
    assert importance_scores("log_points", feature)[[0, 5]].tolist() == [0, 0]
    assert importance_scores("channel_max", feature).tolist() == [3, 1, 2, 8, 0, 1]
    assert importance_scores("channel_l2", feature)[3].item() == 10
    score = torch.rand(6)
    assert torch.equal(importance_scores("score", feature, score=score), score)
    inside = torch.tensor([False, True, False, False, True, False])
    assert importance_scores("foreground", feature, foreground=inside).argsort(descending=True).tolist()[:3] == [
        1,
        4,
        3,
    ]
    assert importance_scores("random", feature).shape == (6,)
    for by, what in (("score", "a dense head"), ("foreground", "gt_boxes")):
        with pytest.raises(ValueError, match=f"BY: {by} needs {what}"):
            importance_scores(by, feature)
    with pytest.raises(ValueError, match="needs the number of points"):
        importance_scores("num_points", a_feature())


def test_sampling_takes_the_best_the_worst_or_half_of_each_of_every_frame():
    value = torch.tensor([5.0, 1, 4, 2, 3, 9.0, 8.0])
    rows, sizes = sample(value, [5, 2, 0], 3)
    assert rows.tolist() == [0, 2, 4, 5, 6] and sizes == [3, 2, 0]
    assert sorted(sample(value, [5, 2, 0], 2, "bottom")[0].tolist()) == [1, 3, 5, 6]
    assert sorted(sample(value, [5, 2, 0], 3, "mixed")[0].tolist()) == [0, 1, 2, 5, 6]
    assert sample(value[:0], [], 3)[0].shape == (0,)


def test_weights_are_a_softmax_with_a_mean_of_one_in_every_frame():
    value = torch.tensor([1.0, 2.0, 3.0, 30.0, 10.0])
    weight = softmax_weights(value, [3, 2], 2.0)
    torch.testing.assert_close(weight[:3], (value[:3] / 2).softmax(0) * 3)
    assert weight[3:].mean().item() == pytest.approx(1)
    assert effective_sample_size(torch.ones(6), [4, 2, 0]).item() == 3
    assert effective_sample_size(torch.tensor([4.0, 0, 0, 0]), [4]).item() == 1
    assert effective_sample_size(torch.zeros(0), []).item() == 0


def test_rows_inside_boxes_are_found():
    xyz = torch.tensor([[2.0, 0.0, 0.0], [2.0, 1.5, 0.0], [6.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    boxes = torch.zeros(2, 2, 8)
    boxes[0, 0] = torch.tensor([2.0, 0, 0, 4.0, 1.0, 1.0, torch.pi / 2, 1.0])
    assert inside_boxes(xyz, torch.tensor([0, 0, 0, 1]), boxes).tolist() == [True, True, False, False]


@pytest.mark.parametrize("by", ["foreground", "random", "score", "channel_max", "log_points"])
def test_every_measure_works_on_pillars_and_on_maps(batch, by):
    for node in (PILLARS, MAP):
        by_too = {"REWEIGHT": {"BY": "graph_max" if by in ("foreground", "random") else by, "TEMPERATURE": 1.0}}
        tb_dict = distil(node | {"SAMPLE": {"NUM": 30, "BY": by}} | by_too)(batch)[1]
        assert tb_dict["kd/PointDistiller"] > 0 and tb_dict["kd/PointDistiller/nodes"] == 30


@pytest.mark.parametrize("pool", ["max", "mean"])
@pytest.mark.parametrize("distance", ["mse", "norm", "dist"])
def test_every_distance_and_pooling_gives_a_positive_loss(batch, pool, distance):
    node = PILLARS | {"DISTANCE": distance, "GRAPH": {"POOL": pool, "SPACE": "bev"}}
    assert distil(node)(batch)[1]["kd/PointDistiller"] > 0


# ------------------------------------------------------------------------------------------------ adapters, the rest


def test_an_adapter_that_changes_nothing_must_keep_the_width():
    with pytest.raises(ValueError, match="ADAPTER: none gives 8 channels, but 6 are to be compared; use linear"):
        EdgeAdapter("none", 4, 6, affine=False)


def test_a_frozen_adapter_is_stored_but_not_trained():
    adapter = EdgeAdapter("frozen", 4, 6, affine=True)
    assert not any(p.requires_grad for p in adapter.parameters()) and adapter.bn.weight is None
    assert "conv.weight" in adapter.state_dict()
    assert adapter.out_channels == 6


def test_one_edge_is_normalised_with_running_statistics():
    adapter = EdgeAdapter("linear_bn_relu", 4, 6, affine=False)
    graph = edge_graph(torch.zeros(1, 1, dtype=torch.int64), 1)
    out = reduced(adapter(torch.randn(1, 4), torch.randn(1, 4), graph), graph, "none")
    assert out.shape == (1, 1, 6) and bool(out.isfinite().all())


def test_diagnostics_are_one_for_a_copy_and_nothing_for_noise():
    x = torch.randn(500, 6)
    assert float(explained_variance(x @ torch.randn(6, 6), x)) == pytest.approx(1, abs=1e-2)
    assert abs(float(explained_variance(torch.randn(500, 6), x))) < 0.1
    assert float(target_variance(torch.ones(10, 3))) == 0 and float(target_variance(torch.ones(1, 3))) == 0
    assert float(explained_variance(x[:1], x[:1])) == 0


def test_logits_of_other_classes_or_anchors_are_refused(batch):
    teacher = wide_detector()
    teacher.dense_head.num_class = 2
    with pytest.raises(ValueError, match="the teacher has 2 classes, the student 3"):
        distil(LOGITS, teacher=teacher)
    teacher = wide_detector()
    teacher.dense_head.conv_cls = nn.Conv2d(48, 9, 1)
    with pytest.raises(ValueError, match="must have the same anchors"):
        distil(LOGITS, teacher=teacher)(batch)
    distiller = distil(LOGITS)
    head = distiller.student.dense_head
    head.register_forward_hook(lambda *_: head.forward_ret_dict.pop("cls_preds"))
    distiller.student.get_training_loss = lambda: (torch.zeros(()), {}, {})
    with pytest.raises(ValueError, match="leaves no single cls_preds map"):
        distiller(batch)


def test_no_pivots_cost_nothing_even_where_the_sum_of_a_half_precision_map_overflows(batch):
    distiller = distil(LOGITS)
    distiller({**batch, "gt_boxes": torch.zeros(2, 1, 8)})  # leaves labels without positives
    shapes = {"dense_head.conv_cls": (2, 18, 32, 32), "dense_head.conv_box": (2, 42, 32, 32)}
    taps = {k: torch.full(shape, -9.0, dtype=torch.float16, requires_grad=True) for k, shape in shapes.items()}
    assert all(t.sum().isinf() for t in taps.values())
    outputs = ModelOutputs(distiller.student, batch, taps, distiller.geometry)
    value, logs = distiller.losses["PivotalLogit"](Step(outputs, outputs, batch))
    value.backward()
    assert value.item() == 0 and logs["pivots"] == 0
    assert all(not t.grad.any() for t in taps.values())


def test_pivots_by_score_are_capped_and_weighted(batch):
    node = LOGITS | {"PIVOT": "score", "THRESHOLD": 0.0, "NUM": 30, "BY_SCORE": True}
    tb_dict = distil(node)(batch)[1]
    assert tb_dict["kd/PivotalLogit/pivots"] == 30
    assert tb_dict["kd/PivotalLogit"] == pytest.approx(
        tb_dict["kd/PivotalLogit/cls"] + tb_dict["kd/PivotalLogit/reg"], rel=1e-5
    )


def test_global_step_is_the_students(batch):
    distiller = distil(PILLARS)
    distiller.update_global_step()
    assert int(distiller.global_step) == int(distiller.student.global_step) == 1


def test_facts_of_a_dataset_are_its_range_and_grid():
    geometry = Geometry.of(FACTS)
    assert geometry.grid_size == (64, 64, 1) and geometry.point_cloud_range == pytest.approx(pp.TINY_RANGE)


def test_a_config_of_weights_is_checked_where_it_is_made():
    with pytest.raises(ValueError, match="above 0"):
        ReweightConfig(temperature=-1.0)
