"""create_kitti_infos: what it writes, what it complains of, and that it goes on where it was."""

import logging
import pickle
import subprocess
import sys

import numpy as np
import pytest
from support import kitti_files
from support.kitti_files import CAR, PEDESTRIAN, VAN

from pcdet.cli.create_kitti_infos import load_dataset_cfg, main
from pcdet.datasets.errors import DataError
from pcdet.datasets.kitti import frame_files, kitti_infos
from pcdet.datasets.kitti.kitti_infos import CLASS_NAMES, create_kitti_infos
from pcdet.datasets.kitti.kitti_utils import image_shape_of_calibration, read_png_size, read_road_plane
from pcdet.datasets.progress_log import ProgressLog
from pcdet.utils import safe_pickle
from pcdet.utils.calibration_kitti import Calibration


def create(root, workers=0, **changes):
    return create_kitti_infos(kitti_files.dataset_cfg(**changes), CLASS_NAMES, root, workers=workers)


def infos_of(root, split="train"):
    return {i["point_cloud"]["lidar_idx"]: i for i in safe_pickle.load(root / f"kitti_infos_{split}.pkl")}


# ------------------------------------------------------------------------------------------------------------- schema


def test_infos_have_openpcdets_schema(prepared_kitti):
    info = infos_of(prepared_kitti)["000000"]
    assert info["point_cloud"] == {"num_features": 4, "lidar_idx": "000000"}
    assert info["image"]["image_idx"] == "000000"
    assert info["image"]["image_shape"].dtype == np.int32
    np.testing.assert_array_equal(info["image"]["image_shape"], [360, 1200])
    for key in ("P2", "R0_rect", "Tr_velo_to_cam"):
        assert info["calib"][key].shape == (4, 4)
    np.testing.assert_array_equal(info["calib"]["P2"][:3], kitti_files.P2)
    np.testing.assert_array_equal(info["calib"]["P2"][3], [0, 0, 0, 1])
    annos = info["annos"]
    # DontCare stands first in the file and last in the info
    assert annos["name"].tolist() == ["Car", "Pedestrian", "Cyclist", "Van", "DontCare"]
    assert annos["index"].tolist() == [0, 1, 2, 3, -1]
    assert annos["num_points_in_gt"].tolist() == [27, 27, 27, 27, -1]
    shapes = {"bbox": (5, 4), "dimensions": (5, 3), "location": (5, 3), "gt_boxes_lidar": (4, 7)}
    for key in ("truncated", "occluded", "alpha", "rotation_y", "score", "difficulty"):
        shapes[key] = (5,)
    assert {key: annos[key].shape for key in shapes} == shapes
    assert annos["location"].dtype == annos["bbox"].dtype == np.float32
    assert annos["difficulty"].dtype == annos["index"].dtype == annos["num_points_in_gt"].dtype == np.int32
    np.testing.assert_allclose(annos["dimensions"][0], [CAR[3], CAR[5], CAR[4]], atol=1e-6)  # l, h, w
    np.testing.assert_allclose(annos["gt_boxes_lidar"][0], CAR, atol=1e-5)
    assert annos["difficulty"].tolist()[:4] == [0, 0, 0, 0]
    assert (annos["score"] == -1).all()


def test_a_frame_without_objects_is_a_frame(prepared_kitti):
    annos = infos_of(prepared_kitti)["000002"]["annos"]
    assert annos["name"].shape == (0,) and annos["name"].dtype.kind == "U"
    assert annos["gt_boxes_lidar"].shape == (0, 7) and annos["bbox"].shape == (0, 4)


def test_trainval_is_train_then_val_and_the_pickles_are_ordinary(prepared_kitti):
    with open(prepared_kitti / "kitti_infos_trainval.pkl", "rb") as stream:
        both = pickle.load(stream)
    assert [i["image"]["image_idx"] for i in both] == [f"00000{n}" for n in range(6)]


def test_the_database_holds_each_objects_points_about_its_centre(prepared_kitti):
    database = safe_pickle.load(prepared_kitti / "kitti_dbinfos_train.pkl")
    assert {name: len(entries) for name, entries in database.items()} == {
        "Car": 3,
        "Pedestrian": 1,
        "Cyclist": 2,
        "Van": 1,
    }
    entry = database["Pedestrian"][0]
    assert set(entry) == {
        *("name", "path", "image_idx", "gt_idx", "box3d_lidar", "num_points_in_gt", "difficulty", "bbox", "score")
    }
    assert entry["path"] == "gt_database/000000_Pedestrian_1.bin"
    assert (entry["image_idx"], entry["gt_idx"], entry["num_points_in_gt"]) == ("000000", 1, 27)
    np.testing.assert_allclose(entry["box3d_lidar"], PEDESTRIAN, atol=1e-5)
    points = np.fromfile(prepared_kitti / entry["path"], dtype=np.float32).reshape(-1, 4)
    expected = kitti_files.grid_inside(PEDESTRIAN)
    expected[:, :3] -= np.array(PEDESTRIAN[:3], dtype=np.float32)  # not turned
    np.testing.assert_allclose(points, expected, atol=1e-5)


def test_the_database_takes_points_of_the_whole_cloud_the_infos_only_seen_ones(raw_kitti):
    behind = (-10.0, 1.0, -1.0, 4.0, 1.8, 1.5, 0.1)
    kitti_files.write_frame(raw_kitti / "training", "000001", kitti_files.label_line("Car", behind), [behind])
    create(raw_kitti)
    assert infos_of(raw_kitti)["000001"]["annos"]["num_points_in_gt"].tolist() == [0]
    cars = safe_pickle.load(raw_kitti / "kitti_dbinfos_train.pkl")["Car"]
    assert next(e for e in cars if e["image_idx"] == "000001")["num_points_in_gt"] == 27


# --------------------------------------------------------------------------------------------- splits and image shapes


def test_a_missing_test_split_is_skipped_with_a_word(raw_kitti, caplog):
    with caplog.at_level(logging.INFO, "pcdet"):
        written = create(raw_kitti)
    assert "Skipped the test split" in caplog.text
    assert set(written) == {"train", "val", "trainval", "dbinfos_train"}


def test_a_test_split_has_infos_without_labels(raw_kitti):
    kitti_files.write_frame(raw_kitti / "testing", "000000", None, [CAR])
    (raw_kitti / "ImageSets" / "test.txt").write_text("000000\n")
    create(raw_kitti)
    info = infos_of(raw_kitti, "test")["000000"]
    assert "annos" not in info and info["image"]["image_shape"].tolist() == [360, 1200]


def test_without_images_there_is_one_warning_and_a_default(raw_kitti, caplog):
    for image in (raw_kitti / "training" / "image_2").iterdir():
        image.unlink()
    with caplog.at_level(logging.WARNING, "pcdet"):
        create(raw_kitti)
    assert len(caplog.records) == 1
    assert "6 of 6 frames have no image_2/*.png" in caplog.text and "1242 x 375" in caplog.text
    image = infos_of(raw_kitti)["000000"]["image"]
    assert image["image_shape"].tolist() == [375, 1242] and image["image_shape_source"] == "default"


@pytest.mark.parametrize(("u", "v", "shape"), [(604.0814, 180.5066, (370, 1224)), (607.1928, 185.2157, (376, 1241))])
def test_kittis_calibrations_tell_the_image_size(u, v, shape):
    p2 = np.array([[700.0, 0, u, 45], [0, 700, v, 0], [0, 0, 1, 0]])
    calib = Calibration({"P2": p2, "R0": kitti_files.R0, "Tr_velo2cam": kitti_files.VELO_TO_CAM})
    assert image_shape_of_calibration(calib) == (shape, True)


def test_png_headers(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(kitti_files.png(7, 11))
    assert read_png_size(path) == (7, 11)
    path.write_bytes(b"\xff\xd8 a photograph of another kind")
    with pytest.raises(ValueError, match="image.png is not a PNG"):
        read_png_size(path)


def test_road_planes_point_up_and_are_normalised(tmp_path):
    path = tmp_path / "plane.txt"
    path.write_text("# Plane\nWidth 4\nHeight 1\n0 2 0 -3.3\n")
    np.testing.assert_allclose(read_road_plane(path), [0, -1, 0, 1.65], rtol=1e-6)
    path.write_text("# Plane\nWidth 4\nHeight 1\n")
    with pytest.raises(ValueError, match="plane.txt: line 4"):
        read_road_plane(path)


# ---------------------------------------------------------------------------------------------------------- complaints


def test_everything_that_is_wrong_is_named_before_anything_is_written(raw_kitti, monkeypatch):
    training = raw_kitti / "training"
    (training / "velodyne" / "000000.bin").unlink()
    (training / "calib" / "000001.txt").write_text("P2: 1 2\n")
    (training / "calib" / "000002.txt").unlink()
    (training / "label_2" / "000003.txt").write_text(kitti_files.label_line("Car", CAR) + "Car 0 0\nVan 1 x\n")
    (training / "label_2" / "000004.txt").unlink()
    (training / "velodyne" / "000005.bin").write_bytes(bytes(17))
    (training / "image_2" / "000005.png").write_bytes(b"")
    monkeypatch.setattr(kitti_infos, "build_frame", lambda *_: pytest.fail("the long work started"))
    with pytest.raises(DataError) as error:
        create(raw_kitti)
    text = "\n".join(error.value.problems)
    assert len(error.value.problems) == 8
    for words in (
        "frame 000000: .*000000.bin does not exist",
        "frame 000001: .*P2 must hold 12",
        "frame 000002: .*calib.*does not exist",
        "frame 000003: .*000003.txt, line 2: expected 15 fields",
        "frame 000003: .*000003.txt, line 3: ",
        "frame 000004: .*label_2.*does not exist",
        "frame 000005: .*000005.bin has 17 bytes.*SKIP_BAD_FRAMES",
        "frame 000005: .*not a PNG",
    ):
        assert pytest.approx(1) == len(__import__("re").findall(words, text)), words
    assert not (raw_kitti / "kitti_infos_train.pkl").exists() and not (raw_kitti / "gt_database").exists()


def test_missing_lists_and_folders_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(kitti_infos, "IMAGE_SETS", tmp_path / "nowhere")
    with pytest.raises(DataError) as error:
        create(tmp_path)
    assert len(error.value.problems) == 3
    assert "training does not exist" in str(error.value) and "val.txt does not exist" in str(error.value)


def test_the_shipped_lists_are_kittis_usual_division():
    """3,712 and 3,769 of 7,481 frames (Chen et al., NIPS 2015), each once, and 7,518 test frames."""
    lists = {split: (kitti_infos.IMAGE_SETS / f"{split}.txt").read_text().split() for split in kitti_infos.SPLITS}
    assert [len(frames) for frames in lists.values()] == [3712, 3769, 7518]
    assert sorted(lists["train"] + lists["val"]) == [f"{i:06d}" for i in range(7481)]
    assert lists["test"] == [f"{i:06d}" for i in range(7518)]
    assert lists["train"][:4] == ["000000", "000003", "000007", "000009"]
    assert lists["val"][:4] == ["000001", "000002", "000004", "000005"]


def test_a_folder_without_lists_takes_the_shipped_ones_and_says_so(raw_kitti, tmp_path, monkeypatch, caplog):
    shipped = tmp_path / "shipped"
    (raw_kitti / "ImageSets").rename(shipped)
    (shipped / "train.txt").write_text("000001\n")
    (shipped / "test.txt").write_text("000000\n")
    monkeypatch.setattr(kitti_infos, "IMAGE_SETS", shipped)
    with caplog.at_level(logging.INFO, "pcdet"):
        create(raw_kitti)
    assert f"ImageSets holds no lists of frames, so KITTI's usual ones count: {shipped}" in caplog.text
    assert "Skipped the test split" in caplog.text
    assert list(infos_of(raw_kitti)) == ["000001"] and list(infos_of(raw_kitti, "val")) == ["000004", "000005"]


def test_frames_of_the_shipped_lists_that_are_missing_are_named(raw_kitti):
    for listing in (raw_kitti / "ImageSets").iterdir():
        listing.unlink()
    with pytest.raises(DataError, match="frame 000007: .*000007.bin does not exist"):
        create(raw_kitti)


def test_a_folder_with_a_list_of_its_own_gets_none_of_the_shipped_ones(raw_kitti):
    (raw_kitti / "ImageSets" / "val.txt").unlink()
    with pytest.raises(DataError, match=f"{raw_kitti / 'ImageSets' / 'val.txt'} does not exist") as error:
        create(raw_kitti)
    assert len(error.value.problems) == 1


def test_empty_and_repeating_lists_are_named(raw_kitti):
    (raw_kitti / "ImageSets" / "train.txt").write_text("000001\n000001\n")
    (raw_kitti / "ImageSets" / "val.txt").write_text("\n")
    with pytest.raises(DataError, match="(?s)lists frame 000001 more than once.*val.txt is empty"):
        create(raw_kitti)


def test_a_long_list_of_problems_is_cut():
    error = DataError([f"problem {i}" for i in range(60)])
    assert "problem 49" in str(error) and "problem 50" not in str(error) and "10 more" in str(error)
    assert len(pickle.loads(pickle.dumps(error)).problems) == 60


def spoil(path, value=np.nan):
    points = np.fromfile(path, dtype=np.float32)
    points[5] = value
    points.tofile(path)


@pytest.mark.parametrize("workers", [0, 2])
def test_nan_clouds_are_named_together_and_the_others_are_kept(raw_kitti, workers):
    spoil(raw_kitti / "training" / "velodyne" / "000001.bin")
    spoil(raw_kitti / "training" / "velodyne" / "000003.bin", np.inf)
    with pytest.raises(DataError) as error:
        create(raw_kitti, workers=workers)
    assert ["000001.bin" in p or "000003.bin" in p for p in error.value.problems] == [True, True]
    assert "1 of" in error.value.problems[0] and "first: point 1" in error.value.problems[0]
    assert set(ProgressLog(raw_kitti / ".kitti_infos_train.journal", 1).read()) == {"000000", "000002"}


def test_bad_frames_are_left_out_and_counted_on_request(raw_kitti, caplog):
    spoil(raw_kitti / "training" / "velodyne" / "000001.bin")
    (raw_kitti / "training" / "velodyne" / "000005.bin").write_bytes(bytes(17))
    with caplog.at_level(logging.WARNING, "pcdet"):
        create(raw_kitti, SKIP_BAD_FRAMES=True)
    assert list(infos_of(raw_kitti)) == ["000000", "000002", "000003"]
    assert list(infos_of(raw_kitti, "val")) == ["000004"]
    assert "left out 1 of 4 frames of train" in caplog.text and "left out 1 of 2 frames of val" in caplog.text


# --------------------------------------------------------------------------------------------------- parallel, resuming


def test_results_do_not_depend_on_the_number_of_workers(raw_kitti, prepared_kitti):
    create(raw_kitti, workers=2)
    for name in ("kitti_infos_train.pkl", "kitti_infos_val.pkl", "kitti_dbinfos_train.pkl"):
        assert (raw_kitti / name).read_bytes() == (prepared_kitti / name).read_bytes()
    ours = {p.name: p.read_bytes() for p in (raw_kitti / "gt_database").iterdir()}
    assert ours == {p.name: p.read_bytes() for p in (prepared_kitti / "gt_database").iterdir()}


def test_a_stopped_run_goes_on_where_it_was(raw_kitti, prepared_kitti, monkeypatch):
    def stopped(files, database=None):
        if files.frame == "000002":
            raise KeyboardInterrupt
        return frame_files.build_frame(files, database)

    monkeypatch.setattr(kitti_infos, "build_frame", stopped)
    with pytest.raises(KeyboardInterrupt):
        create(raw_kitti)
    assert not (raw_kitti / "kitti_infos_train.pkl").exists()
    journal = raw_kitti / ".kitti_infos_train.journal"
    with open(journal, "ab") as stream:
        stream.write(b"\x80\x03half a record")  # killed while it wrote

    seen = []

    def counted(files, database=None):
        seen.append(files.frame)
        return frame_files.build_frame(files, database)

    # a frame whose files changed, or whose objects are gone, is done again
    (raw_kitti / "gt_database" / "000001_Car_0.bin").unlink()
    monkeypatch.setattr(kitti_infos, "build_frame", counted)
    create(raw_kitti)
    assert seen == ["000001", "000002", "000003", "000004", "000005"]
    assert not journal.exists()
    for name in ("kitti_infos_train.pkl", "kitti_dbinfos_train.pkl"):
        assert (raw_kitti / name).read_bytes() == (prepared_kitti / name).read_bytes()


def test_a_journal_of_another_version_is_begun_anew(tmp_path):
    journal = ProgressLog(tmp_path / "journal", 1)
    journal.append("a", value=1)
    journal.close()
    assert ProgressLog(tmp_path / "journal", 1).read()["a"]["value"] == 1
    assert ProgressLog(tmp_path / "journal", 2).read() == {}
    assert (tmp_path / "journal").stat().st_size == 0
    journal.remove()
    assert ProgressLog(tmp_path / "journal", 1).read() == {}


# -------------------------------------------------------------------------------------------------------- command line


def write_cfg(path, **changes):
    import yaml

    path.write_text(yaml.safe_dump(kitti_files.dataset_cfg(**changes)))
    return path


def test_the_command_prepares_a_folder_without_noise(raw_kitti, tmp_path, repo_root):
    cfg = write_cfg(tmp_path / "data.yaml", DATA_PATH=str(raw_kitti))
    command = [sys.executable, "-m", "pcdet.datasets.kitti.kitti_dataset", "create_kitti_infos", str(cfg)]
    run = subprocess.run([*command, "--workers", "2"], cwd=repo_root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "Warning" not in run.stderr and "checking files" in run.stderr
    assert "kitti_infos_train.pkl: 4 frames" in run.stdout
    assert len(infos_of(raw_kitti)) == 4


def test_the_command_reports_problems_and_fails(tmp_path, capsys):
    cfg = write_cfg(tmp_path / "data.yaml")
    assert main(["create_kitti_infos", str(cfg), "--data_path", str(tmp_path)]) == 1
    assert "1 problem(s)" in capsys.readouterr().out


def test_the_data_part_of_a_model_file_serves_too(tmp_path, monkeypatch):
    import yaml

    write_cfg(tmp_path / "base.yaml")
    model, student = tmp_path / "model.yaml", tmp_path / "student.yaml"
    model.write_text(yaml.safe_dump({"DATA_CONFIG": {"_BASE_CONFIG_": "base.yaml", "DATA_PATH": "here"}}))
    config = load_dataset_cfg(model)
    assert config["DATA_PATH"] == "here" and config["FOV_POINTS_ONLY"] is True
    student.write_text(yaml.safe_dump({"_BASE_CONFIG_": "model.yaml", "DATA_CONFIG": {"SKIP_BAD_FRAMES": True}}))
    config = load_dataset_cfg(student)
    assert config["DATA_PATH"] == "here" and config["SKIP_BAD_FRAMES"] is True
    student.write_text(yaml.safe_dump({"_BASE_CONFIG_": "model.yaml", "DATA_CONFIG": {"SKIP_BAD_FRAME": True}}))
    with pytest.raises(DataError, match="SKIP_BAD_FRAME: DataConfig has no such key; did you mean SKIP_BAD_FRAMES"):
        load_dataset_cfg(student)
    with pytest.raises(DataError, match="'nowhere.yaml' not found"):
        load_dataset_cfg("nowhere.yaml")
    model.write_text("- 1\n")
    with pytest.raises(DataError, match="expected a mapping"):
        load_dataset_cfg(model)


def test_a_van_is_in_the_infos_though_no_model_trains_it(prepared_kitti):
    assert np.allclose(infos_of(prepared_kitti)["000000"]["annos"]["gt_boxes_lidar"][3], VAN, atol=1e-5)
