from pathlib import Path

import numpy as np
import pytest
from easydict import EasyDict

from pcdet.config import cfg_from_yaml_file
from pcdet.datasets.errors import BadFrameError, DataError
from pcdet.datasets.point_folder import PointFolder

CFG = Path(__file__).resolve().parents[2] / "tools/cfgs/simulated_models/pointpillar.yaml"


@pytest.fixture
def cfg():
    return cfg_from_yaml_file(CFG, EasyDict())


@pytest.fixture
def timed(cfg):
    names = ["x", "y", "z", "intensity", "timestamp"]
    cfg.DATA_CONFIG.POINT_FEATURE_ENCODING.update(src_feature_list=names, used_feature_list=names)
    return cfg


def folder_of(cfg, path, **kwargs):
    return PointFolder(cfg.DATA_CONFIG, cfg.CLASS_NAMES, path, **kwargs)


def _with_columns(cfg, count, path):
    names = ["x", "y", "z", "intensity", "timestamp"][:count]
    cfg.DATA_CONFIG.POINT_FEATURE_ENCODING.update(src_feature_list=names, used_feature_list=names)
    return folder_of(cfg, path)


def cloud(columns=4):
    points = np.random.default_rng(0).random((50, columns), dtype=np.float32)
    points[:, :2] *= 10
    return points


def test_a_folder_gives_its_clouds_in_order_of_name_as_test_samples(cfg, tmp_path):
    for name in ("b", "a"):
        cloud().tofile(tmp_path / f"{name}.bin")
    clouds = folder_of(cfg, tmp_path)
    assert len(clouds) == 2
    sample = clouds[0]
    assert sample["frame_id"] == "a"
    assert sample["voxels"].shape[2] == 4 and "gt_boxes" not in sample
    np.testing.assert_array_equal(clouds.read_cloud(clouds.files[1]), cloud())


def test_a_single_npy_file_is_taken_whatever_ext_says(cfg, tmp_path):
    np.save(tmp_path / "one.npy", cloud().astype(np.float64))
    clouds = folder_of(cfg, tmp_path / "one.npy")
    np.testing.assert_array_equal(clouds.load_frame(0)["points"], cloud())


def test_keys_of_other_data_sets_do_no_harm(cfg, tmp_path):
    cloud().tofile(tmp_path / "a.bin")
    cfg.DATA_CONFIG.MAX_SWEEPS = 10
    assert len(folder_of(cfg, tmp_path)) == 1


def test_a_missing_timestamp_is_zero_and_one_that_is_there_is_set_to_zero(timed, tmp_path):
    np.save(tmp_path / "four.npy", cloud(4))
    cloud(5).tofile(tmp_path / "five.bin")
    for name in ("four.npy", "five.bin"):
        points = folder_of(timed, tmp_path / name).load_frame(0)["points"]
        assert points.shape == (50, 5) and (points[:, 4] == 0).all() and points.dtype == np.float32


def test_a_file_of_nuscenes_gives_its_columns_by_name(timed, tmp_path):
    """x, y, z, intensity, ring: a model of single sweeps reads four of them, one of several sweeps the time besides."""
    cloud(5).tofile(tmp_path / "LIDAR_TOP__1.pcd.bin")
    clouds = folder_of(timed, tmp_path)
    frame = clouds.load_frame(0)
    assert frame["frame_id"] == "LIDAR_TOP__1" and frame["points"].dtype == np.float32
    np.testing.assert_array_equal(frame["points"], np.c_[cloud(5)[:, :4], np.zeros(50)])
    plain = _with_columns(timed, 4, tmp_path).load_frame(0)["points"]
    np.testing.assert_array_equal(plain, cloud(5)[:, :4])


def test_a_file_of_nuscenes_is_refused_by_a_model_of_other_columns(cfg, tmp_path):
    cloud(5).tofile(tmp_path / "a.pcd.bin")
    names = ["x", "y", "z", "elongation"]
    cfg.DATA_CONFIG.POINT_FEATURE_ENCODING.update(src_feature_list=names, used_feature_list=names)
    with pytest.raises(BadFrameError, match="a.pcd.bin is a file of nuScenes .* the model reads elongation"):
        folder_of(cfg, tmp_path)[0]


def test_a_bin_without_the_column_of_time_is_told_what_it_lacks(timed, tmp_path):
    cloud(4)[:49].tofile(tmp_path / "four.bin")
    with pytest.raises(BadFrameError, match=r"four.bin has 784 bytes.* but one of the 16 .*add one of zeros, or save"):
        folder_of(timed, tmp_path)[0]


def test_a_real_sweep_of_nuscenes_is_read(timed, nuscenes_root):
    (path,) = sorted(nuscenes_root.glob("samples/LIDAR_TOP/*.pcd.bin"))[:1]
    points = folder_of(timed, path).load_frame(0)["points"]
    assert len(points) > 30_000 and (points[:, 4] == 0).all()
    assert 1 < points[:, 3].max() <= 255  # intensity, not divided


def test_a_cloud_with_other_columns_is_named_with_what_is_wanted(cfg, tmp_path):
    np.save(tmp_path / "five.npy", cloud(5))
    with pytest.raises(BadFrameError, match=r"five.npy must hold an array of shape \(N, 4\).*got \[50, 5\]"):
        folder_of(cfg, tmp_path, ext=".npy")[0]


def test_values_that_are_not_finite_are_refused(cfg, tmp_path):
    points = cloud()
    points[3, 1] = np.nan
    np.save(tmp_path / "nan.npy", points)
    with pytest.raises(BadFrameError, match="nan.npy holds NaN"):
        folder_of(cfg, tmp_path / "nan.npy")[0]


def test_a_damaged_numpy_file_names_no_key_that_would_not_help(cfg, tmp_path):
    np.save(tmp_path / "cut.npy", cloud())
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-5])
    with pytest.raises(BadFrameError, match="cut.npy is cut short .*save it again with numpy.save$"):
        folder_of(cfg, tmp_path / "cut.npy")[0]


@pytest.mark.parametrize(
    ("name", "ext", "message"),
    [
        ("nowhere", ".bin", "there is no file or folder .*nowhere"),
        (".", ".bin", "holds no .bin files; it has .npy files: give --ext .npy"),
        (".", ".pcd", "must be one of .bin, .npy, got '.pcd'"),
        ("note.txt", ".bin", "note.txt must be a .bin or .npy file"),
    ],
)
def test_what_cannot_be_found_is_named(cfg, tmp_path, name, ext, message):
    np.save(tmp_path / "a.npy", cloud())
    (tmp_path / "note.txt").write_text("")
    with pytest.raises(DataError, match=message):
        folder_of(cfg, tmp_path / name, ext=ext)
