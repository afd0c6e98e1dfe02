"""Info files of nuScenes: boxes, velocities and sweeps of a world that is known, real tables, and what is missing."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from support import nuscenes_files

from pcdet.cli.create_nuscenes_infos import main
from pcdet.datasets.errors import DataError
from pcdet.datasets.nuscenes.create_infos import create_nuscenes_infos
from pcdet.datasets.nuscenes.infos import InfoMaker
from pcdet.datasets.nuscenes.splits import samples_of_split
from pcdet.datasets.nuscenes.sweeps import load_sweeps
from pcdet.datasets.nuscenes.tables import Tables
from pcdet.utils import safe_pickle
from pcdet.utils.box_utils import points_in_boxes_mask

SWEEPS = nuscenes_files.SWEEPS


def infos_of(root: Path, split: str, max_sweeps: int = SWEEPS) -> list[dict]:
    return safe_pickle.load(root / nuscenes_files.VERSION / f"nuscenes_infos_{max_sweeps}sweeps_{split}.pkl")


def test_infos_have_openpcdets_keys_and_types(prepared_release):
    info = infos_of(prepared_release, "train")[1]
    assert set(info) == {
        "lidar_path", "token", "sweeps", "ref_from_car", "car_from_global", "timestamp", "gt_boxes",
        "gt_boxes_velocity", "gt_names", "gt_boxes_token", "num_lidar_pts", "num_radar_pts",
    }  # fmt: skip
    assert set(info["sweeps"][0]) == {
        "lidar_path", "sample_data_token", "transform_matrix", "global_from_car", "car_from_current", "time_lag",
    }  # fmt: skip
    assert info["lidar_path"] == "samples/LIDAR_TOP/scene-0061_3.pcd.bin" and info["token"] == "scene-0061 1"
    assert info["timestamp"] == pytest.approx(1.5)
    assert info["gt_boxes"].shape == (3, 9) and info["gt_boxes"].dtype == np.float64
    assert info["gt_names"].tolist() == ["car", "truck", "ignore"]  # what no point has hit is left out


def test_boxes_and_velocities_are_those_of_the_world_seen_from_the_sensor(prepared_release):
    boxes = infos_of(prepared_release, "train")[1]["gt_boxes"]
    yaw = nuscenes_files.car_pose(0.5)[1] + nuscenes_files.SENSOR_YAW
    for box, name in zip(boxes, ("parked", "moving", "ambulance"), strict=True):
        place = nuscenes_files.to_lidar(nuscenes_files.place_of(name, 0.5)[None], 0.5)[0]
        _, _, velocity, heading = nuscenes_files.OBJECTS[name]
        np.testing.assert_allclose(box[:3], place, atol=1e-9)
        np.testing.assert_allclose(box[3:6], [4.0, 2.0, 1.5])
        assert math.remainder(box[6] - (heading - yaw), 2 * math.pi) == pytest.approx(0, abs=1e-9)
        np.testing.assert_allclose(box[7:9], (np.array(velocity) @ nuscenes_files.turn(yaw))[:2], atol=1e-9)


def test_a_velocity_over_more_than_a_second_and_a_half_is_not_known(release):
    def an_hour_later(rows):
        for row in rows:
            if row["token"].endswith(" 1"):
                row["timestamp"] += 3_600_000_000

    nuscenes_files.change_table(release, "sample", an_hour_later)
    create_nuscenes_infos(release, nuscenes_files.VERSION, 1, workers=0, database=False)
    first, middle, _ = infos_of(release, "train", 1)
    assert np.isnan(first["gt_boxes"][:, 7:]).all() and np.isnan(first["gt_boxes_velocity"]).all()
    assert np.isfinite(middle["gt_boxes"]).all()  # from its neighbours, which are a second apart


def test_sweeps_go_back_in_time_and_repeat_the_first_cloud_of_a_scene(prepared_release):
    infos = infos_of(prepared_release, "train")
    steps = [[int(Path(s["lidar_path"]).name[11]) for s in info["sweeps"]] for info in infos]
    assert steps == [[0, 0, 0, 0], [2, 1, 0, 0], [5, 4, 3, 2]]
    assert infos[0]["sweeps"][0]["transform_matrix"] is None and infos[0]["sweeps"][0]["time_lag"] == 0
    np.testing.assert_allclose([s["time_lag"] for s in infos[2]["sweeps"]], np.arange(1, 5) / 6, atol=1e-6)


def test_a_standing_object_stays_in_its_box_in_every_sweep(prepared_release):
    info = infos_of(prepared_release, "train")[2]
    points = load_sweeps(prepared_release / nuscenes_files.VERSION, info["lidar_path"], info["sweeps"])
    assert points.dtype == np.float32 and points.shape[1] == 5
    parked, moving, _ = points_in_boxes_mask(points, info["gt_boxes"][:, :7])
    assert parked.sum() == nuscenes_files.POINTS_OF_AN_OBJECT * SWEEPS
    assert np.unique(points[parked, 4]).tolist() == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6], abs=1e-6)
    # At 5 m/s along its 4 m, two of its three layers are still in the box after 1/6 and 2/6 s, then one.
    assert np.unique(points[moving, 4], return_counts=True)[1].tolist() == [27, 18, 18, 9, 9]
    assert (points[moving, 3] == 7.0).all()


def test_the_vehicle_is_removed_from_sweeps_and_stays_in_the_key_frame(prepared_release):
    info = infos_of(prepared_release, "train")[2]
    root = prepared_release / nuscenes_files.VERSION
    points = load_sweeps(root, info["lidar_path"], [{**s, "transform_matrix": None} for s in info["sweeps"]])
    near = (np.abs(points[:, :2]) < 1).all(axis=1)
    np.testing.assert_allclose(points[near, :3], [nuscenes_files.EGO_POINT], rtol=1e-6)


def test_the_database_holds_the_points_of_each_object_about_its_centre(prepared_release):
    root = prepared_release / nuscenes_files.VERSION
    database = safe_pickle.load(root / f"nuscenes_dbinfos_{SWEEPS}sweeps_withvelo.pkl")
    assert {name: len(entries) for name, entries in database.items() if entries} == {"car": 3, "truck": 3}
    entry = database["car"][2]
    assert entry["path"] == f"gt_database_{SWEEPS}sweeps_withvelo/2_car_0.bin" and entry["image_idx"] == 2
    assert entry["box3d_lidar"].shape == (9,) and entry["gt_idx"] == 0
    points = np.fromfile(root / entry["path"], dtype=np.float32).reshape(-1, 5)
    assert len(points) == entry["num_points_in_gt"] == nuscenes_files.POINTS_OF_AN_OBJECT * SWEEPS
    np.testing.assert_allclose(points[:, :3].mean(axis=0), 0, atol=1e-4)
    assert len(list((root / entry["path"]).parent.iterdir())) == 6


def test_a_run_that_was_stopped_goes_on_where_it_was(release, monkeypatch, caplog):
    from pcdet.datasets.nuscenes import create_infos

    caplog.set_level("INFO")
    read = []

    def stop_after_two(frame):
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(frame.number)
        return write_objects(frame)

    write_objects = create_infos.write_objects
    monkeypatch.setattr(create_infos, "write_objects", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        create_nuscenes_infos(release, nuscenes_files.VERSION, SWEEPS, workers=0)
    folder = release / nuscenes_files.VERSION
    assert not list(folder.glob("*.pkl"))
    monkeypatch.setattr(create_infos, "write_objects", lambda frame: read.append(frame.number) or write_objects(frame))
    create_nuscenes_infos(release, nuscenes_files.VERSION, SWEEPS, workers=0)
    assert read == [0, 1, 2] and "going on after 2 of 3 frames" in caplog.text
    assert len(safe_pickle.load(folder / f"nuscenes_dbinfos_{SWEEPS}sweeps_withvelo.pkl")["truck"]) == 3
    assert not list(folder.glob(".*journal"))


def test_several_processes_make_the_same_files(prepared_release, release):
    create_nuscenes_infos(release, nuscenes_files.VERSION, SWEEPS, workers=2)
    for file in (prepared_release / nuscenes_files.VERSION).glob("*.pkl"):
        assert (release / nuscenes_files.VERSION / file.name).read_bytes() == file.read_bytes()


# ------------------------------------------------------------------------------------------------- what may be missing


def test_missing_and_short_clouds_are_all_named_and_nothing_is_written(release):
    folder = release / nuscenes_files.VERSION
    (folder / "sweeps/LIDAR_TOP/scene-0061_1.pcd.bin").unlink()
    (folder / "samples/LIDAR_TOP/scene-0103_3.pcd.bin").unlink()
    (folder / "sweeps/LIDAR_TOP/scene-0103_2.pcd.bin").write_bytes(b"123")
    (folder / "sweeps/LIDAR_TOP/scene-0061_2.pcd.bin").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        create_nuscenes_infos(release, nuscenes_files.VERSION, SWEEPS, workers=0)
    text = str(caught.value)
    assert "scene-0061_1.pcd.bin does not exist" in text and "scene-0103_3.pcd.bin does not exist" in text
    assert "scene-0103_2.pcd.bin has 3 bytes, which is no multiple of 20" in text and "--skip_missing" in text
    assert "scene-0061_2.pcd.bin is empty" in text
    assert sorted(p.name for p in folder.iterdir()) == ["samples", "sweeps", nuscenes_files.VERSION]


def test_samples_without_all_their_clouds_can_be_left_out(release, caplog):
    (release / nuscenes_files.VERSION / "sweeps/LIDAR_TOP/scene-0061_4.pcd.bin").unlink()
    create_nuscenes_infos(release, nuscenes_files.VERSION, SWEEPS, workers=0, skip_missing=True)
    assert [info["token"] for info in infos_of(release, "train")] == ["scene-0061 0", "scene-0061 1"]
    assert "left out 1 of 3 samples of train" in caplog.text


def test_a_cloud_that_is_not_finite_is_named_and_no_info_file_is_written(release):
    file = release / nuscenes_files.VERSION / "samples/LIDAR_TOP/scene-0061_3.pcd.bin"
    np.full((4, 5), np.nan, dtype=np.float32).tofile(file)
    with pytest.raises(DataError, match=r"scene-0061_3\.pcd\.bin holds NaN"):
        create_nuscenes_infos(release, nuscenes_files.VERSION, SWEEPS, workers=0)
    assert not list((release / nuscenes_files.VERSION).glob("*.pkl"))


def test_unknown_categories_and_lost_rows_are_all_named(release):
    nuscenes_files.change_table(release, "category", lambda rows: rows[0].update(name="vehicle.boat"))
    nuscenes_files.change_table(release, "ego_pose", lambda rows: rows.pop(1))
    with pytest.raises(DataError) as caught:
        create_nuscenes_infos(release, nuscenes_files.VERSION, SWEEPS, workers=0)
    text = str(caught.value)
    assert "category.json: there is no category 'vehicle.boat'" in text
    assert "sample scene-0061 1: " in text and "no row with the token 'scene-0061 pose 1'" in text


def test_malformed_rows_are_named_with_table_and_field_and_not_for_every_sample(release):
    nuscenes_files.change_table(release, "sample_data", lambda rows: rows[-1].pop("filename"))
    nuscenes_files.change_table(release, "sample_annotation", lambda rows: rows[0].update(size=[1.0, 2.0]))
    with pytest.raises(DataError) as caught:
        create_nuscenes_infos(release, nuscenes_files.VERSION, SWEEPS, workers=0)
    first, second = caught.value.problems
    assert "sample_data.json: the row 'scene-0103 data 3': filename must be a text, and is not there" in first
    assert "sample_annotation.json: the row 'scene-0061 0 parked': size must be three numbers above 0" in second


def test_key_frames_of_a_lost_sensor_are_one_problem_and_not_one_of_every_sample(release):
    nuscenes_files.change_table(release, "calibrated_sensor", lambda rows: rows[0].update(token="another"))
    with pytest.raises(DataError, match=r"calibrated_sensor_token is 'lidar of the car'.*\(5 such rows\)") as caught:
        create_nuscenes_infos(release, nuscenes_files.VERSION, SWEEPS, workers=0)
    assert len(caught.value.problems) == 1


def test_missing_tables_are_named_once_and_not_for_every_sample(release):
    for name in ("ego_pose", "sample_annotation"):
        (release / nuscenes_files.VERSION / nuscenes_files.VERSION / f"{name}.json").unlink()
    with pytest.raises(DataError) as caught:
        create_nuscenes_infos(release, nuscenes_files.VERSION, SWEEPS, workers=0)
    first, second = caught.value.problems
    assert "ego_pose.json is not there" in first and "sample_annotation.json is not there" in second


def test_a_release_that_does_not_exist_is_refused_with_those_that_do(release, tmp_path):
    with pytest.raises(DataError, match=r"no release 'v1.0-maxi'.*v1.0-trainval, v1.0-mini, v1.0-test"):
        create_nuscenes_infos(release, "v1.0-maxi")
    with pytest.raises(DataError, match=r"has no tables of version v1.0-test"):
        create_nuscenes_infos(release, "v1.0-test")


def test_a_test_release_has_infos_without_labels(tmp_path):
    root = nuscenes_files.write_release(tmp_path, "v1.0-test", {"scene-0077": 2})
    for table in ("sample_annotation", "instance", "category"):
        (root / "v1.0-test/v1.0-test" / f"{table}.json").write_text("[]")
    written = create_nuscenes_infos(root, "v1.0-test", 3, workers=0)
    assert {name: path.name for name, path in written.items()} == {"test": "nuscenes_infos_3sweeps_test.pkl"}
    infos = safe_pickle.load(written["test"])
    assert len(infos) == 2 and not any("gt_boxes" in info for info in infos)


def test_the_command_takes_openpcdets_flags(release, repo_root, capsys):
    config = str(repo_root / "tools/cfgs/dataset_configs/nuscenes_dataset.yaml")
    flags = ["--func", "create_nuscenes_infos", "--cfg_file", config, "--data_path", str(release), "--workers", "1"]
    assert main([*flags, "--version", "v1.0-mini"]) == 0
    assert len(infos_of(release, "val", 10)) == 2
    assert main(flags) == 1  # the file's version is v1.0-trainval
    assert "has no tables of version v1.0-trainval" in capsys.readouterr().out
    assert main([*flags, "--version", "v1.0-mini", "--max_sweeps", "0"]) == 1
    assert "MAX_SWEEPS: must be at least 1" in capsys.readouterr().out
    flags[3] = str(repo_root / "tools/cfgs/dataset_configs/kitti_dataset.yaml")
    assert main(flags) == 1
    assert "kitti_dataset.yaml has no VERSION; name a file of nuScenes' data" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------- real material


def test_points_of_a_real_key_frame_lie_in_the_boxes_that_its_info_gives(nuscenes_root, tmp_path):
    for name in ("samples", "sweeps", "v1.0-mini"):  # as the archives unpack
        (tmp_path / name).symlink_to(nuscenes_root / name)
    written = create_nuscenes_infos(tmp_path, "v1.0-mini", 1, workers=0, skip_missing=True)
    (info,) = safe_pickle.load(written["val"])
    points = load_sweeps(tmp_path, info["lidar_path"], info["sweeps"])
    counts = points_in_boxes_mask(points, info["gt_boxes"][:, :7], margin=0.0).sum(axis=1)
    # Of its 55 labels 50 hold as many points as the table says: 7 of these none, which infos leave out.
    assert len(counts) == 48 and (counts == info["num_lidar_pts"]).sum() >= 43


def test_points_of_another_real_key_frame_lie_in_its_published_boxes(nuscenes_root):
    frame = json.loads((nuscenes_root / "scene-0061_keyframe.json").read_text())
    points = load_sweeps(nuscenes_root, frame["file"], [])
    boxes = np.array([o["box"] for o in frame["boxes"]])
    counts = points_in_boxes_mask(points, boxes, margin=0.0).sum(axis=1)
    assert len(counts) == 69 and (counts == [o["num_lidar_pts"] for o in frame["boxes"]]).sum() >= 61


def test_missing_clouds_of_the_real_release_are_named(nuscenes_root, tmp_path):
    (tmp_path / "v1.0-mini").symlink_to(nuscenes_root / "v1.0-mini")
    with pytest.raises(DataError, match=r"no scene of the split mini_train"):
        create_nuscenes_infos(nuscenes_root, "v1.0-mini", 10, workers=0)
    with pytest.raises(DataError, match=r"no sample has all its clouds"):
        create_nuscenes_infos(nuscenes_root, "v1.0-mini", 10, workers=0, skip_missing=True)


def test_real_velocities_lead_from_one_label_of_an_object_to_the_next(nuscenes_root):
    tables = Tables(nuscenes_root, "v1.0-mini")
    maker = InfoMaker(tables, 1, labelled=True)
    off = []
    for sample in samples_of_split(tables, "mini_val")[10:20]:
        info = maker.make(sample)
        global_from_lidar = np.linalg.inv(info["ref_from_car"] @ info["car_from_global"])
        for token, velocity in zip(info["gt_boxes_token"], info["gt_boxes_velocity"], strict=True):
            row = tables.get("sample_annotation", str(token))
            if row["prev"] and row["next"]:
                before, after = (tables.get("sample_annotation", row[key]) for key in ("prev", "next"))
                times = [tables.get("sample", r["sample_token"])["timestamp"] for r in (before, after)]
                moved = np.subtract(after["translation"], before["translation"]) / (times[1] - times[0]) * 1e6
                off.append(np.abs(global_from_lidar[:3, :3] @ velocity - moved).max())
    assert len(off) > 300 and max(off) < 0.02
