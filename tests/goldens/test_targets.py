"""Targets, coders, anchors and losses against OpenPCDet's numbers (goldens/reference/targets)."""

import numpy as np
import pytest
import torch
from models.pointpillars import SMALL_RANGE, dataset_facts, tiny_model_cfg

from pcdet.models import build_network
from pcdet.models.dense_heads.anchor_head_template import DirectionBins
from pcdet.models.dense_heads.target_assigner.anchor_generator import AnchorConfig, generate_anchors
from pcdet.models.model_utils.centernet_utils import draw_gaussian_to_heatmap, gaussian_radius
from pcdet.utils import box_coder_utils, loss_utils

MEAN_SIZE = [[3.9, 1.6, 1.56], [0.8, 0.6, 1.73], [1.76, 0.6, 1.73]]

KITTI_SIZES = {"Car": MEAN_SIZE[0], "Pedestrian": MEAN_SIZE[1], "Cyclist": MEAN_SIZE[2]}
NUSCENES = {  # size, bottom
    "car": ([4.63, 1.97, 1.74], -0.95),
    "truck": ([6.93, 2.51, 2.84], -0.6),
    "construction_vehicle": ([6.37, 2.85, 3.19], -0.225),
    "bus": ([10.5, 2.94, 3.47], -0.085),
    "trailer": ([12.29, 2.90, 3.87], 0.115),
    "barrier": ([0.50, 2.53, 0.98], -1.33),
    "motorcycle": ([2.11, 0.77, 1.47], -1.085),
    "bicycle": ([1.70, 0.60, 1.28], -1.18),
    "pedestrian": ([0.73, 0.67, 1.77], -0.935),
    "traffic_cone": ([0.41, 0.41, 1.07], -1.285),
}
BOTTOMS = {"Car": -1.78, "Pedestrian": -0.6, "Cyclist": -0.6}
ANCHORS = {  # stride, {class: (size, bottom)}
    "pointpillar": (2, {name: (KITTI_SIZES[name], BOTTOMS[name]) for name in BOTTOMS}),
    "second": (8, {name: (KITTI_SIZES[name], BOTTOMS[name]) for name in BOTTOMS}),
    "second_multihead": (8, {name: (KITTI_SIZES[name], -1.6) for name in BOTTOMS}),
    "cbgs_pp_multihead": (4, NUSCENES),
}


def _load(goldens, name):
    return np.load(goldens / "reference" / "targets" / f"{name}.npz")


def _tensor(array):
    return torch.from_numpy(np.ascontiguousarray(array))


def _close(actual, expected, *, rtol=1e-6, atol=1e-6):
    torch.testing.assert_close(actual.detach(), _tensor(expected).to(actual.dtype), rtol=rtol, atol=atol)


# -------------------------------------------------------------------------------------------------------------- coders


@pytest.mark.parametrize(
    ("case", "size", "sincos"),
    [("res7", 7, False), ("res9", 9, False), ("res7_sincos", 7, True), ("res9_sincos", 9, True)],
)
def test_residual_coder(goldens, case, size, sincos):
    data = _load(goldens, "box_coders")
    coder = box_coder_utils.ResidualCoder(code_size=size, encode_angle_by_sincos=sincos)
    assert coder.code_size == int(data[f"{case}.code_size"])
    boxes, anchors = _tensor(data[f"{case}.gt"]), _tensor(data[f"{case}.anchors"])
    _close(coder.encode_torch(boxes, anchors), data[f"{case}.encoded"], rtol=1e-5, atol=1e-5)
    assert torch.equal(boxes, _tensor(data[f"{case}.gt"])), "the arguments must not be clamped in place"
    decoded = coder.decode_torch(_tensor(data[f"{case}.dec_in"]), _tensor(data[f"{case}.dec_anchors"]))
    _close(decoded, data[f"{case}.decoded"], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(("case", "mean"), [("pt_mean", MEAN_SIZE), ("pt_nomean", None)])
def test_point_residual_coder(goldens, case, mean):
    data = _load(goldens, "box_coders")
    coder = box_coder_utils.PointResidualCoder(use_mean_size=mean is not None, mean_size=mean)
    points, classes = _tensor(data[f"{case}.points"]), _tensor(data[f"{case}.classes"])
    encoded = coder.encode_torch(_tensor(data[f"{case}.gt"]), points, classes)
    _close(encoded, data[f"{case}.encoded"], rtol=1e-5, atol=1e-5)
    _close(coder.decode_torch(_tensor(data[f"{case}.dec_in"]), points, classes), data[f"{case}.decoded"], atol=1e-5)


@pytest.mark.parametrize(
    ("case", "name"), [("prev", "PreviousResidualDecoder"), ("prev_roi", "PreviousResidualRoIDecoder")]
)
def test_previous_decoders(goldens, case, name):
    data = _load(goldens, "box_coders")
    coder = getattr(box_coder_utils, name)()
    decoded = coder.decode_torch(_tensor(data[f"{case}.dec_in"]), _tensor(data[f"{case}.dec_anchors"]))
    _close(decoded, data[f"{case}.decoded"], atol=1e-5)


# ------------------------------------------------------------------------------------------------------------- anchors


@pytest.mark.parametrize("model", list(ANCHORS))
def test_anchors(goldens, model):
    data = _load(goldens, "anchors")
    stride, classes = ANCHORS[model]
    for i, (name, (size, bottom)) in enumerate(classes.items()):
        assert str(data[f"{model}.{i}.class_name"]) == name
        config = AnchorConfig(
            class_name=name,
            anchor_sizes=[size],
            anchor_rotations=[0, 1.57],
            anchor_bottom_heights=[bottom],
            feature_map_stride=stride,
            matched_threshold=0.6,
            unmatched_threshold=0.45,
        )
        limits, grid = data[f"{model}.range"], data[f"{model}.grid_size"]
        anchors = generate_anchors(config, grid_size=grid, point_cloud_range=limits)
        assert list(anchors.shape) == data[f"{model}.{i}.shape"].tolist()
        rows = anchors.view(-1, 7)
        for rows_of_file, own in (("first20", rows[:20]), ("last20", rows[-20:]), ("rows_1000th", rows[::1000])):
            np.testing.assert_array_equal(own.numpy(), data[f"{model}.{i}.{rows_of_file}"], err_msg=rows_of_file)
        rows = rows.double()
        error = (rows.sum(0) - _tensor(data[f"{model}.{i}.sum64"])).abs()  # y adds up to about nothing
        assert (error <= 1e-6 * rows.abs().sum(0)).all()
        _close((rows**2).sum(0), data[f"{model}.{i}.sumsq64"])


def test_the_anchors_of_a_head_stand_class_by_class_in_each_cell(goldens):
    data = _load(goldens, "anchors")
    limits = data["pointpillar.range"].tolist()
    head = build_network(tiny_model_cfg(), 3, dataset_facts(limits)).dense_head
    assert [2, 2, 2] == data["pointpillar.num_per_location"].tolist() and head.num_anchors_per_location == 6
    assert len(head.anchor_table) == int(data["pointpillar.cat.len"])
    _close(head.anchor_table[:20], data["pointpillar.cat.first20"], atol=1e-5)
    _close(head.anchor_table[-20:], data["pointpillar.cat.last20"], atol=1e-5)


# -------------------------------------------------------------------------------------------------------------- losses


def test_focal_loss(goldens):
    data = _load(goldens, "units")
    logits = _tensor(data["focal.input"]).requires_grad_()
    target, weights = _tensor(data["focal.target"]), _tensor(data["focal.weights"])
    loss = loss_utils.SigmoidFocalClassificationLoss()(logits, target, weights)
    _close(loss, data["focal.loss"])
    loss.sum().backward()
    _close(logits.grad, data["focal.grad"])


def test_smooth_l1_loss(goldens):
    data = _load(goldens, "units")
    codes = _tensor(data["smoothl1.input"]).requires_grad_()
    loss_func = loss_utils.WeightedSmoothL1Loss(code_weights=data["smoothl1.code_weights"])
    loss = loss_func(codes, _tensor(data["smoothl1.target"]), _tensor(data["smoothl1.weights"]))
    _close(loss, data["smoothl1.loss"])
    loss.sum().backward()
    _close(codes.grad, data["smoothl1.grad"])


def test_cross_entropy_loss(goldens):
    data = _load(goldens, "units")
    logits = _tensor(data["ce.input"]).requires_grad_()
    target, weights = _tensor(data["ce.target"]), _tensor(data["ce.weights"])
    loss = loss_utils.WeightedCrossEntropyLoss()(logits, target, weights)
    _close(loss, data["ce.loss"])
    loss.sum().backward()
    _close(logits.grad, data["ce.grad"])


def test_corner_loss(goldens):
    data = _load(goldens, "units")
    boxes = _tensor(data["corner.pred"]).requires_grad_()
    loss = loss_utils.get_corner_loss_lidar(boxes, _tensor(data["corner.gt"]))
    _close(loss, data["corner.loss"], rtol=1e-5, atol=1e-5)
    loss.sum().backward()
    _close(boxes.grad, data["corner.grad"], rtol=1e-5, atol=1e-5)


def test_sin_difference(goldens):
    data = _load(goldens, "units")
    first, second = loss_utils.add_sin_difference(_tensor(data["sindiff.a"]), _tensor(data["sindiff.b"]))
    _close(first, data["sindiff.a_out"])
    _close(second, data["sindiff.b_out"])


def test_direction_bins(goldens):
    data = _load(goldens, "units")
    heading = _tensor(data["dir.anchors"])[..., 6] + _tensor(data["dir.reg_targets"])[..., 6]
    bins = DirectionBins(num_bins=2, offset=0.78539, limit_offset=0.0).bin_of(heading)
    _close(torch.nn.functional.one_hot(bins, 2).float(), data["dir.onehot"])


def test_gaussian_radius_and_heatmap(goldens):
    data = _load(goldens, "units")
    height, width = _tensor(data["gauss.h"]), _tensor(data["gauss.w"])
    for overlap in (0.1, 0.5):
        _close(gaussian_radius(height, width, overlap), data[f"gauss.radius_{overlap}"], rtol=1e-5)
    heatmap = torch.zeros(*data["heat.map"].shape)
    for center, radius in zip(data["heat.centers_xy"], data["heat.radius"], strict=True):
        draw_gaussian_to_heatmap(heatmap, _tensor(center), int(radius))
    _close(heatmap, data["heat.map"])


# ------------------------------------------------------------------------------------------------------------ assigner

EDGE_CASES = (
    "no_gt_in_second_sample",
    "all_empty",
    "single_each",
    "one_class_only",
    "duplicate_gts",
    "gt_outside_grid",
    "gt_equal_to_anchor",
    "zero_row_in_the_middle",
)


@pytest.mark.parametrize("case", EDGE_CASES)
def test_assigner_edge_cases(goldens, case):
    data = _load(goldens, "assigner_edge")
    head = build_network(tiny_model_cfg(), 3, dataset_facts(SMALL_RANGE)).dense_head
    targets = head.assign_targets(_tensor(data[f"{case}.gt"]))
    labels = targets["box_cls_labels"].numpy()
    np.testing.assert_array_equal(labels, data[f"{case}.labels"])
    counts = [[int((row == value).sum()) for value in (-1, 0, 1, 2, 3)] for row in labels]
    assert counts == data[f"{case}.hist"].tolist()
    positive = torch.from_numpy(labels > 0)
    _close(targets["box_reg_targets"][positive], data[f"{case}.pos_reg_targets"], rtol=1e-5, atol=1e-5)
    assert not targets["box_reg_targets"][~positive].any()
    assert torch.equal(targets["reg_weights"], positive.float())
