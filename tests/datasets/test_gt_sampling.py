"""gt_sampling: what is pasted, where, and what it leaves behind."""

import logging

import numpy as np
import pytest
from support import kitti_files
from support.kitti_files import CAR, CYCLIST

from pcdet.datasets.augmentor.database_sampler import DataBaseSampler, heights_above_plane, is_free, parse_counts
from pcdet.datasets.errors import DataError
from pcdet.registry import AUGMENTORS, ConfigError, build_from_cfg
from pcdet.utils import safe_pickle
from pcdet.utils.box_utils import points_in_boxes_mask
from pcdet.utils.calibration_kitti import Calibration

CLASSES = ["Car", "Pedestrian", "Cyclist"]
NODE = kitti_files.AUGMENTORS[0]


@pytest.fixture
def calib():
    return Calibration({"P2": kitti_files.P2, "R0": kitti_files.R0, "Tr_velo2cam": kitti_files.VELO_TO_CAM})


def sampler(root, classes=CLASSES, **changes) -> DataBaseSampler:
    return build_from_cfg({**NODE, **changes}, AUGMENTORS, root_path=root, class_names=classes, logger=None)


def empty_scene(n=2000, seed=0, columns=7):
    rng = np.random.default_rng(seed)
    points = np.column_stack([rng.uniform(0, 40, n), rng.uniform(-12, 12, n), rng.uniform(-2, 0, n), np.ones(n)])
    return {
        "frame_id": "000009",
        "points": points.astype(np.float32),
        "gt_boxes": np.zeros((0, columns), dtype=np.float32),
        "gt_names": np.array([], dtype="<U10"),
    }


def database(root, cars):
    """A folder with a database of cars only; each has its index as intensity."""
    (root / "gt_database").mkdir(parents=True)
    entries = []
    for i, box in enumerate(cars):
        points = kitti_files.grid_inside(box)
        points[:, :3] -= np.array(box[:3], dtype=np.float32)
        points[:, 3] = i
        points.tofile(root / "gt_database" / f"{i}.bin")
        entries.append(
            {
                "name": "Car",
                "path": f"gt_database/{i}.bin",
                "image_idx": "000000",
                "gt_idx": i,
                "box3d_lidar": np.array(box),
                "num_points_in_gt": len(points),
                "difficulty": i % 3 - 1,
            }
        )
    safe_pickle.dump({"Car": entries}, root / "kitti_dbinfos_train.pkl")
    return root


def car(x, y, heading=0.0):
    return (x, y, -1.0, 4.0, 1.8, 1.5, heading)


@pytest.fixture
def row_of_cars(tmp_path):
    """30 cars that do not touch, at x 0, 10, 20, ... and y -20 ... 20."""
    return database(tmp_path / "db", [car(10 * (i % 6), 10 * (i // 6) - 20, 0.1 * i) for i in range(30)])


def test_pasted_objects_come_with_their_points_first_and_clear_their_place(prepared_kitti):
    sample = sampler(prepared_kitti)(empty_scene(), np.random.default_rng(0))
    names = sample["gt_names"].tolist()
    assert len(sample["gt_boxes"]) == len(names) >= 2
    assert names == sorted(names, key=CLASSES.index), "class by class, in the order of the groups"
    inside = points_in_boxes_mask(sample["points"], sample["gt_boxes"])
    assert inside.sum(axis=1).tolist() == [27] * len(names), "the scene's own points are gone from the boxes"
    front = 27 * len(names)
    assert inside[:, :front].any(axis=0).all() and not inside[:, front:].any()
    assert sample["points"].dtype == sample["gt_boxes"].dtype == np.float32


def test_pasted_objects_overlap_nothing(row_of_cars):
    from pcdet.ops.iou3d_nms.iou3d_nms_utils import boxes_bev_iou_cpu

    scene = empty_scene()
    scene["gt_boxes"] = np.array([car(11, -10, 0.7), car(30, 1, -1)], dtype=np.float32)
    scene["gt_names"] = np.array(["Car", "Van"])  # a class that is not trained blocks its place too
    for seed in range(10):
        sample = sampler(row_of_cars, SAMPLE_GROUPS=["Car:30"])({**scene}, np.random.default_rng(seed))
        overlaps = np.asarray(boxes_bev_iou_cpu(sample["gt_boxes"], sample["gt_boxes"]))
        np.fill_diagonal(overlaps, 0)
        assert (overlaps == 0).all()
        # all but the two whose places are taken, and the two that lose difficulty -1
        assert sample["gt_names"][:2].tolist() == ["Car", "Van"]


def test_of_overlapping_candidates_none_is_pasted(tmp_path):
    root = database(tmp_path / "db", [car(10, 0), car(11, 0), car(30, 0), car(40, 0), car(50, 0), car(60, 0)])
    sample = sampler(root, SAMPLE_GROUPS=["Car:6"], PREPARE={})(empty_scene(), np.random.default_rng(0))
    assert sorted(sample["gt_boxes"][:, 0].tolist()) == [30, 40, 50, 60]
    flags = is_free(np.array([car(0, 0), car(1, 0), car(9, 0)], np.float32), np.array([car(9, 1)], np.float32))
    assert flags.tolist() == [False, False, False]


def test_objects_are_drawn_without_repetition_and_evenly(row_of_cars):
    paste, counts = sampler(row_of_cars, SAMPLE_GROUPS=["Car:5"], PREPARE={}), np.zeros(30)
    for seed in range(300):
        sample = paste(empty_scene(), np.random.default_rng(seed))
        chosen = np.unique(sample["points"][: 27 * 5, 3])
        assert len(sample["gt_boxes"]) == len(chosen) == 5
        counts[chosen.astype(int)] += 1
    assert counts.min() > 25 and counts.max() < 80  # 50 expected


def test_filters_keep_what_they_should(row_of_cars):
    table = sampler(row_of_cars, SAMPLE_GROUPS=["Car:30"]).tables["Car"]
    assert len(table) == 20 and set(table.difficulty.tolist()) == {0, 1}  # level -1 is left out
    few = sampler(row_of_cars, PREPARE={"filter_by_min_points": ["Car:28"]}, SAMPLE_GROUPS=["Car:30"])
    assert len(few.tables["Car"]) == 0
    sample = few(empty_scene(), np.random.default_rng(0))
    assert len(sample["gt_boxes"]) == 0
    enough = sampler(row_of_cars, PREPARE={"filter_by_min_points": ["Car:27"]}, SAMPLE_GROUPS=["Car:30"])
    assert len(enough.tables["Car"]) == 30


@pytest.mark.parametrize(("limit", "pasted"), [(False, 5), (True, 3)])
def test_the_scenes_own_objects_count_on_request(row_of_cars, limit, pasted):
    scene = empty_scene()
    scene["gt_boxes"] = np.array([car(200, 200), car(220, 200)], dtype=np.float32)
    scene["gt_names"] = np.array(["Car", "Car"])
    paste = sampler(row_of_cars, SAMPLE_GROUPS=["Car:5"], LIMIT_WHOLE_SCENE=limit)
    assert len(paste(scene, np.random.default_rng(0))["gt_boxes"]) == 2 + pasted


def test_scene_points_leave_enlarged_boxes(row_of_cars):
    wide = sampler(row_of_cars, SAMPLE_GROUPS=["Car:1"], REMOVE_EXTRA_WIDTH=[1.0, 1.0, 1.0])
    sample = wide(empty_scene(20000), np.random.default_rng(0))
    larger = sample["gt_boxes"] + np.array([[0, 0, 0, 1, 1, 1, 0]], dtype=np.float32)
    assert points_in_boxes_mask(sample["points"], larger).sum() == 27


def test_boxes_with_velocities_get_zero_velocities_pasted(row_of_cars):
    sample = sampler(row_of_cars)(empty_scene(columns=9), np.random.default_rng(0))
    assert sample["gt_boxes"].shape[1] == 9 and (sample["gt_boxes"][:, 7:] == 0).all()


# --------------------------------------------------------------------------------------------------------- road planes


def test_height_above_a_plane_by_hand(calib):
    # the plane y = 1.7 below the camera: the car's bottom at -1.75 lies 0.05 m below it
    heights = heights_above_plane(np.array([CAR]), np.array([0, -1, 0, 1.7]), calib)
    np.testing.assert_allclose(heights, [-0.05], atol=1e-6)


def test_objects_are_set_on_the_road_with_their_points(prepared_kitti, calib):
    paste = sampler(prepared_kitti, USE_ROAD_PLANE=True)
    sample = {**empty_scene(), "calib": calib, "road_plane": np.array([0, -1, 0, 2.5], dtype=np.float32)}
    sample = paste(sample, np.random.default_rng(0))
    boxes = sample["gt_boxes"]
    np.testing.assert_allclose(boxes[:, 2] - boxes[:, 5] / 2, -2.5, atol=1e-5)
    assert points_in_boxes_mask(sample["points"], boxes).sum(axis=1).tolist() == [27] * len(boxes)
    assert "road_plane" not in sample


def test_without_planes_there_is_one_warning_and_no_shift(prepared_kitti, caplog):
    from pcdet.datasets.kitti.kitti_dataset import KittiDataset

    flat, paste = (sampler(prepared_kitti, USE_ROAD_PLANE=flag) for flag in (False, True))
    expected = flat(empty_scene(), np.random.default_rng(2))["gt_boxes"]
    np.testing.assert_array_equal(paste(empty_scene(), np.random.default_rng(2))["gt_boxes"], expected)
    for use, warnings in ((True, 1), (False, 0)):
        caplog.clear()
        augmented = {"DISABLE_AUG_LIST": [], "AUG_CONFIG_LIST": [{**NODE, "USE_ROAD_PLANE": use}]}
        with caplog.at_level(logging.WARNING):
            config = kitti_files.dataset_cfg(DATA_AUGMENTOR=augmented)
            dataset = KittiDataset(config, CLASSES, training=True, root_path=prepared_kitti)
            [dataset[i] for i in range(4)]
        assert [("4 of 4 frames have no file in" in r.message) for r in caplog.records] == [True] * warnings


# ---------------------------------------------------------------------------------------------------------- complaints


def test_a_missing_database_is_named_with_the_way_out(tmp_path):
    with pytest.raises(DataError, match="kitti_dbinfos_train.pkl does not exist.*create_kitti_infos.*DISABLE_AUG_LIST"):
        sampler(tmp_path)


def test_classes_that_are_not_trained_or_not_there_are_left_out(prepared_kitti, row_of_cars, caplog):
    assert list(sampler(prepared_kitti, classes=["Cyclist"]).tables) == ["Cyclist"]
    with caplog.at_level(logging.WARNING):
        sampler(row_of_cars)
    assert "no usable Pedestrian" in caplog.text and "no usable Cyclist" in caplog.text


def test_missing_and_odd_object_files_are_named(row_of_cars):
    paste = sampler(row_of_cars, SAMPLE_GROUPS=["Car:30"], PREPARE={})
    path = row_of_cars / "gt_database" / "7.bin"
    points = np.fromfile(path, dtype=np.float32)
    points.astype(np.float64).tofile(path)  # some databases are float64
    assert len(paste(empty_scene(), np.random.default_rng(0))["gt_boxes"]) == 30
    path.write_bytes(bytes(100))
    with pytest.raises(DataError, match="7.bin has 100 bytes; 27 points of 4 float32 have 432"):
        paste(empty_scene(), np.random.default_rng(0))
    path.unlink()
    with pytest.raises(DataError, match="7.bin does not exist"):
        paste(empty_scene(), np.random.default_rng(0))


def test_wrong_settings_are_named(row_of_cars):
    for changes, words in (
        ({"SAMPLE_GROUPS": ["Car"]}, "SAMPLE_GROUPS: expected entries like 'Car:15', got 'Car'"),
        ({"PREPARE": {"filter_by_colour": []}}, "PREPARE.filter_by_colour: no such filter"),
        ({"DATABASE_WITH_FAKELIDAR": True}, "DATABASE_WITH_FAKELIDAR"),
        ({"SAMPLE_GROUP": []}, "did you mean SAMPLE_GROUPS"),
    ):
        with pytest.raises(ConfigError, match=words):
            sampler(row_of_cars, **changes)
    assert parse_counts(["Car:15", "Person_sitting: 2"], "K") == {"Car": 15, "Person_sitting": 2}
    safe_pickle.dump([1], row_of_cars / "kitti_dbinfos_train.pkl")
    with pytest.raises(DataError, match="must hold a mapping"):
        sampler(row_of_cars)
    with pytest.raises(ConfigError, match="gt_boxes2d"):
        paste = object.__new__(DataBaseSampler)
        paste({"gt_boxes2d": np.zeros((0, 4))}, np.random.default_rng(0))


def test_pasting_is_part_of_training(prepared_kitti):
    from pcdet.datasets.kitti.kitti_dataset import KittiDataset

    augmented = {"DISABLE_AUG_LIST": ["placeholder"], "AUG_CONFIG_LIST": kitti_files.AUGMENTORS}
    config = kitti_files.dataset_cfg(DATA_AUGMENTOR=augmented)
    dataset = KittiDataset(config, CLASSES, training=True, root_path=prepared_kitti)
    sample = dataset[2]  # the frame without objects of its own
    assert len(sample["gt_boxes"]) >= 1
    assert set(sample) >= {"flip_x", "noise_rot", "noise_scale", "lidar_aug_matrix", "voxels"}
    assert (np.abs(sample["gt_boxes"][:, 6]) <= np.pi).all()
    # points pasted at the cyclist's place went through the same moves as its box
    matrix = sample["lidar_aug_matrix"]
    row = sample["gt_boxes"][sample["gt_boxes"][:, 7] == 3]
    if len(row):
        moved = matrix[:3, :3] @ np.array(CYCLIST[:3]) + matrix[:3, 3]
        np.testing.assert_allclose(row[0, :3], moved, atol=1e-4)
