"""Anchors and their targets: exact counts, and labels equal to those from the full matrix of overlaps."""

import numpy as np
import pytest
import torch
from models.pointpillars import CLASS_NAMES, SMALL_RANGE, dataset_facts

from pcdet.models.dense_heads.target_assigner import AxisAlignedTargetAssigner
from pcdet.models.dense_heads.target_assigner.anchor_generator import AnchorConfig, generate_anchors
from pcdet.registry import ConfigError, parse_node
from pcdet.utils import box_utils

SIZES = {"Car": [3.9, 1.6, 1.56], "Pedestrian": [0.8, 0.6, 1.73], "Cyclist": [1.76, 0.6, 1.73]}


def _config(name="Car", **changes):
    values = dict(
        class_name=name,
        anchor_sizes=[SIZES[name]],
        anchor_rotations=[0, 1.57],
        anchor_bottom_heights=[-1.78],
        feature_map_stride=2,
        matched_threshold=0.6 if name == "Car" else 0.5,
        unmatched_threshold=0.45 if name == "Car" else 0.35,
    )
    return AnchorConfig(**{**values, **changes})


# ------------------------------------------------------------------------------------------------------------- anchors


@pytest.mark.parametrize("align_center", [False, True])
@pytest.mark.parametrize("cell", [0.05, 0.16, 0.2, 0.32])
def test_the_number_of_anchors_is_that_of_the_cells(cell, align_center):
    for cells in range(2, 420, 46):
        limits = [0.1, -cells * cell / 2, -3, 0.1 + cells * cell, cells * cell / 2, 1]
        config = _config(align_center=align_center, feature_map_stride=1)
        anchors = generate_anchors(config, grid_size=[cells, cells, 1], point_cloud_range=limits)
        assert anchors.shape == (1, cells, cells, 1, 2, 7)


def test_anchors_begin_and_end_on_the_range_unless_centred():
    options = dict(grid_size=[8, 4, 1], point_cloud_range=[0, -1, -3, 4, 1, 1])
    edges = generate_anchors(_config(), **options)
    assert edges[0, 0, :, 0, 0, 0].tolist() == pytest.approx([0, 4 / 3, 8 / 3, 4])
    assert edges[0, :, 0, 0, 0, 1].tolist() == [-1, 1]
    centred = generate_anchors(_config(align_center=True), **options)
    assert centred[0, 0, :, 0, 0, 0].tolist() == [0.5, 1.5, 2.5, 3.5]
    assert centred[0, :, 0, 0, 0, 1].tolist() == [-0.5, 0.5]


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX2", reason="torch.arange rounds otherwise on this CPU"
)
@pytest.mark.parametrize("align_center", [False, True])
def test_positions_are_those_of_arange_to_the_last_bit(align_center):
    for cells in (4, 23, 24, 33, 256):
        limits = np.array([-51.2, -9.6, -5, 51.2, 9.6, 3], dtype=np.float32)
        config = _config(align_center=align_center, feature_map_stride=1)
        anchors = generate_anchors(config, grid_size=[cells, cells, 1], point_cloud_range=limits)[0]
        for axis, own in ((0, anchors[0, :, 0, 0, 0]), (1, anchors[:, 0, 0, 0, 1])):
            low, high = limits[axis], limits[axis + 3]
            step = (high - low) / np.int64(cells if align_center else cells - 1)
            first = low + (step / 2 if align_center else 0)
            expected = torch.arange(first, first + (cells - 0.5) * step, step, dtype=torch.float32)
            assert torch.equal(own, expected)


def test_anchors_hold_size_rotation_and_height():
    config = _config(anchor_sizes=[[4, 2, 1], [1, 1, 2]], anchor_rotations=[0, 0.5, 1])
    anchors = generate_anchors(config, grid_size=[4, 4, 1], point_cloud_range=[0, -1, -3, 4, 1, 1], box_size=9)
    assert anchors.shape == (1, 2, 2, 2, 3, 9)
    assert anchors[0, 1, 1, 1, 2].tolist() == pytest.approx([4, 1, -1.78 + 1, 1, 1, 2, 1, 0, 0])
    assert anchors[0, 1, 1, 0, 1, 2:7].tolist() == pytest.approx([-1.78 + 0.5, 4, 2, 1, 0.5])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"anchor_sizes": []}, "ANCHOR_SIZES: must be positive"),
        ({"anchor_sizes": [[1, 0, 1]]}, "ANCHOR_SIZES: must be positive"),
        ({"anchor_rotations": []}, "ANCHOR_ROTATIONS: must name at least one"),
        ({"anchor_bottom_heights": [0, 1]}, "write one entry for each height"),
        ({"feature_map_stride": 0}, "FEATURE_MAP_STRIDE: must be at least 1, got 0"),
        ({"matched_threshold": 0.3}, "not below UNMATCHED_THRESHOLD, got 0.3 and 0.45"),
    ],
)
def test_impossible_anchors_are_named_with_their_path(changes, message):
    node = {**{k: getattr(_config(), k) for k in AnchorConfig.__dataclass_fields__}, **changes}
    with pytest.raises(ConfigError, match=message) as error:
        parse_node(node, AnchorConfig, path="MODEL.X[0]")
    assert error.value.problems[0].startswith("MODEL.X[0].")


def test_a_stride_must_divide_the_grid():
    with pytest.raises(ValueError, match=r"FEATURE_MAP_STRIDE of Car must divide the voxel grid \[5, 4\], got 2"):
        generate_anchors(_config(), grid_size=[5, 4, 1], point_cloud_range=[0, -1, -3, 4, 1, 1])


# ------------------------------------------------------------------------------------------------------------ assigner


def _assigner(configs, **options):
    return AxisAlignedTargetAssigner(class_names=CLASS_NAMES, anchor_configs=configs, **options)


def _grid(configs, limits=SMALL_RANGE):
    facts = dataset_facts(limits)
    parts = [generate_anchors(c, grid_size=facts.grid_size, point_cloud_range=limits)[0].flatten(2, 3) for c in configs]
    return torch.cat(parts, dim=2)


def _full_matrix_labels(anchors, configs, boxes):
    """OpenPCDet's rule written down plainly, for one frame: labels, and for positives the object's index."""
    columns = [c for c in configs for _ in range(c.num_per_location)]
    rows = anchors.reshape(-1, 7)
    labels, owner = np.zeros(len(rows), dtype=int), np.full(len(rows), -1)
    for c in configs:
        mine = np.array([columns[i % len(columns)] is c for i in range(len(rows))])
        label = CLASS_NAMES.index(c.class_name) + 1
        gts = np.flatnonzero(boxes[:, 7].numpy() == label)
        if not len(gts):
            continue
        overlap = box_utils.boxes3d_nearest_bev_iou(rows[mine], boxes[gts]).numpy()
        best, best_gt = overlap.max(1), overlap.argmax(1)
        forced = ((overlap == overlap.max(0)) & (overlap.max(0) > 0)).any(1)
        positive = forced | (best >= np.float32(c.matched_threshold))
        background = best < np.float32(c.unmatched_threshold)
        labels[mine] = np.where(positive, label, np.where(background, 0, -1))
        owner[mine] = np.where(positive, gts[best_gt], -1)
    return labels, owner


def _random_boxes(rng, num, spread=1.0):
    low, high = np.array(SMALL_RANGE[:2]), np.array(SMALL_RANGE[3:5])
    rows = []
    for _ in range(num):
        label = int(rng.integers(1, 4))
        size = np.array(SIZES[CLASS_NAMES[label - 1]]) * rng.uniform(0.8, 1.2, 3)
        centre = (low + high) / 2 + (rng.uniform(-0.55, 0.55, 2) * (high - low)) * spread
        rows.append([*centre, -0.9, *size, rng.uniform(-7, 7), label])
    return torch.tensor(np.array(rows).reshape(-1, 8), dtype=torch.float32)


@pytest.mark.parametrize("seed", range(8))
def test_targets_equal_those_of_the_full_matrix(seed):
    rng = np.random.default_rng(seed)
    configs = [
        _config("Car", anchor_sizes=[SIZES["Car"], [2.0, 2.0, 1.5]]),
        _config("Pedestrian", anchor_rotations=[0.3]),
        _config("Cyclist"),
    ]
    anchors = _grid(configs)
    frames = [_random_boxes(rng, n, spread=(1.0, 0.15)[seed % 2]) for n in (12, 0, 5)]
    gt_boxes = torch.zeros(3, 12, 8)
    for row, boxes in zip(gt_boxes, frames, strict=True):
        row[: len(boxes)] = boxes
    assigner = _assigner(configs)
    targets = assigner.assign_targets(anchors, gt_boxes)
    for i, boxes in enumerate(frames):
        labels, owner = _full_matrix_labels(anchors, configs, boxes)
        np.testing.assert_array_equal(targets.box_cls_labels[i].numpy(), labels)
        positive = torch.from_numpy(labels > 0)
        expected = assigner.box_coder.encode(boxes[owner[positive.numpy()], :7], anchors.reshape(-1, 7)[positive])
        assert torch.equal(targets.box_reg_targets[i][positive], expected)
        assert not targets.box_reg_targets[i][~positive].any()
        assert torch.equal(targets.reg_weights[i], positive.float())


def test_every_object_on_the_grid_gets_an_anchor():
    configs = [_config(name) for name in CLASS_NAMES]
    boxes = _random_boxes(np.random.default_rng(3), 9, spread=0.8)
    labels = _assigner(configs).assign_targets(_grid(configs), boxes[None]).box_cls_labels[0]
    for label in boxes[:, 7].unique():
        assert (labels == label).any()


def test_padding_rows_and_their_place_do_not_matter():
    configs = [_config(name) for name in CLASS_NAMES]
    boxes, anchors = _random_boxes(np.random.default_rng(4), 6), _grid(configs)
    padded = torch.zeros(1, 9, 8)
    padded[0, [0, 2, 3, 5, 6, 8]] = boxes
    for own, other in zip(
        _assigner(configs).assign_targets(anchors, boxes[None]),
        _assigner(configs).assign_targets(anchors, padded),
        strict=True,
    ):
        assert torch.equal(own, other)


def test_no_objects_and_no_columns_are_all_background():
    configs = [_config(name) for name in CLASS_NAMES]
    for gt_boxes in (torch.zeros(2, 0, 8), torch.zeros(2, 3, 8)):
        targets = _assigner(configs).assign_targets(_grid(configs), gt_boxes)
        assert targets.box_cls_labels.shape[0] == 2 and not targets.box_cls_labels.any()
        assert not targets.reg_weights.any()


def test_normalised_weights_divide_by_the_anchors_that_count():
    configs = [_config(name) for name in CLASS_NAMES]
    boxes, anchors = _random_boxes(np.random.default_rng(5), 6), _grid(configs)
    targets = _assigner(configs, norm_by_num_examples=True).assign_targets(anchors, boxes[None])
    labels, weights = targets.box_cls_labels[0], targets.reg_weights[0]
    assert torch.equal(weights, (labels > 0).float() / (labels >= 0).sum())


def test_matching_by_height_sees_the_rotation_and_the_height():
    configs = [_config("Car", matched_threshold=0.9, unmatched_threshold=0.8)]
    anchors = _grid(configs)
    anchor = anchors[20, 30, 0]
    boxes = anchor.repeat(1, 1, 1)
    boxes = torch.cat((boxes, torch.ones(1, 1, 1)), dim=-1)
    by_height = _assigner(configs, match_height=True)
    labels = by_height.assign_targets(anchors, boxes).box_cls_labels[0].view(anchors.shape[:3])
    assert labels[20, 30, 0] == 1 and (labels > 0).sum() == 1
    lifted = boxes.clone()
    lifted[..., 2] += 5
    assert not by_height.assign_targets(anchors, lifted).box_cls_labels.any()
    assert _assigner(configs).assign_targets(anchors, lifted).box_cls_labels.any()


def test_boxes_with_velocities_meet_a_plain_coder():
    configs = [_config("Car")]
    boxes = torch.cat((_grid(configs)[20, 30, 0], torch.tensor([3.0, 4.0, 1.0])))[None, None]
    targets = _assigner(configs).assign_targets(_grid(configs), boxes)
    assert targets.box_reg_targets.shape[-1] == 7 and targets.box_cls_labels.max() == 1


def test_assigner_errors():
    with pytest.raises(ValueError, match="POS_FRACTION must be negative"):
        _assigner([_config()], pos_fraction=0.5)
    with pytest.raises(ValueError, match=r"anchors of \['Car'\] are for none of CLASS_NAMES \['Van'\]"):
        AxisAlignedTargetAssigner(class_names=["Van"], anchor_configs=[_config()])
    with pytest.raises(ConfigError, match="unknown box coder 'ResidualCode'; did you mean ResidualCoder"):
        _assigner([_config()], box_coder="ResidualCode")
