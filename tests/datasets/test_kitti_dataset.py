"""KittiDataset: samples, results, evaluation."""

import logging
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from support import kitti_files
from support.kitti_files import CAR, CYCLIST, PEDESTRIAN

from pcdet.datasets import build_dataloader, build_dataset
from pcdet.datasets.dataset import DatasetTemplate, resolve_data_path
from pcdet.datasets.errors import BadFrameError, DataError
from pcdet.datasets.kitti.kitti_dataset import KittiDataset, fov_shape
from pcdet.datasets.kitti.kitti_utils import fov_flag, lidar_fov_flag, write_result_file
from pcdet.registry import ConfigError
from pcdet.utils.calibration_kitti import Calibration
from pcdet.utils.safe_files import sum_path

CLASSES = ["Car", "Pedestrian", "Cyclist"]


def make(root, training=True, classes=CLASSES, **changes):
    return KittiDataset(kitti_files.dataset_cfg(**changes), classes, training=training, root_path=root)


@pytest.fixture
def calib():
    return Calibration({"P2": kitti_files.P2, "R0": kitti_files.R0, "Tr_velo2cam": kitti_files.VELO_TO_CAM})


# ------------------------------------------------------------------------------------------------------------- samples


def as_openpcdet_writes(infos):
    """Pickled by numpy 1 with OpenPCDet's keys alone: of a frame's info, or of an object's in the database."""
    if isinstance(infos, dict):
        content = {
            name: [{**i, "score": np.float64(-1), "difficulty": np.int32(i["difficulty"])} for i in objects]
            for name, objects in infos.items()
        }
    else:
        images = ("image_idx", "image_shape")
        content = [{**info, "image": {key: info["image"][key] for key in images}} for info in infos]
    return pickle.dumps(content, protocol=2).replace(b"numpy._core", b"numpy.core")


def test_infos_and_databases_of_openpcdet_give_the_same_samples(prepared_kitti, tmp_path):
    root = Path(shutil.copytree(prepared_kitti, tmp_path / "kitti"))
    for path in root.glob("kitti_*infos_*.pkl"):
        content = as_openpcdet_writes(pickle.loads(path.read_bytes()))
        assert b"numpy.core.multiarray" in content and b"numpy._core" not in content
        path.write_bytes(content)
        sum_path(path).unlink()  # OpenPCDet writes none
    sampling = {
        "NAME": "gt_sampling",
        "DB_INFO_PATH": ["kitti_dbinfos_train.pkl"],
        "PREPARE": {"filter_by_min_points": ["Car:1"], "filter_by_difficulty": [-1]},
        "SAMPLE_GROUPS": ["Car:2"],
        "NUM_POINT_FEATURES": 4,
    }
    for options in ({}, {"training": False}, {"DATA_AUGMENTOR": [sampling]}):
        own, other = make(prepared_kitti, **options), make(root, **options)
        assert len(own) == len(other) > 0
        for i in range(len(own)):
            own.set_seed(3), other.set_seed(3)
            expected, found = own[i], other[i]
            assert expected.keys() == found.keys()
            for key in ("frame_id", "points", "gt_boxes", "voxels", "image_shape"):
                np.testing.assert_array_equal(expected[key], found[key])


def test_the_facts_models_read(prepared_kitti):
    dataset = make(prepared_kitti)
    assert dataset.grid_size.tolist() == [176, 200, 1] and dataset.grid_size.dtype == np.int64
    assert list(dataset.voxel_size) == [0.4, 0.4, 4]
    assert dataset.point_cloud_range.dtype == np.float32
    assert dataset.point_feature_encoder.num_point_features == 4
    assert dataset.class_names == CLASSES and dataset.depth_downsample_factor is None
    assert dataset.mode == "train" and make(prepared_kitti, training=False).mode == "test"


def test_a_sample_holds_the_labelled_boxes_with_their_class_numbers(prepared_kitti):
    sample = make(prepared_kitti)[0]
    assert sample["frame_id"] == "000000"
    expected = [(*CAR, 1), (*PEDESTRIAN, 2), (*CYCLIST, 3)]  # the van is no class of the model
    np.testing.assert_allclose(sample["gt_boxes"], expected, atol=1e-4)
    assert sample["gt_boxes"].dtype == np.float32
    assert "gt_names" not in sample
    np.testing.assert_array_equal(sample["lidar_aug_matrix"], np.eye(4))
    assert sample["image_shape"].tolist() == [360, 1200]
    assert sample["use_lead_xyz"] is True


def test_class_numbers_follow_the_order_of_the_class_names(prepared_kitti):
    sample = make(prepared_kitti, classes=["Cyclist", "Car"])[0]
    np.testing.assert_allclose(sample["gt_boxes"][:, 7], [2, 1])


def test_only_what_the_camera_sees_is_kept(prepared_kitti, calib):
    cloud = np.fromfile(prepared_kitti / "training" / "velodyne" / "000004.bin", np.float32).reshape(-1, 4)
    # by hand, for this camera: u = 600 - 700 y / x, v = 180 - 700 z / x
    x, y, z = cloud[:, 0].astype(float), cloud[:, 1].astype(float), cloud[:, 2].astype(float)
    u, v = 600 - 700 * y / x, 180 - 700 * z / x
    seen = (x > 0) & (u >= 0) & (u < 1200) & (v >= 0) & (v < 360)
    points = make(prepared_kitti, training=False)[0]["points"]
    in_range = seen & (np.abs(y) <= 40) & (x <= 70.4)
    np.testing.assert_array_equal(points, cloud[in_range])
    everything = make(prepared_kitti, training=False, FOV_POINTS_ONLY=False)[0]["points"]
    assert len(everything) > len(points)
    np.testing.assert_array_equal(fov_flag(calib.lidar_to_rect(cloud), (360, 1200), calib), seen)
    np.testing.assert_array_equal(lidar_fov_flag(cloud, (360, 1200), calib), seen)


def test_the_borders_of_the_image_belong_to_it_on_the_left_and_top_only(calib):
    rect = calib.img_to_rect(
        *(np.array(v, dtype=float) for v in ([0, 1199.999, 1200, 5, 5], [0, 5, 5, 360, 5], 5 * [7]))
    )
    rect[4] = [0, 0, -1]
    assert fov_flag(rect, (360, 1200), calib).tolist() == [True, True, False, False, False]


def test_without_an_image_nothing_is_cut_that_one_could_show():
    shape = np.array([370, 1224])
    assert fov_shape({"image_shape": shape, "image_shape_source": "image"}) == (370, 1224)
    assert fov_shape({"image_shape": shape}) == (370, 1224), "OpenPCDet's infos always have measured images"
    assert fov_shape({"image_shape": shape, "image_shape_source": "calibration"}) == (376, 1242)


def test_a_frame_in_which_no_box_survives_is_background(prepared_kitti):
    dataset = make(prepared_kitti)
    empty, full = dataset[2], dataset[0]
    assert empty["gt_boxes"].shape == (0, 8) and len(empty["points"]) > 0
    assert dataset.collate_batch([empty, full])["gt_boxes"].shape == (2, 3, 8)
    assert dataset.collate_batch([empty])["gt_boxes"].shape == (1, 0, 8)
    nothing = make(prepared_kitti, classes=["Tram"])
    assert all(nothing[i]["gt_boxes"].shape == (0, 8) for i in range(4))


def test_the_other_items_are_added_on_request(prepared_kitti):
    sample = make(prepared_kitti, training=False, GET_ITEM_LIST=["points", "images", "calib_matricies", "gt_boxes2d"])[
        0
    ]
    assert sample["images"].shape == (360, 1200, 3)
    np.testing.assert_allclose(sample["gt_boxes2d"], [[100, 100, 200, 200]] * 3)
    pixel = sample["trans_cam_to_img"] @ sample["trans_lidar_to_cam"] @ [10, 1, 1, 1]
    np.testing.assert_allclose(pixel[:2] / pixel[2], [530, 110])


def test_road_planes_come_along_where_there_are_some(raw_kitti, prepared_kitti):
    import shutil

    root = raw_kitti.parent / "with_planes"
    shutil.copytree(prepared_kitti, root)
    (root / "training" / "planes").mkdir()
    (root / "training" / "planes" / "000004.txt").write_text("#\n#\n#\n0 -1 0 1.7\n")
    dataset = make(root, training=False)
    np.testing.assert_allclose(dataset[0]["road_plane"], [0, -1, 0, 1.7], rtol=1e-6)
    assert "road_plane" not in dataset[1]
    assert "road_plane" in dataset.collate_batch([dataset[0]])
    assert "road_plane" not in dataset.collate_batch([dataset[0], dataset[1]])


def test_files_of_a_frame(prepared_kitti):
    dataset = make(prepared_kitti)
    np.testing.assert_allclose(dataset.get_calib("000000").P2, kitti_files.P2)
    assert dataset.get_road_plane("000000") is None
    assert dataset.get_fov_flag is fov_flag


# ---------------------------------------------------------------------------------------------------------- complaints


def test_missing_infos_are_named_with_the_command_that_makes_them(written_kitti):
    with pytest.raises(DataError, match="kitti_infos_train.pkl does not exist.*create_kitti_infos"):
        make(written_kitti)


def test_wrong_keys_are_named_all_at_once(prepared_kitti):
    with pytest.raises(ConfigError) as error:
        make(prepared_kitti, FOV_POINT_ONLY=True, POINT_CLOUD_RANGE=[0, 0, 0, 1, -1, 1], DATA_SPLIT={"train": "train"})
    assert "FOV_POINTS_ONLY" in str(error.value)
    with pytest.raises(ConfigError) as error:
        make(prepared_kitti, POINT_CLOUD_RANGE=[0, 0, 0, 1, -1, 1], DATA_SPLIT={"train": "train"})
    assert len(error.value.problems) == 2
    with pytest.raises(ConfigError, match="POINT_FEATURE_ENCODING.*known: absolute_coordinates_encoding"):
        make(prepared_kitti, POINT_FEATURE_ENCODING={"encoding_type": "nonsense"})


def test_training_on_an_unlabelled_split_is_refused(raw_kitti):
    from pcdet.datasets.kitti.kitti_infos import create_kitti_infos

    kitti_files.write_frame(raw_kitti / "testing", "000000", None, [CAR])
    (raw_kitti / "ImageSets" / "test.txt").write_text("000000\n")
    create_kitti_infos(kitti_files.dataset_cfg(), CLASSES, raw_kitti, workers=0)
    split = {
        "DATA_SPLIT": {"train": "test", "test": "test"},
        "INFO_PATH": {"train": ["kitti_infos_test.pkl"], "test": ["kitti_infos_test.pkl"]},
    }
    with pytest.raises(DataError, match="frame 000000 has no labels"):
        make(raw_kitti, **split)[0]
    dataset = make(raw_kitti, training=False, **split)
    assert "gt_boxes" not in dataset[0]
    assert dataset.evaluation([{"frame_id": "000000"}], CLASSES) == (None, {})


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", ["cut", "nan"])
def test_a_damaged_cloud_stops_the_run_with_its_name(prepared_kitti, tmp_path, damage, workers):
    import shutil

    root = shutil.copytree(prepared_kitti, tmp_path / "kitti")
    path = root / "training" / "velodyne" / "000004.bin"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    else:
        points = np.fromfile(path, np.float32)
        points[7] = np.nan
        points.tofile(path)
    cfg = kitti_files.dataset_cfg()
    _, loader, _ = build_dataloader(cfg, CLASSES, 2, False, root_path=root, workers=workers, training=False)
    with pytest.raises(BadFrameError, match="000004.bin"):
        list(loader)


def test_damaged_clouds_are_left_out_and_counted_on_request(prepared_kitti, tmp_path, caplog):
    import shutil

    root = shutil.copytree(prepared_kitti, tmp_path / "kitti")
    (root / "training" / "velodyne" / "000000.bin").write_bytes(bytes(17))
    (root / "training" / "velodyne" / "000001.bin").unlink()
    with caplog.at_level(logging.WARNING, "pcdet"):
        dataset = make(root, SKIP_BAD_FRAMES=True)
    assert dataset.bad_frames == ["000000", "000001"]
    assert [dataset[i]["frame_id"] for i in range(len(dataset))] == ["000002", "000003"]
    assert "left out 2 of 4 frames" in caplog.text
    assert dataset.fingerprint != make(root).fingerprint


# ------------------------------------------------------------------------------------------------------------- results


def prediction(boxes, labels, scores):
    return {
        "pred_boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 7),
        "pred_labels": torch.tensor(labels),
        "pred_scores": torch.tensor(scores),
    }


@pytest.fixture
def batch(calib):
    return {
        "frame_id": np.array(["000007", "000008"]),
        "calib": [calib, calib],
        "image_shape": torch.tensor([[360, 1200], [360, 1200]], dtype=torch.int32),
    }


def test_predictions_become_kitti_annotations_and_files(batch, tmp_path):
    straight = (20.0, 2.0, -1.0, 4.0, 1.8, 1.5, 0.0)
    predictions = [prediction([straight], [1], [0.9]), prediction([], [], [])]
    annos = KittiDataset.generate_prediction_dicts(batch, predictions, CLASSES, output_path=tmp_path)
    first, empty = annos
    assert first["frame_id"] == "000007" and first["name"].tolist() == ["Car"]
    np.testing.assert_allclose(first["dimensions"], [[4, 1.5, 1.8]], rtol=1e-6)
    np.testing.assert_allclose(first["location"], [[-2, 1.75, 20]], rtol=1e-6)
    np.testing.assert_allclose(first["rotation_y"], [-np.pi / 2], rtol=1e-6)
    np.testing.assert_allclose(first["alpha"], [-np.pi / 2 - np.arctan2(-2, 20)], rtol=1e-5)
    np.testing.assert_allclose(first["boxes_lidar"], [straight], rtol=1e-6)
    near, far = (
        18,
        22,
    )  # x of the faces; the left side (y = 2.9) is outermost on the near face, the right on the far one
    expected = [600 - 700 * 2.9 / near, 180 + 700 * 0.25 / far, 600 - 700 * 1.1 / far, 180 + 700 * 1.75 / near]
    np.testing.assert_allclose(first["bbox"], [expected], rtol=1e-5)
    words = (tmp_path / "000007.txt").read_text().split()
    assert words[:3] == ["Car", "-1", "-1"] and len(words) == 16
    assert words[8:11] == ["1.5000", "1.8000", "4.0000"]  # h, w, l
    assert words[11:] == ["-2.0000", "1.7500", "20.0000", "-1.5708", "0.9000"]
    assert (tmp_path / "000008.txt").read_text() == ""
    assert empty["name"].shape == (0,) and empty["bbox"].shape == (0, 4) and empty["boxes_lidar"].shape == (0, 7)


def test_every_number_of_a_result_file_has_four_decimals(tmp_path):
    anno = {
        "name": np.array(["Car"]),
        "alpha": np.array([0.123456]),
        "bbox": np.array([[1.0, 2, 3, 4]]),
        "dimensions": np.array([[3.9, 1.5, 1.6]]),
        "location": np.array([[1.0, 2, 30]]),
        "rotation_y": np.array([-4.0]),  # not wrapped
        "score": np.array([0.5]),
    }
    write_result_file(tmp_path / "out.txt", anno)
    assert (tmp_path / "out.txt").read_text() == (
        "Car -1 -1 0.1235 1.0000 2.0000 3.0000 4.0000 1.5000 1.6000 3.9000 1.0000 2.0000 30.0000 -4.0000 0.5000\n"
    )


def perfect(dataset):
    annos = []
    for info in dataset.kitti_infos:
        anno = {k: v[info["annos"]["name"] != "DontCare"] for k, v in info["annos"].items() if k != "gt_boxes_lidar"}
        anno["score"] = np.linspace(0.9, 0.5, len(anno["name"]))
        annos.append({**anno, "frame_id": info["point_cloud"]["lidar_idx"]})
    return annos


def test_evaluation_matches_results_to_frames_by_their_ids(prepared_kitti):
    dataset = make(prepared_kitti, training=False)
    text, numbers = dataset.evaluation(perfect(dataset)[::-1], CLASSES)
    assert "Car AP_R40@0.70, 0.70, 0.70:" in text
    assert numbers["Pedestrian_3d/easy_R40"] > 0
    with pytest.raises(ValueError, match="no results for 1 of 2 frames, for instance 000005"):
        dataset.evaluation(perfect(dataset)[:1], CLASSES)
    without_ids = [{k: v for k, v in anno.items() if k != "frame_id"} for anno in perfect(dataset)]
    assert dataset.evaluation(without_ids, CLASSES)[1] == numbers
    with pytest.raises(ValueError, match="1 results for 2 frames"):
        dataset.evaluation(without_ids[:1], CLASSES)


# ------------------------------------------------------------------------------------------------ the template, loading


class OldStyle(DatasetTemplate):
    """As a custom data set for OpenPCDet is written."""

    def __init__(self, dataset_cfg, class_names, training=True, root_path=None, logger=None):
        super().__init__(
            dataset_cfg=dataset_cfg, class_names=class_names, training=training, root_path=root_path, logger=logger
        )

    def __len__(self):
        return 3

    def __getitem__(self, index):
        points = np.random.default_rng(index).uniform(0, 10, (50, 4)).astype(np.float32)
        boxes = np.array([CAR], dtype=np.float32)
        input_dict = {"points": points, "frame_id": index, "gt_names": np.array(["Car"]), "gt_boxes": boxes}
        return self.prepare_data(data_dict=input_dict)


def test_data_sets_written_for_openpcdet_work(tmp_path):
    dataset = OldStyle(kitti_files.dataset_cfg(DATASET="OldStyle"), CLASSES, root_path=tmp_path)
    first, again = dataset[0], dataset[0]
    np.testing.assert_array_equal(first["points"], again["points"])  # the frame's own generator
    dataset.set_epoch(1)
    assert not np.array_equal(first["points"], dataset[0]["points"])
    batch = dataset.collate_batch([dataset[i] for i in range(3)])
    annos = dataset.generate_prediction_dicts(batch, [prediction([CAR], [1], [0.5])] * 3, CLASSES)
    assert [a["frame_id"] for a in annos] == [0, 1, 2] and annos[0]["name"].tolist() == ["Car"]
    with pytest.raises(NotImplementedError):
        dataset.evaluation([], CLASSES)


def test_an_unknown_data_set_is_named_with_its_neighbour(prepared_kitti):
    with pytest.raises(ConfigError, match="DATA_CONFIG.DATASET.*did you mean KittiDataset"):
        build_dataset(kitti_files.dataset_cfg(DATASET="KitiDataset"), CLASSES, True, prepared_kitti)


def test_data_path_counts_from_the_working_directory_else_from_tools(tmp_path, monkeypatch, repo_root):
    monkeypatch.chdir(tmp_path)
    assert resolve_data_path("../data/kitti") == repo_root / "data" / "kitti"
    (tmp_path / "mine").mkdir()
    assert resolve_data_path("mine").resolve() == tmp_path / "mine"
    assert resolve_data_path("nowhere").name == "nowhere"


def test_a_data_set_travels_to_spawned_workers(prepared_kitti):
    augmented = {"DISABLE_AUG_LIST": [], "AUG_CONFIG_LIST": kitti_files.AUGMENTORS}
    dataset = make(prepared_kitti, DATA_AUGMENTOR=augmented)
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy[0]["points"], dataset[0]["points"])
