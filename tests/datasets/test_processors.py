"""Steps of DATA_PROCESSOR and the point features."""

import numpy as np
import pytest

from pcdet.datasets.processor import DataProcessor
from pcdet.registry import POINT_ENCODERS, PROCESSORS, ConfigError, build_from_cfg

RANGE = np.array([0, -40, -3, 70.4, 40, 1], dtype=np.float32)
VOXELS = {
    "NAME": "transform_points_to_voxels",
    "VOXEL_SIZE": [0.16, 0.16, 4],
    "MAX_POINTS_PER_VOXEL": 3,
    "MAX_NUMBER_OF_VOXELS": {"train": 5, "test": 50},
}


def build(node, training=True, limits=RANGE):
    return build_from_cfg(
        node, PROCESSORS, point_cloud_range=limits, training=training, num_point_features=4, mode="train"
    )


def rng(seed=0):
    return np.random.default_rng(seed)


def cloud(n, seed=0):
    draw = rng(seed)
    xyz = draw.uniform([-5, -45, -5], [80, 45, 3], (n, 3))
    return np.column_stack([xyz, np.arange(n)]).astype(np.float32)


# ---------------------------------------------------------------------------------------------------------- range mask


def test_the_range_mask_includes_both_ends_and_ignores_z():
    points = np.array([[0, -40, 9, 0], [70.4, 40, -9, 1], [-0.01, 0, 0, 2], [1, 40.01, 0, 3]], dtype=np.float32)
    step = build({"NAME": "mask_points_and_boxes_outside_range", "REMOVE_OUTSIDE_BOXES": True})
    assert step({"points": points}, rng())["points"][:, 3].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("training", "remove", "kept"), [(True, True, [1, 3]), (False, True, [1, 2, 3]), (True, False, [1, 2, 3])]
)
def test_boxes_outside_are_dropped_in_training_only(training, remove, kept):
    boxes = np.array(
        [[5, 0, 0, 4, 2, 1, 0, 1], [-1, 0, 0, 4, 2, 1, 0, 2], [70, 39, 0.9, 4, 2, 1, 0, 3]], dtype=np.float32
    )
    step = build({"NAME": "mask_points_and_boxes_outside_range", "REMOVE_OUTSIDE_BOXES": remove}, training)
    sample = step({"points": cloud(5), "gt_boxes": boxes, "gt_boxes2d": boxes[:, :4]}, rng())
    assert sample["gt_boxes"][:, 7].tolist() == kept
    assert len(sample["gt_boxes2d"]) == len(kept)


def test_boxes_may_be_judged_by_their_corners():
    boxes = np.array([[-1, 0, 0, 4, 2, 1, 0, 1], [-3, 0, 0, 4, 2, 1, 0, 2]], dtype=np.float32)
    node = {
        "NAME": "mask_points_and_boxes_outside_range",
        "REMOVE_OUTSIDE_BOXES": True,
        "USE_CENTER_TO_FILTER": False,
        "min_num_corners": 2,
    }
    assert build(node)({"points": cloud(1), "gt_boxes": boxes}, rng())["gt_boxes"][:, 7].tolist() == [1]


# --------------------------------------------------------------------------------------------------- order and sampling


def test_shuffling_changes_the_order_and_nothing_else():
    node = {"NAME": "shuffle_points", "SHUFFLE_ENABLED": {"train": True, "test": False}}
    points = cloud(100)
    shuffled = build(node)({"points": points}, rng())["points"]
    assert not np.array_equal(shuffled, points)
    np.testing.assert_array_equal(shuffled[shuffled[:, 3].argsort()], points)
    assert build(node, training=False)({"points": points}, rng())["points"] is points


def sample_to(n, points, seed=0):
    node = {"NAME": "sample_points", "NUM_POINTS": {"train": n, "test": -1}}
    return build(node)({"points": points}, rng(seed))["points"]


@pytest.mark.parametrize("have", [1, 3, 99, 100, 101, 199, 200, 201, 1000])
def test_sampling_gives_the_number_that_is_asked_for(have):
    points = cloud(have)
    out = sample_to(100, points)
    assert out.shape == (100, 4)
    used, counts = np.unique(out[:, 3], return_counts=True)
    assert len(used) == min(have, 100), "all of too few are used, none of too many twice"
    if have >= 50:
        assert counts.max() <= 2
    np.testing.assert_array_equal(points[out[:, 3].astype(int)], out)


def test_sampling_keeps_all_far_points_unless_they_are_too_many():
    points = cloud(1000)
    far = points[np.linalg.norm(points[:, :3], axis=1) >= 40]
    out = sample_to(len(far) + 10, points)
    assert set(far[:, 3]) <= set(out[:, 3])
    assert len(np.unique(sample_to(len(far) - 10, points)[:, 3])) == len(far) - 10


def test_an_empty_cloud_becomes_zeros_and_minus_one_leaves_the_points_alone():
    np.testing.assert_array_equal(sample_to(4, cloud(0)), np.zeros((4, 4)))
    points = cloud(5)
    node = {"NAME": "sample_points", "NUM_POINTS": {"train": 4, "test": -1}}
    assert build(node, training=False)({"points": points}, rng())["points"] is points
    with pytest.raises(ConfigError, match="NUM_POINTS"):
        sample_to(0, points)


# --------------------------------------------------------------------------------------------------------------- grids


@pytest.mark.parametrize("name", ["transform_points_to_voxels_placeholder", "calculate_grid_size"])
def test_placeholders_lay_the_grid_and_leave_the_points_alone(name):
    step = build({"NAME": name, "VOXEL_SIZE": [0.05, 0.05, 0.1]})
    assert step.grid_size.tolist() == [1408, 1600, 40] and step.grid_size.dtype == np.int64
    sample = {"points": cloud(3)}
    assert step(sample, rng()) is sample


def naive_voxels(points, size, limits, max_points, max_voxels):
    """First come, first served, in plain Python."""
    voxels, order = {}, []
    grid = np.round((limits[3:] - limits[:3]) / size).astype(int)
    for point in points:
        cell = np.floor((point[:3] - limits[:3]) / size).astype(int)
        if (cell < 0).any() or (cell >= grid).any():
            continue
        key = tuple(cell[::-1])
        if key not in voxels:
            if len(order) == max_voxels:
                continue
            voxels[key] = []
            order.append(key)
        if len(voxels[key]) < max_points:
            voxels[key].append(point)
    return order, [voxels[key] for key in order]


@pytest.mark.parametrize("training", [True, False])
def test_voxels_equal_a_plain_python_loop(training):
    limits = np.array([0, 0, -3, 4, 4, 1], dtype=np.float32)
    points = np.column_stack([rng(1).uniform(-0.5, 4.5, (300, 3)) - [0, 0, 2], np.arange(300)]).astype(np.float32)
    node = {**VOXELS, "VOXEL_SIZE": [1.0, 1.0, 4.0], "MAX_NUMBER_OF_VOXELS": {"train": 5, "test": 50}}
    sample = build(node, training, limits)({"points": points}, rng())
    size = np.array([1, 1, 4], dtype=np.float32)
    order, expected = naive_voxels(points, size, limits, 3, 5 if training else 50)
    assert sample["voxel_coords"].tolist() == [list(map(int, key)) for key in order]
    assert sample["voxel_num_points"].tolist() == [len(rows) for rows in expected]
    for voxel, rows in zip(sample["voxels"], expected, strict=True):
        np.testing.assert_array_equal(voxel[: len(rows)], rows)
        assert (voxel[len(rows) :] == 0).all()


def test_an_empty_cloud_has_no_voxels():
    sample = build(VOXELS)({"points": cloud(0)}, rng())
    assert sample["voxels"].shape == (0, 3, 4) and sample["voxel_coords"].shape == (0, 3)


def test_the_processor_runs_the_steps_in_order_and_tells_the_grid():
    nodes = [{"NAME": "mask_points_and_boxes_outside_range", "REMOVE_OUTSIDE_BOXES": True}, VOXELS]
    processor = DataProcessor(nodes, RANGE, training=True, num_point_features=4)
    assert processor.grid_size.tolist() == [440, 500, 1] and processor.voxel_size == [0.16, 0.16, 4.0]
    assert len(processor.forward({"points": cloud(50)}, rng())["voxels"]) == 5
    bare = DataProcessor(nodes[:1], RANGE, training=False, num_point_features=4)
    assert bare.grid_size is None and bare.voxel_size is None and bare.mode == "test"


# ------------------------------------------------------------------------------------------------------------ features


def encoder(**options):
    node = {
        "NAME": "absolute_coordinates_encoding",
        "used_feature_list": ["x", "y", "z", "intensity"],
        "src_feature_list": ["x", "y", "z", "intensity", "timestamp"],
        **options,
    }
    return build_from_cfg(node, POINT_ENCODERS, point_cloud_range=RANGE)


def test_features_are_picked_by_name():
    points = np.arange(10, dtype=np.float32).reshape(2, 5)
    sample = encoder(used_feature_list=["x", "y", "z", "timestamp"]).forward({"points": points})
    np.testing.assert_array_equal(sample["points"], points[:, [0, 1, 2, 4]])
    assert sample["use_lead_xyz"] is True
    assert encoder().num_point_features == 4


def test_sweeps_are_filtered_by_time():
    points = np.zeros((4, 5), dtype=np.float32)
    points[:, 4] = [0.0, 0.1, 0.05, 0.0]
    one = encoder(filter_sweeps=True, max_sweeps=1).forward({"points": points})["points"]
    two = encoder(filter_sweeps=True, max_sweeps=2).forward({"points": points})["points"]
    assert (len(one), len(two)) == (2, 3)
    assert len(encoder(filter_sweeps=True, max_sweeps=2).forward({"points": points[:0]})["points"]) == 0


def test_wrong_features_are_named():
    with pytest.raises(ConfigError, match="'elongation' is not in src_feature_list"):
        encoder(used_feature_list=["x", "y", "z", "elongation"])
    with pytest.raises(ConfigError, match="must begin with x, y, z"):
        encoder(used_feature_list=["y", "x", "z"])
    with pytest.raises(ConfigError, match="needs 'timestamp'"):
        encoder(src_feature_list=["x", "y", "z", "intensity"], filter_sweeps=True)
    with pytest.raises(ValueError, match="frame 7: points have 4 features, but src_feature_list names 5"):
        encoder().forward({"points": cloud(2), "frame_id": 7})
