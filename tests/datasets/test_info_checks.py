"""Info files and databases that cannot be used, told when they are opened; results that do not fit the frames."""

import copy
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from support import kitti_files

from pcdet.datasets.collate import collate_batch
from pcdet.datasets.errors import DataError
from pcdet.datasets.kitti.info_checks import check_infos
from pcdet.datasets.kitti.kitti_dataset import KittiDataset
from pcdet.datasets.pickles import read_pickle
from pcdet.registry import AUGMENTORS, build_from_cfg
from pcdet.utils import safe_pickle

CLASSES = ["Car", "Pedestrian", "Cyclist"]
REGRESSIONS = Path(__file__).resolve().parents[1] / "regressions" / "infos"


def make(root, training=True, classes=CLASSES, **changes):
    return KittiDataset(kitti_files.dataset_cfg(**changes), classes, training=training, root_path=root)


@pytest.fixture
def kitti(prepared_kitti, tmp_path):
    """A prepared folder to change."""
    return Path(shutil.copytree(prepared_kitti, tmp_path / "kitti"))


@pytest.fixture
def infos(prepared_kitti):
    """The infos of the train split, to change; the first frame has a car, a pedestrian, a cyclist, a van, DontCare."""
    return copy.deepcopy(safe_pickle.load(prepared_kitti / "kitti_infos_train.pkl"))


# --------------------------------------------------------------------------------------------------------------- infos


def set_value(info, path, value):
    *parents, last = path.split(".")
    for key in parents:
        info = info[key]
    info[last] = value


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("point_cloud.lidar_idx", "../000000", "point_cloud.lidar_idx must be the name .* got '../000000'"),
        ("point_cloud.lidar_idx", "/000000", "lidar_idx must be the name"),
        ("point_cloud.lidar_idx", "..", "lidar_idx must be the name"),
        ("point_cloud.lidar_idx", 0, "lidar_idx must be the name .* got 0"),
        ("image.image_shape", np.zeros(2), "image.image_shape must be two whole numbers"),
        ("image.image_shape", (2**40, 2**40), "image.image_shape must be two whole numbers .* got .1099511627776"),
        ("image.image_shape", (np.nan, 300.0), "image.image_shape must be two whole numbers .* got .nan"),
        ("image.image_shape", (370.5, 1224.0), "image.image_shape must be two whole numbers"),
        ("calib.R0_rect", np.zeros((4, 4)), "calib: .* R0_rect and Tr_velo_to_cam .* no inverse"),
        ("calib.P2", np.zeros((4, 4)), "calib: .* P2 must have focal lengths other than 0, got 0.0 and 0.0"),
        ("calib.P2", np.eye(2), r"calib.P2 must be a matrix of at least \(3, 4\)"),
        ("calib.R0_rect", np.full((4, 4), np.nan), "calib.R0_rect holds values that are not finite"),
        ("calib", None, "no mapping calib"),
        ("annos", None, "annos must be a mapping, got nothing"),
        ("annos.name", np.zeros(5), "annos.name must be an array of text"),
        ("annos.location", np.zeros((4, 3)), r"annos.location must be numbers of shape \(5, 3\)"),
        ("annos.rotation_y", np.array(list("abcde")), r"annos.rotation_y must be numbers of shape \(5,\)"),
        ("annos.difficulty", np.zeros(3), r"annos.difficulty must be numbers of shape \(5,\)"),
        ("annos.gt_boxes_lidar", np.zeros((4, 8)), r"annos.gt_boxes_lidar must be numbers of shape \(4, 7\)"),
        ("annos.gt_boxes_lidar", np.full((4, 7), np.nan), "annos.gt_boxes_lidar holds values that are not finite"),
        ("annos.bbox", np.full((5, 4), np.inf), "annos.bbox holds values that are not finite"),
        ("annos.dimensions", np.zeros((5, 3)), r"object 0 \(Car\) must have finite numbers and sizes above 0"),
    ],
)
def test_a_wrong_info_is_named_with_file_frame_key_and_way_out(infos, path, value, said):
    set_value(infos[0], path, value)
    with pytest.raises(DataError, match=f"the_file, frame 0.*: .*{said}.*create_kitti_infos"):
        check_infos(infos, "the_file")


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, 1e-60, 1e300])  # the last two are 0 and inf in float32
@pytest.mark.parametrize("key", ["dimensions", "location"])
def test_a_box_must_be_finite_and_have_sizes(infos, key, value):
    infos[3]["annos"][key] = infos[3]["annos"][key].astype(np.float64)
    infos[3]["annos"][key][1, 2] = value
    if key == "location" and abs(value) <= 1:
        check_infos(infos, "a")
        return
    with pytest.raises(DataError, match=r"a, frame 3 \(000003\): object 1 \(Car\)"):
        check_infos(infos, "a")


def test_dont_care_areas_and_frames_without_objects_or_labels_are_fine(infos):
    assert infos[0]["annos"]["dimensions"].min() == -1 and len(infos[2]["annos"]["name"]) == 0
    del infos[1]["annos"]
    check_infos(infos, "a")


@pytest.mark.parametrize("path", sorted(REGRESSIONS.iterdir()), ids=lambda p: p.stem)
def test_every_bad_info_file_is_refused_by_name(kitti, path):
    shutil.copy(path, kitti / "kitti_infos_train.pkl")
    with pytest.raises(DataError, match="kitti_infos_train.pkl"):
        make(kitti)


@pytest.mark.parametrize("content", [b"", b"\x80\x04K", b"text"], ids=["empty", "cut short", "text"])
def test_a_damaged_file_of_any_data_set_is_named_without_kittis_tool(tmp_path, content):
    (tmp_path / "my_infos.pkl").write_bytes(content)
    with pytest.raises(DataError, match="my_infos.pkl .*make it again with the tool that wrote it$") as error:
        read_pickle(tmp_path / "my_infos.pkl")
    assert "create_kitti_infos" not in str(error.value)


def test_frames_that_stand_there_twice_are_refused_in_testing_and_told_in_training(prepared_kitti, caplog):
    twice = {
        split: [f"kitti_infos_{split_file}.pkl"] * 2 for split, split_file in (("train", "train"), ("test", "val"))
    }
    with pytest.raises(DataError, match="val split holds frames more than once: 000004, 000005"):
        make(prepared_kitti, training=False, INFO_PATH=twice)
    with caplog.at_level(logging.WARNING):
        assert len(make(prepared_kitti, INFO_PATH=twice)) == 8
    assert "the train split holds frames more than once: 000000" in caplog.text


# ------------------------------------------------------------------------------------------------------------- results


def result(frame):
    return {"frame_id": frame, **{key: np.zeros(0) for key in ("name", "score", "alpha", "rotation_y")},
            **{key: np.zeros((0, n)) for key, n in (("bbox", 4), ("dimensions", 3), ("location", 3))}}  # fmt: skip


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (["000004", "000005", "000004"], "several results for 1 frames: 000004"),
        (["000004", "000005", "000099"], "results for 1 frames that the split does not have: 000099"),
        (["000004"], "no results for 1 of 2 frames, for instance 000005"),
        (["000099", "000099"], "(?s)no results for 2.*several.*does not have: 000099"),
    ],
)
def test_results_that_do_not_fit_the_frames_are_named(prepared_kitti, frames, said):
    dataset = make(prepared_kitti, training=False)
    assert dataset.evaluation([result("000005"), result("000004")], CLASSES)[0] is not None
    with pytest.raises(DataError, match=said):
        dataset.evaluation([result(frame) for frame in frames], CLASSES)
    with pytest.raises(DataError, match="1 of 2 results have no frame_id"):
        dataset.evaluation([result("000004"), {}], CLASSES)


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "a/b", "..", "", True])
def test_a_result_file_stays_in_its_folder(prepared_kitti, tmp_path, name):
    calib = make(prepared_kitti, training=False)[0]["calib"]
    batch = {"frame_id": [name], "calib": [calib], "image_shape": np.array([[360, 1200]])}
    empty = {"pred_boxes": np.zeros((0, 7)), "pred_scores": np.zeros(0), "pred_labels": np.zeros(0)}
    out = tmp_path / "results"
    out.mkdir()
    with pytest.raises(DataError, match="cannot have a file in .*results"):
        KittiDataset.generate_prediction_dicts(batch, [empty], CLASSES, output_path=out)
    assert [path for path in tmp_path.rglob("*.txt")] == []


def test_the_number_of_a_frame_names_its_result_file_after_collation_too(prepared_kitti, tmp_path):
    sample = make(prepared_kitti, training=False)[0]
    batch = collate_batch([{**sample, "frame_id": 7}, {**sample, "frame_id": 12}])
    empty = {"pred_boxes": np.zeros((0, 7)), "pred_scores": np.zeros(0), "pred_labels": np.zeros(0)}
    KittiDataset.generate_prediction_dicts(batch, [empty, empty], CLASSES, output_path=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["12.txt", "7.txt"]


# ------------------------------------------------------------------------------------------------------------ database


def sampler(root):
    node = {**kitti_files.AUGMENTORS[0], "PREPARE": {}, "SAMPLE_GROUPS": ["Car:1"]}
    return build_from_cfg(node, AUGMENTORS, root_path=root, class_names=CLASSES, logger=None)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("path", "../elsewhere.bin", "path must be relative .* stay inside it, got '../elsewhere.bin'"),
        ("path", "/etc/passwd", "path must be relative"),
        ("path", ".", "path must be relative"),
        ("path", "./", "path must be relative"),
        ("box3d_lidar", np.array([1, 2, 3, 4, 0, 1, 0.0]), "box3d_lidar must be finite and its sizes above 0"),
        ("box3d_lidar", np.full(7, np.nan), "box3d_lidar must be finite"),
        ("box3d_lidar", np.zeros(3), "box3d_lidar must be at least seven numbers"),
        ("num_points_in_gt", -1, "num_points_in_gt must be a count"),
        ("num_points_in_gt", 2**70, "num_points_in_gt must be a count of at most 2147483647"),
        ("difficulty", "x", "difficulty must be a whole number .* got 'x'"),
        ("difficulty", None, "difficulty must be a whole number .* got None"),
        ("difficulty", 2**70, "difficulty must be a whole number"),
        ("box3d_lidar", np.array([1e300, 2, 3, 4, 2, 1, 0.0]), "box3d_lidar must be finite"),
        ("box3d_lidar", np.array([1, 2, 3, 4, 1e-60, 1, 0.0]), "box3d_lidar must be finite and its sizes above 0"),
    ],
)
def test_a_wrong_entry_of_the_database_is_named(kitti, key, value, said):
    path = kitti / "kitti_dbinfos_train.pkl"
    database = read_pickle(path)
    database["Car"][1][key] = value
    safe_pickle.dump(database, path)
    with pytest.raises(DataError, match=f"kitti_dbinfos_train.pkl, Car, object 1: {said}.*the tool that wrote it"):
        sampler(kitti)


@pytest.mark.parametrize("value", [0, -1, np.int32(2), 1.0])
def test_a_difficulty_is_any_whole_number(kitti, value):
    path = kitti / "kitti_dbinfos_train.pkl"
    database = read_pickle(path)
    database["Car"][0]["difficulty"] = value
    safe_pickle.dump(database, path)
    assert sampler(kitti).tables["Car"].difficulty[0] == value


def test_velocities_that_are_not_known_are_pasted_as_zero_and_infinite_ones_refused(kitti):
    path = kitti / "kitti_dbinfos_train.pkl"
    database = read_pickle(path)
    for entry in database["Car"]:
        entry["box3d_lidar"] = np.append(entry["box3d_lidar"], [np.nan, 3.0])
    safe_pickle.dump(database, path)
    scene = {"points": np.zeros((1, 4), np.float32), "gt_boxes": np.zeros((0, 9), np.float32),
             "gt_names": np.zeros(0, "<U10")}  # fmt: skip
    boxes = sampler(kitti)(scene, np.random.default_rng(0))["gt_boxes"]
    assert boxes.shape == (1, 9) and boxes[0, 7:].tolist() == [0.0, 3.0]
    database["Car"][1]["box3d_lidar"][7] = 1e300
    safe_pickle.dump(database, path)
    with pytest.raises(DataError, match="Car, object 1: box3d_lidar holds a velocity that is infinite"):
        sampler(kitti)


def test_an_object_with_nan_points_is_named_and_not_the_scene(kitti):
    for path in (kitti / "gt_database").glob("*_Car_*.bin"):
        points = np.fromfile(path, dtype=np.float32)
        points[1] = np.nan
        points.tofile(path)
    scene = {"points": np.zeros((1, 4), np.float32), "gt_boxes": np.zeros((0, 7), np.float32),
             "gt_names": np.zeros(0, "<U10")}  # fmt: skip
    with pytest.raises(DataError, match=r"gt_database/.*_Car_.*.bin holds NaN .*the tool that wrote it"):
        sampler(kitti)(scene, np.random.default_rng(0))
