"""Samples of nuScenes: clouds of several sweeps, boxes with velocities, which frames an epoch has, and results."""

from collections import Counter

import numpy as np
import pytest
from easydict import EasyDict
from support import nuscenes_files

from pcdet.config import cfg_from_yaml_file
from pcdet.datasets.errors import DataError
from pcdet.datasets.loader import build_dataloader
from pcdet.datasets.nuscenes.categories import DETECTION_CLASSES
from pcdet.datasets.nuscenes.layout import info_name, release_folder
from pcdet.datasets.nuscenes.nuscenes_dataset import NuScenesDataset
from pcdet.datasets.nuscenes.object_labels import labels_of_info
from pcdet.datasets.nuscenes.resampling import balanced_frames
from pcdet.datasets.nuscenes.sweeps import choose_sweeps
from pcdet.datasets.packed import PackedObjects, PackedTexts
from pcdet.registry import ConfigError
from pcdet.utils import safe_pickle

SWEEPS = nuscenes_files.SWEEPS


def config(repo_root, **changes) -> EasyDict:
    """The shipped file for the little release, without gt_sampling."""
    cfg = cfg_from_yaml_file(repo_root / "tools/cfgs/dataset_configs/nuscenes_dataset.yaml", EasyDict())
    cfg.VERSION, cfg.MAX_SWEEPS = nuscenes_files.VERSION, SWEEPS
    cfg.INFO_PATH = {mode: [info_name(split, SWEEPS)] for mode, split in (("train", "train"), ("test", "val"))}
    cfg.DATA_AUGMENTOR.DISABLE_AUG_LIST = ["gt_sampling"]
    cfg.update(changes)
    return cfg


def dataset(repo_root, root, training=False, **changes) -> NuScenesDataset:
    built = NuScenesDataset(config(repo_root, **changes), list(DETECTION_CLASSES), training, root)
    built.set_seed(1)
    return built


def infos_changed(prepared, tmp_path, change) -> tuple:
    """A folder whose only info files are those of the prepared release after ``change(infos)``, and their name."""
    name = info_name("train", SWEEPS)
    infos = safe_pickle.load(prepared / nuscenes_files.VERSION / name)
    change(infos)
    folder = tmp_path / nuscenes_files.VERSION
    folder.mkdir()
    for kind in ("samples", "sweeps"):
        (folder / kind).symlink_to(prepared / nuscenes_files.VERSION / kind)
    safe_pickle.dump(infos, folder / name)
    return tmp_path, {"INFO_PATH": {"train": [name], "test": [name]}}


def test_a_sample_has_all_sweeps_labels_and_its_token(prepared_release, repo_root):
    frame = dataset(repo_root, prepared_release).load_frame(1)
    assert frame["frame_id"] == "scene-0103_3.pcd" and frame["metadata"] == {"token": "scene-0103 1"}
    assert frame["points"].dtype == np.float32
    assert sorted(np.unique(frame["points"][:, 4])) == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6], abs=1e-6)
    assert frame["gt_boxes"].shape == (3, 9) and frame["gt_boxes"].dtype == np.float32
    assert frame["gt_names"].tolist() == ["car", "truck", "ignore"]


def test_a_batch_of_training_has_velocities_and_no_ignored_objects(prepared_release, repo_root):
    cfg = config(repo_root, BALANCED_RESAMPLING=False)
    _, loader, _ = build_dataloader(
        cfg, list(DETECTION_CLASSES), 3, False, prepared_release, workers=0, seed=3, training=True
    )
    (batch,) = loader
    assert batch["points"].shape[1] == 6 and batch["voxels"].shape[1:] == (10, 5)
    assert batch["gt_boxes"].shape == (3, 2, 10)
    assert sorted(batch["gt_boxes"][0, :, 9]) == [1, 2]  # car, truck
    speeds = np.hypot(batch["gt_boxes"][..., 7], batch["gt_boxes"][..., 8])
    np.testing.assert_allclose(speeds.max(axis=1), 5 * batch["noise_scale"], rtol=1e-5)  # the truck's, scaled


def test_pasted_objects_bring_their_velocities(prepared_release, repo_root):
    sampling = [node for node in config(repo_root).DATA_AUGMENTOR.AUG_CONFIG_LIST if node.NAME == "gt_sampling"]
    sampling[0].update(
        DB_INFO_PATH=[f"nuscenes_dbinfos_{SWEEPS}sweeps_withvelo.pkl"], SAMPLE_GROUPS=["truck:1"], PREPARE={}
    )
    data = dataset(
        repo_root, prepared_release, True, DATA_AUGMENTOR={"AUG_CONFIG_LIST": sampling}, BALANCED_RESAMPLING=False
    )
    frame = data.load_frame(0)
    frame["gt_boxes"], frame["gt_names"] = frame["gt_boxes"][:1], frame["gt_names"][:1]  # room for a truck
    frame = data.data_augmentor.forward(frame, np.random.default_rng(0))
    trucks = frame["gt_boxes"][frame["gt_names"] == "truck"]
    assert len(trucks) == 1
    np.testing.assert_allclose(np.hypot(trucks[:, 7], trucks[:, 8]), 5, rtol=1e-5)


def test_velocities_that_nobody_knows_are_zero_or_stay_nan(prepared_release, repo_root, tmp_path):
    def forget(infos):
        for info in infos:
            info["gt_boxes"][0, 7:] = np.nan

    root, files = infos_changed(prepared_release, tmp_path, forget)
    assert dataset(repo_root, root, **files).load_frame(0)["gt_boxes"][0, 7:].tolist() == [0, 0]
    kept = dataset(repo_root, root, SET_NAN_VELOCITY_TO_ZEROS=False, **files).load_frame(0)["gt_boxes"]
    assert np.isnan(kept[0, 7:]).all() and np.isfinite(kept[1]).all()
    assert dataset(repo_root, root, PRED_VELOCITY=False, **files).load_frame(0)["gt_boxes"].shape == (3, 7)


def test_boxes_with_too_few_points_are_neither_loaded_nor_counted(prepared_release, repo_root, tmp_path):
    root, files = infos_changed(
        prepared_release, tmp_path, lambda infos: [info["num_lidar_pts"].__setitem__(0, 4) for info in infos]
    )
    data = dataset(repo_root, root, FILTER_MIN_POINTS_IN_GT=5, **files)
    assert data.load_frame(0)["gt_names"].tolist() == ["truck", "ignore"]
    assert data.class_counts() == {"truck": 3, "ignore": 3}
    assert dataset(repo_root, root, FILTER_MIN_POINTS_IN_GT=4, **files).class_counts()["car"] == 3


def test_each_pass_of_a_merged_epoch_draws_sweeps_anew(prepared_release, repo_root):
    def lags(data, index):
        return tuple(np.unique(data[index]["points"][:, -1]).tolist())

    no_moves = {
        "DISABLE_AUG_LIST": ["gt_sampling", "random_world_flip", "random_world_rotation", "random_world_scaling"]
    }
    data = dataset(repo_root, prepared_release, True, MAX_SWEEPS=3, BALANCED_RESAMPLING=False, DATA_AUGMENTOR=no_moves)
    frames, passes = data.num_frames(), 12
    last = frames - 1  # four different sweeps stand in its info, of which two are drawn
    alone = lags(data, last)
    data.merge_all_iters_to_one_epoch(epochs=passes)
    drawn = [lags(data, last + k * frames) for k in range(passes)]
    assert drawn[0] == alone and len(set(drawn)) > 2
    assert drawn == [lags(data, last + k * frames) for k in range(passes)]
    assert data[last + frames]["frame_id"] == data[last]["frame_id"]


def test_a_class_derived_from_the_data_set_may_change_what_is_loaded(prepared_release, repo_root, monkeypatch):
    """Its load_frame was passed over where samples were asked for."""
    load = NuScenesDataset.load_frame
    monkeypatch.setattr(NuScenesDataset, "load_frame", lambda self, index: load(self, index) | {"frame_id": "own"})
    assert dataset(repo_root, prepared_release, False)[0]["frame_id"] == "own"


def test_sweeps_are_drawn_without_repetition_and_testing_repeats_itself(prepared_release, repo_root):
    rng = np.random.default_rng(0)
    drawn = [choose_sweeps(9, 4, rng) for _ in range(300)]
    assert all(len(set(d.tolist())) == 4 for d in drawn)
    counts = Counter(int(k) for d in drawn for k in d)
    assert set(counts) == set(range(9)) and min(counts.values()) > 90  # 133 each on the average
    assert choose_sweeps(9, 9, rng).tolist() == list(range(9))
    first, again = (dataset(repo_root, prepared_release, MAX_SWEEPS=3) for _ in range(2))
    np.testing.assert_array_equal(first.load_frame(1)["points"], again.load_frame(1)["points"])
    trained = dataset(repo_root, prepared_release, True, MAX_SWEEPS=3, BALANCED_RESAMPLING=False)
    lags = set()
    for epoch in range(12):
        trained.set_epoch(epoch)
        lags.add(tuple(np.unique(trained.load_frame(2)["points"][:, 4])))
    assert len(lags) > 2


# -------------------------------------------------------------------------------------------------- balanced resampling


def test_each_class_stands_in_as_many_frames_as_the_others():
    # 90 frames with cars, 9 with bicycles: (90 + 9) / 2 are drawn for each
    order = balanced_frames([["car"]] * 81 + [["car", "bicycle"]] * 9, ["car", "bicycle"])
    assert len(order) == 2 * 49
    assert (order[49:] >= 81).all() and len(set(order[:49].tolist())) > 30


def test_resampling_is_the_same_on_every_rank_and_run_and_leaves_numpys_generator_alone(prepared_release, repo_root):
    np.random.seed(5)
    first = dataset(repo_root, prepared_release, True)
    drawn = np.random.random()
    np.random.seed(6)
    second = dataset(repo_root, prepared_release, True)
    second.set_seed(99, rank=1)
    np.testing.assert_array_equal(first.order, second.order)
    assert first.fingerprint == second.fingerprint
    np.random.seed(5)
    assert np.random.random() == drawn
    assert len(dataset(repo_root, prepared_release)) == 2  # testing has every frame once


# ------------------------------------------------------------------------------------------------------- what is there


def test_infos_in_memory_hold_what_the_file_says(prepared_release, repo_root):
    data = dataset(repo_root, prepared_release)
    content = safe_pickle.load(prepared_release / nuscenes_files.VERSION / info_name("val", SWEEPS))
    for packed, info in zip(data.infos, content, strict=True):
        for key in set(packed) - {"sweeps"}:
            np.testing.assert_array_equal(packed[key], info[key])
        for ours, theirs in zip(packed["sweeps"], info["sweeps"], strict=True):
            np.testing.assert_array_equal(ours["transform_matrix"], theirs["transform_matrix"])
            assert ours["lidar_path"] == theirs["lidar_path"] and ours["time_lag"] == theirs["time_lag"]


def test_infos_of_openpcdet_with_cameras_load(prepared_release, repo_root, tmp_path):
    def add_cameras(infos):
        for info in infos:
            info["cams"] = {"CAM_FRONT": {"data_path": "samples/CAM_FRONT/0.jpg", "camera_intrinsics": np.eye(3)}}
            info["cam_front_path"], info["cam_intrinsic"] = "samples/CAM_FRONT/0.jpg", np.eye(3)

    root, files = infos_changed(prepared_release, tmp_path, add_cameras)
    data = dataset(repo_root, root, CAMERA_CONFIG={"USE_CAMERA": False}, **files)
    assert len(data[0]["points"]) and "cams" not in data.infos[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda info: info.pop("sweeps"), "has no sweeps"),
        (lambda info: info["sweeps"].pop(), "has 3 sweeps, MAX_SWEEPS: 5 needs 4"),
        (lambda info: info.update(lidar_path="../secret.bin"), "lidar_path must be relative"),
        (lambda info: info["sweeps"][1].update(transform_matrix=np.eye(3)), r"sweeps\[1\].transform_matrix must be"),
        (lambda info: info["sweeps"][1].pop("transform_matrix"), r"sweeps\[1\].transform_matrix is missing"),
        (lambda info: info["sweeps"][0]["transform_matrix"].fill(np.nan), r"sweeps\[0\].transform_matrix must be"),
        (lambda info: info["car_from_global"].fill(np.inf), "car_from_global must be"),
        (lambda info: info["sweeps"][2].update(time_lag=float("nan")), r"sweeps\[2\].time_lag must be"),
        (lambda info: info["sweeps"][3].update(lidar_path="/etc/x"), r"sweeps\[3\].lidar_path must be relative"),
        (lambda info: info.update(token=7), "token must be a text"),
        (lambda info: info["gt_boxes"].__setitem__((2, 0), np.nan), r"object 2 \(ignore\) must have finite numbers"),
        (lambda info: info["num_radar_pts"].__setitem__(0, -1), "num_radar_pts must be 3 counts"),
        (lambda info: info.update(gt_boxes=info["gt_boxes"][:, :7]), "no velocities, which PRED_VELOCITY"),
        (lambda info: info["gt_boxes"].__setitem__((1, 3), 0), r"object 1 \(truck\) must have finite numbers"),
        (lambda info: info.update(gt_names=info["gt_names"][:2]), "a row for each name"),
        (lambda info: info.update(num_lidar_pts=np.array([1])), "num_lidar_pts must be 3 counts"),
    ],
)
def test_an_info_that_cannot_be_used_is_named(prepared_release, repo_root, tmp_path, change, said):
    root, files = infos_changed(prepared_release, tmp_path, lambda infos: change(infos[1]))
    with pytest.raises(DataError, match=rf"frame 1( \(scene-0061 1\))?: .*{said}"):
        dataset(repo_root, root, **files)


def test_missing_infos_and_clouds_are_named_with_what_makes_them(release, repo_root):
    with pytest.raises(DataError, match=r"nuscenes_infos_5sweeps_val.pkl does not exist.*create_nuscenes_infos"):
        dataset(repo_root, release)


def test_a_cloud_that_went_missing_is_named(prepared_release, repo_root, tmp_path):
    root, files = infos_changed(
        prepared_release, tmp_path, lambda infos: infos[0].update(lidar_path="samples/LIDAR_TOP/lost.bin")
    )
    with pytest.raises(DataError, match=r"lost\.bin does not exist, but the infos name it"):
        dataset(repo_root, root, **files).load_frame(0)


def test_cameras_and_other_features_are_refused_before_anything_is_read(repo_root, tmp_path):
    with pytest.raises(ConfigError, match="CAMERA_CONFIG.USE_CAMERA: images are not read"):
        dataset(repo_root, tmp_path, CAMERA_CONFIG={"USE_CAMERA": True})
    with pytest.raises(ConfigError, match="CAMERA_CONFIG.USE_CAMERA: images are not read"):
        dataset(repo_root, tmp_path, CAMERA_CONFIG={"IMAGE": {}})  # in OpenPCDet, cameras are used then
    features = {
        "encoding_type": "absolute_coordinates_encoding",
        "used_feature_list": ["x", "y", "z"],
        "src_feature_list": ["x", "y", "z"],
    }
    with pytest.raises(ConfigError, match="src_feature_list: must be"):
        dataset(repo_root, tmp_path, POINT_FEATURE_ENCODING=features)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("FOV_POINTS_ONLY", {"FOV_POINTS_ONLY": True}),
        ("SKIP_BAD_FRAMES", {"SKIP_BAD_FRAMES": True}),
        ("MAP_CLASS_TO_KITTI", {"MAP_CLASS_TO_KITTI": {"car": "Car"}}),
        ("GET_ITEM_LIST", {"GET_ITEM_LIST": ["points", "images"]}),
    ],
)
def test_keys_of_kittis_layout_are_refused_and_not_ignored(repo_root, tmp_path, key, changes):
    with pytest.raises(ConfigError, match=f"{key}: this data set does nothing with it"):
        dataset(repo_root, tmp_path, **changes)


def test_a_damaged_cloud_is_named_without_advice_that_does_nothing_here(prepared_release, repo_root, tmp_path):
    root, files = infos_changed(prepared_release, tmp_path, lambda infos: infos[0].update(lidar_path="short.bin"))
    (root / nuscenes_files.VERSION / "short.bin").write_bytes(b"123")
    with pytest.raises(DataError, match=r"short\.bin has 3 bytes.*copy it again$"):
        dataset(repo_root, root, **files).load_frame(0)


def test_both_layouts_of_a_release_are_found(tmp_path):
    (tmp_path / "flat/samples").mkdir(parents=True)
    (tmp_path / "flat/v1.0-mini").mkdir()
    (tmp_path / "nested/v1.0-mini/samples").mkdir(parents=True)
    assert release_folder(tmp_path / "flat", "v1.0-mini") == tmp_path / "flat"
    assert release_folder(tmp_path / "nested", "v1.0-mini") == tmp_path / "nested/v1.0-mini"
    assert release_folder(tmp_path / "nowhere", "v1.0-mini") == tmp_path / "nowhere/v1.0-mini"


# ------------------------------------------------------------------------------------------------- labels and results


def test_labels_tell_points_and_motion_and_match_within_two_metres(prepared_release, repo_root):
    data = dataset(repo_root, prepared_release)
    labels = data.frame_labels(0)
    assert labels.names == ["car", "truck", "ignore"] and labels.points == [27, 27, 27]
    assert labels.attributes == {"motion": ["standing", "moving", "standing"]}
    assert str(data.matching_rules()["bicycle"]) == "centres at most 2 m apart over the ground"


def test_labels_that_the_evaluation_does_not_look_for_are_neutral():
    # The LiDAR stands 1 m ahead of the vehicle's origin, its x axis to the right. A car is found nearer than 50 m, a
    # pedestrian nearer than 40 m, a cone nearer than 30 m of the origin; y of a box is 1 m less than its distance.
    ref_from_car = np.array([[0.0, -1, 0, 0], [1, 0, 0, -1], [0, 0, 1, -1.8], [0, 0, 0, 1]])
    quarter_turn = np.array([[0.0, 1, 0, 700], [-1, 0, 0, -300], [0, 0, 1, 2], [0, 0, 0, 1]])
    ahead = {"car": [48.9, 49.0, 10], "pedestrian": [38.9, 39.1], "traffic_cone": [28.9, 29.1], "ignore": [80.0]}
    names = [name for name, ys in ahead.items() for _ in ys]
    boxes = np.ones((len(names), 9))
    boxes[:, 0], boxes[:, 1] = 0, [y for ys in ahead.values() for y in ys]
    lidar, radar = np.ones(len(names), dtype=int), np.zeros(len(names), dtype=int)
    lidar[2] = 0  # nothing has hit the third car; a radar has hit the first, and no LiDAR
    lidar[0], radar[0] = 0, 1
    info = {"lidar_path": "samples/a.pcd.bin", "ref_from_car": ref_from_car, "car_from_global": quarter_turn}
    info |= {"gt_names": np.array(names), "gt_boxes": boxes, "num_lidar_pts": lidar, "num_radar_pts": radar}
    neutral = [(), ("car",), ("car",), (), ("pedestrian",), (), ("traffic_cone",), ()]
    assert list(labels_of_info(info).neutral) == neutral
    del info["num_radar_pts"]  # then nobody knows that nothing has hit the third car
    assert labels_of_info(info).neutral[2] == ()
    del info["car_from_global"]
    with pytest.raises(DataError, match=r"frame a\.pcd: its info has no car_from_global"):
        labels_of_info(info)


def test_a_frame_without_objects_has_samples_and_labels(prepared_release, repo_root, tmp_path):
    def empty(infos):
        for key in ("gt_boxes", "gt_names", "num_lidar_pts", "num_radar_pts"):
            infos[0][key] = infos[0][key][:0]

    root, files = infos_changed(prepared_release, tmp_path, empty)
    data = dataset(repo_root, root, **files)
    assert data.load_frame(0)["gt_boxes"].shape == (0, 9)
    labels = data.frame_labels(0)
    assert labels.boxes.shape == (0, 7) and labels.names == [] and labels.attributes == {"motion": []}


def test_results_have_nine_columns_and_the_token(prepared_release, repo_root):
    batch = {"frame_id": ["a", "b"], "metadata": [{"token": "s"}, {"token": "t"}]}
    found = {"pred_boxes": np.ones((1, 9)), "pred_scores": np.array([0.5]), "pred_labels": np.array([10])}
    nothing = {"pred_boxes": np.zeros((0, 9)), "pred_scores": np.zeros(0), "pred_labels": np.zeros(0)}
    one, none = NuScenesDataset.generate_prediction_dicts(batch, [found, nothing], list(DETECTION_CLASSES))
    assert one["name"].tolist() == ["traffic_cone"] and one["boxes_lidar"].shape == (1, 9)
    assert one["metadata"] == {"token": "s"} and one["pred_labels"].tolist() == [10] and one["frame_id"] == "a"
    assert none["name"].tolist() == [] and none["metadata"] == {"token": "t"}


def test_packed_lists_give_back_what_they_were_made_of():
    texts = ["", "a", "Grüße", "x" * 1000]
    packed = PackedTexts(texts)
    assert list(packed) == texts and packed[-1] == texts[-1]
    objects = [{"a": np.arange(3)}, None]
    assert PackedObjects(objects)[0]["a"].tolist() == [0, 1, 2] and PackedObjects(objects)[1] is None
    with pytest.raises(IndexError):
        packed[4]
