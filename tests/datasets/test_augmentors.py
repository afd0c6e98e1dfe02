"""Augmentors: what moves moves together, what is drawn comes from the generator, nothing else changes."""

import numpy as np
import pytest
from support import kitti_files
from support.kitti_files import CAR, CYCLIST, PEDESTRIAN

from pcdet.datasets.augmentor import DataAugmentor
from pcdet.datasets.augmentor.pyramid import faces_of, from_local, to_local
from pcdet.registry import AUGMENTORS, ConfigError, build_from_cfg
from pcdet.utils.box_utils import boxes_to_corners_3d, points_in_boxes_mask

WORLD = {
    "flip x": {"NAME": "random_world_flip", "ALONG_AXIS_LIST": ["x"]},
    "flip y": {"NAME": "random_world_flip", "ALONG_AXIS_LIST": ["y"]},
    "flip both": {"NAME": "random_world_flip", "ALONG_AXIS_LIST": ["x", "y"]},
    "rotation": {"NAME": "random_world_rotation", "WORLD_ROT_ANGLE": [-0.785, 0.785]},
    "rotation by one number": {"NAME": "random_world_rotation", "WORLD_ROT_ANGLE": 3},
    "scaling": {"NAME": "random_world_scaling", "WORLD_SCALE_RANGE": [0.9, 1.1]},
    "narrow scaling": {"NAME": "random_world_scaling", "WORLD_SCALE_RANGE": [1.0, 1.0]},
    "translation": {"NAME": "random_world_translation", "NOISE_TRANSLATE_STD": [1.0, 0.5, 0.2]},
    "translation by one number": {"NAME": "random_world_translation", "NOISE_TRANSLATE_STD": 0.3},
}
LOCAL = {
    "translation": {
        "NAME": "random_local_translation",
        "LOCAL_TRANSLATION_RANGE": [0.2, 0.5],
        "ALONG_AXIS_LIST": ["x", "z"],
    },
    "rotation": {"NAME": "random_local_rotation", "LOCAL_ROT_ANGLE": [0.2, 0.5]},
    "scaling": {"NAME": "random_local_scaling", "LOCAL_SCALE_RANGE": [1.1, 1.2]},
}
DROPOUT = {"INTENSITY_RANGE": [0.3, 0.3], "DIRECTION": ["top"]}


def build(node):
    return build_from_cfg(node, AUGMENTORS, root_path=None, class_names=["Car"], logger=None)


def scene(columns=9, background=100, seed=0):
    """Three objects with 27 points each, in the order of the boxes, then background. Velocities along the headings."""
    boxes = np.array([CAR, PEDESTRIAN, CYCLIST], dtype=np.float32)
    velocity = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6])], 1) * [[3], [1], [2]]
    boxes = np.concatenate([boxes, velocity], 1)[:, :columns].astype(np.float32)
    rng = np.random.default_rng(seed)
    ground = np.column_stack([rng.uniform(35, 60, background), rng.uniform(-30, 30, (background, 3))])
    points = [kitti_files.grid_inside(box) for box in boxes[:, :7]]
    return {
        "frame_id": "000000",
        "points": np.concatenate([*points, ground.astype(np.float32)]).astype(np.float32),
        "gt_boxes": boxes,
        "gt_names": np.array(["Car", "Pedestrian", "Cyclist"]),
    }


def inside_shape(sample):
    """Each object's 27 points in its own box's frame, divided by its half sizes."""
    points, boxes = sample["points"].astype(np.float64), sample["gt_boxes"].astype(np.float64)
    return np.stack([to_local(points[27 * i : 27 * i + 27, :3], box) for i, box in enumerate(boxes)])


# --------------------------------------------------------------------------------------------------------- whole scene


@pytest.mark.parametrize("node", WORLD.values(), ids=WORLD)
@pytest.mark.parametrize("seed", range(4))
def test_world_moves_keep_points_in_their_boxes_and_write_the_move_down(node, seed):
    before, after = scene(), build(node)(scene(), np.random.default_rng(seed))
    matrix = after.get("lidar_aug_matrix", np.eye(4))
    # the recorded matrix carries points, corners and velocities from before to after
    moved = before["points"][:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(after["points"][:, :3], moved, atol=1e-4)
    np.testing.assert_array_equal(after["points"][:, 3], before["points"][:, 3])
    corners = boxes_to_corners_3d(before["gt_boxes"]) @ matrix[:3, :3].T + matrix[:3, 3]
    flat = boxes_to_corners_3d(after["gt_boxes"])
    for a, b in zip(flat, corners, strict=True):  # a reflection renumbers the corners
        distance = np.linalg.norm(a[:, None] - b[None], axis=-1)
        assert distance.min(axis=1).max() < 1e-4
    np.testing.assert_allclose(after["gt_boxes"][:, 7:], before["gt_boxes"][:, 7:] @ matrix[:2, :2].T, atol=1e-5)
    # velocities still point along the headings
    heading = np.stack([np.cos(after["gt_boxes"][:, 6]), np.sin(after["gt_boxes"][:, 6])], 1)
    speed = np.linalg.norm(after["gt_boxes"][:, 7:], axis=1, keepdims=True)
    np.testing.assert_allclose(after["gt_boxes"][:, 7:], heading * speed, atol=1e-5)


def test_the_matrix_composes_the_moves_in_the_order_in_which_they_happen():
    chain = [WORLD[name] for name in ("translation", "flip x", "rotation", "scaling", "flip both")]
    augmentor = DataAugmentor(None, chain, ["Car"])
    for seed in range(6):
        before, after = scene(), augmentor.forward(scene(), np.random.default_rng(seed))
        matrix = after["lidar_aug_matrix"].astype(np.float64)
        moved = before["points"][:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
        np.testing.assert_allclose(after["points"][:, :3], moved, atol=2e-4)


def test_a_flip_along_x_alone_is_recorded():
    augmentor = build(WORLD["flip x"])
    flips = []
    for seed in range(200):
        sample = augmentor(scene(), np.random.default_rng(seed))
        flips.append(sample["flip_x"])
        expected = np.diag([1, -1, 1, 1]) if sample["flip_x"] else np.eye(4)
        np.testing.assert_array_equal(sample.get("lidar_aug_matrix", np.eye(4)), expected)
    assert 70 < sum(flips) < 130


def test_a_flip_by_hand():
    sample = scene()
    flipped = None
    seed = 0
    while flipped is None or not flipped["flip_x"]:
        flipped = build(WORLD["flip x"])(scene(), np.random.default_rng(seed))
        seed += 1
    np.testing.assert_allclose(flipped["gt_boxes"][:, 1], -sample["gt_boxes"][:, 1])
    np.testing.assert_allclose(flipped["gt_boxes"][:, 6], -sample["gt_boxes"][:, 6], atol=1e-6)
    np.testing.assert_allclose(flipped["points"][:, 1], -sample["points"][:, 1])


def test_drawn_numbers_are_recorded_and_lie_in_their_ranges():
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert abs(build(WORLD["rotation"])(scene(), rng)["noise_rot"]) <= 0.785
        assert 0.9 <= build(WORLD["scaling"])(scene(), rng)["noise_scale"] <= 1.1
        assert build(WORLD["translation"])(scene(), rng)["noise_translate"].shape == (3,)
    assert build(WORLD["narrow scaling"])(scene(), rng)["noise_scale"] == 1.0


# ------------------------------------------------------------------------------------------------------------- objects


@pytest.mark.parametrize("node", LOCAL.values(), ids=LOCAL)
@pytest.mark.parametrize("columns", [7, 9])
def test_local_moves_carry_the_points_with_the_box(node, columns):
    before, after = scene(columns), build(node)(scene(columns), np.random.default_rng(1))
    np.testing.assert_allclose(inside_shape(after), inside_shape(before), atol=1e-4)
    np.testing.assert_array_equal(after["points"][81:], before["points"][81:])
    assert not np.allclose(after["gt_boxes"][:, :7], before["gt_boxes"][:, :7])
    assert "lidar_aug_matrix" not in after


def test_each_object_moves_by_itself_and_only_along_the_given_axes():
    before, after = scene(), build(LOCAL["translation"])(scene(), np.random.default_rng(2))
    step = after["gt_boxes"][:, :3] - before["gt_boxes"][:, :3]
    assert (step[:, 1] == 0).all() and len(np.unique(step[:, 0])) == 3
    assert (step[:, [0, 2]] >= 0.199).all() and (step[:, [0, 2]] <= 0.501).all()


def test_an_objects_velocity_turns_with_it_and_does_not_grow_with_it():
    before = scene()
    turned = build(LOCAL["rotation"])(scene(), np.random.default_rng(3))["gt_boxes"]
    speed = np.linalg.norm(before["gt_boxes"][:, 7:], axis=1)
    np.testing.assert_allclose(turned[:, 7], speed * np.cos(turned[:, 6]), atol=1e-5)
    larger = build(LOCAL["scaling"])(scene(), np.random.default_rng(3))["gt_boxes"]
    np.testing.assert_array_equal(larger[:, 7:], before["gt_boxes"][:, 7:])
    assert (larger[:, 3:6] > before["gt_boxes"][:, 3:6] * 1.09).all()


@pytest.mark.parametrize(
    ("direction", "axis", "sign"), [("top", 2, 1), ("bottom", 2, -1), ("left", 1, 1), ("right", 1, -1)]
)
def test_world_dropout_cuts_one_side_off_points_boxes_and_names(direction, axis, sign):
    node = {"NAME": "random_world_frustum_dropout", "INTENSITY_RANGE": [0.4, 0.4], "DIRECTION": [direction]}
    before, after = scene(), build(node)(scene(), np.random.default_rng(0))
    values = before["points"][:, axis] * sign
    limit = values.max() - 0.4 * (values.max() - values.min())
    np.testing.assert_array_equal(after["points"], before["points"][values < limit])
    kept = before["gt_boxes"][:, axis] * sign < limit
    np.testing.assert_array_equal(after["gt_boxes"], before["gt_boxes"][kept])
    np.testing.assert_array_equal(after["gt_names"], before["gt_names"][kept])


@pytest.mark.parametrize(("direction", "axis", "sign"), [("top", 2, 1), ("bottom", 2, -1)])
def test_local_dropout_cuts_one_side_of_each_object(direction, axis, sign):
    node = {"NAME": "random_local_frustum_dropout", "INTENSITY_RANGE": [0.4, 0.4], "DIRECTION": [direction]}
    before, after = scene(), build(node)(scene(), np.random.default_rng(0))
    np.testing.assert_array_equal(after["gt_boxes"], before["gt_boxes"])
    counts = points_in_boxes_mask(after["points"], after["gt_boxes"]).sum(axis=1)
    assert counts.tolist() == [18, 18, 18]  # one of three layers is gone
    np.testing.assert_array_equal(after["points"][54:], before["points"][81:])


# ------------------------------------------------------------------------------------------------------------ pyramids


def pyramid(**options):
    base = {"DROP_PROB": 0.0, "SPARSIFY_PROB": 0.0, "SWAP_PROB": 0.0, "SPARSIFY_MAX_NUM": 3, "SWAP_MAX_NUM": 2}
    return build({"NAME": "random_local_pyramid_aug", **base, **options})


def test_faces_and_local_coordinates():
    local = np.array([[0.9, 0.1, 0], [-0.9, 0, 0.5], [0, 0.8, 0.1], [0, -0.8, 0.1], [0, 0, 0.3], [0.1, 0, -0.3]])
    assert faces_of(local).tolist() == [0, 1, 2, 3, 4, 5]
    box = np.array(CAR)
    np.testing.assert_allclose(to_local(from_local(local, box), box), local, atol=1e-12)


def test_pyramid_dropping_takes_one_face_of_every_object():
    sample = pyramid(DROP_PROB=1.0)(scene(), np.random.default_rng(0))
    counts = points_in_boxes_mask(sample["points"], sample["gt_boxes"]).sum(axis=1)
    assert ((counts < 27) & (counts >= 27 - 9)).all()


def test_pyramid_thinning_leaves_at_most_so_many_points_on_a_face():
    sample = pyramid(SPARSIFY_PROB=1.0)(scene(), np.random.default_rng(0))
    counts = points_in_boxes_mask(sample["points"], sample["gt_boxes"]).sum(axis=1)
    assert ((counts < 27) & (counts >= 27 - 6)).all()


def test_pyramid_swapping_keeps_points_in_boxes_and_their_number():
    before, after = scene(), pyramid(SWAP_PROB=1.0)(scene(), np.random.default_rng(0))
    assert len(after["points"]) == len(before["points"])
    inside = points_in_boxes_mask(after["points"], after["gt_boxes"]).sum()
    assert inside == 81
    assert not np.array_equal(np.sort(after["points"], axis=0), np.sort(before["points"], axis=0))


def test_pyramids_left_alone_change_nothing():
    after = pyramid()(scene(), np.random.default_rng(0))
    np.testing.assert_array_equal(after["points"], scene()["points"])


# ------------------------------------------------------------------------------------------------------------- general

ALL = {**{f"world {k}": v for k, v in WORLD.items()}, **{f"local {k}": v for k, v in LOCAL.items()}}
ALL["world dropout"] = {"NAME": "random_world_frustum_dropout", **DROPOUT}
ALL["local dropout"] = {"NAME": "random_local_frustum_dropout", **DROPOUT}
ALL["pyramids"] = {"NAME": "random_local_pyramid_aug", "DROP_PROB": 0.5, "SWAP_PROB": 0.9, "SWAP_MAX_NUM": 1}


@pytest.mark.parametrize("node", ALL.values(), ids=ALL)
def test_a_scene_without_objects_or_points_passes(node):
    for background in (0, 20):
        sample = scene(background=background)
        sample["points"], sample["gt_boxes"] = sample["points"][81:], sample["gt_boxes"][:0]
        sample["gt_names"] = sample["gt_names"][:0]
        after = build(node)(sample, np.random.default_rng(0))
        assert after["gt_boxes"].shape == (0, 9) and after["points"].shape[1] == 4


@pytest.mark.parametrize("node", ALL.values(), ids=ALL)
def test_the_same_generator_gives_the_same_sample_and_inputs_stay(node):
    sample = scene()
    points, boxes = sample["points"].copy(), sample["gt_boxes"].copy()
    given_points, given_boxes = sample["points"], sample["gt_boxes"]
    np.random.seed(0)
    first = build(node)(sample, np.random.default_rng(5))
    np.random.seed(1)  # the global generator plays no part
    second = build(node)(scene(), np.random.default_rng(5))
    np.testing.assert_array_equal(first["points"], second["points"])
    np.testing.assert_array_equal(first["gt_boxes"], second["gt_boxes"])
    np.testing.assert_array_equal(given_points, points)
    np.testing.assert_array_equal(given_boxes, boxes)
    assert first["points"].dtype == first["gt_boxes"].dtype == np.float32


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"NAME": "random_world_flip", "ALONG_AXIS_LIST": ["z"]}, "ALONG_AXIS_LIST: 'z' is none of x, y"),
        ({"NAME": "random_world_rotation", "WORLD_ROT_ANGLE": [1, -1]}, r"WORLD_ROT_ANGLE: must be \[low, high\]"),
        ({"NAME": "random_world_translation", "NOISE_TRANSLATE_STD": -1}, "must not be negative"),
        ({"NAME": "random_world_frustum_dropout", **DROPOUT, "INTENSITY_RANGE": [0, 2]}, "must lie in"),
        ({"NAME": "random_local_frustum_dropout", **DROPOUT, "DIRECTION": ["front"]}, "'front' is none of top"),
        ({"NAME": "random_world_flop"}, "did you mean random_world_flip"),
        ({"NAME": "random_world_flip", "ALONG_AXES": ["x"]}, "did you mean ALONG_AXIS_LIST"),
    ],
)
def test_wrong_settings_are_named(node, words):
    with pytest.raises(ValueError, match=words):
        build(node)


def test_augmentors_can_be_left_out_from_the_start_and_later():
    nodes = [WORLD["flip x"], WORLD["rotation"], WORLD["scaling"]]
    config = {"DISABLE_AUG_LIST": ["random_world_rotation", "placeholder"], "AUG_CONFIG_LIST": nodes}
    augmentor = DataAugmentor(None, config, ["Car"])
    assert [name for name, _ in augmentor.queue] == ["random_world_flip", "random_world_scaling"]
    augmentor.disable_augmentation(["random_world_flip"])
    assert len(augmentor.data_augmentor_queue) == 1
    augmentor.disable_augmentation({"DISABLE_AUG_LIST": ["random_world_scaling"]})
    sample = augmentor.forward(scene(), np.random.default_rng(0))
    np.testing.assert_array_equal(sample["points"], scene()["points"])


def test_every_augmentor_has_a_name_of_openpcdets():
    ours = set(AUGMENTORS.names())
    assert ours >= {node["NAME"] for node in ALL.values()} | {"gt_sampling"}
    assert issubclass(ConfigError, ValueError)
