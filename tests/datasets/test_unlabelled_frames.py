"""Frames without labels in a training: which they are, what a sample of them holds, and who may train on them."""

import pickle
import shutil

import numpy as np
import pytest
import yaml
from easydict import EasyDict

from pcdet.config import ConfigError, cfg_from_yaml_file
from pcdet.datasets import build_dataset
from pcdet.datasets.errors import DataError

CLASSES = ["Car", "Pedestrian", "Cyclist"]


@pytest.fixture
def root(partly_labelled_kitti):
    """Four training frames: the first three labelled, the fourth in an info file of its own."""
    return partly_labelled_kitti


def data_cfg(repo_root, root):
    cfg = cfg_from_yaml_file(repo_root / "tools/cfgs/dataset_configs/simulated_kitti_dataset.yaml", EasyDict())
    cfg.DATA_PATH = str(root)
    cfg.INFO_PATH = {"train": ["labelled.pkl"], "test": ["kitti_infos_val.pkl"], "unlabelled": ["more.pkl"]}
    return cfg


def test_a_training_has_the_unlabelled_frames_behind_the_labelled_ones_and_an_evaluation_has_none(repo_root, root):
    training = build_dataset(data_cfg(repo_root, root), CLASSES, training=True)
    testing = build_dataset(data_cfg(repo_root, root), CLASSES, training=False)
    assert (len(training), len(testing)) == (4, 2)
    boxes = [len(training[i]["gt_boxes"]) for i in range(4)]
    assert min(boxes[:3]) > 0 and boxes[3] == 0, "the labels that the last frame has are not looked at"


def test_a_sample_without_labels_has_the_form_of_the_others(repo_root, root):
    training = build_dataset(data_cfg(repo_root, root), CLASSES, training=True)
    labelled, unlabelled = training[0], training[3]
    assert unlabelled.keys() == labelled.keys()
    assert unlabelled["gt_boxes"].shape == (0, 8)
    batch = training.collate_batch([labelled, unlabelled])
    assert np.count_nonzero(batch["gt_boxes"][1]) == 0


def test_frames_without_labels_are_refused_beside_boxes_in_the_image(repo_root, root):
    cfg = data_cfg(repo_root, root)
    cfg.GET_ITEM_LIST = ["points", "gt_boxes2d"]
    with pytest.raises(DataError, match="INFO_PATH.unlabelled: .*take gt_boxes2d out of GET_ITEM_LIST"):
        build_dataset(cfg, CLASSES, training=True)


def test_nothing_is_pasted_into_a_frame_without_labels(repo_root, root):
    cfg = data_cfg(repo_root, root)
    paste = {
        "NAME": "gt_sampling", "DB_INFO_PATH": ["kitti_dbinfos_train.pkl"], "SAMPLE_GROUPS": ["Car:20"],
        "NUM_POINT_FEATURES": 4, "PREPARE": {"filter_by_min_points": ["Car:1"]},
    }  # fmt: skip
    cfg.DATA_AUGMENTOR.AUG_CONFIG_LIST = [paste, *cfg.DATA_AUGMENTOR.AUG_CONFIG_LIST]
    training = build_dataset(cfg, CLASSES, training=True)
    plain = build_dataset(data_cfg(repo_root, root), CLASSES, training=True)
    assert len(training[0]["gt_boxes"]) > len(plain[0]["gt_boxes"]), "pasting works where there are labels"
    assert len(training[3]["gt_boxes"]) == 0


def test_frames_of_the_test_split_are_read_from_its_own_folder(repo_root, root, tmp_path, caplog):
    """KITTI counts both folders from 000000: a name that stands in both means two frames."""
    folder = shutil.copytree(root, tmp_path / "kitti")
    labelled, other = (pickle.loads((folder / name).read_bytes()) for name in ("labelled.pkl", "more.pkl"))
    name, of_other = labelled[0]["point_cloud"]["lidar_idx"], other[0]["point_cloud"]["lidar_idx"]
    for kind in ("velodyne", "calib", "planes"):
        (folder / "testing" / kind).mkdir(parents=True)
        for path in (folder / "training" / kind).glob(f"{of_other}.*"):
            path.rename(folder / "testing" / kind / f"{name}{path.suffix}")
    other[0]["point_cloud"]["lidar_idx"] = name
    (folder / "kitti_infos_test.pkl").write_bytes(pickle.dumps(other))
    cfg, before = data_cfg(repo_root, folder), build_dataset(data_cfg(repo_root, root), CLASSES, training=True)
    cfg.INFO_PATH["unlabelled"] = ["kitti_infos_test.pkl"]
    of_training = build_dataset(cfg, CLASSES, training=True)
    cfg.DATA_SPLIT.unlabelled = "test"
    after = build_dataset(cfg, CLASSES, training=True)
    for index in (0, 3):
        sample, expected = after.load_frame(index), before.load_frame(index)
        np.testing.assert_array_equal(sample["points"], expected["points"])
        np.testing.assert_array_equal(sample["gt_boxes"], expected["gt_boxes"])
    assert after.load_frame(3)["frame_id"] == after.load_frame(0)["frame_id"]
    assert after.fingerprint != of_training.fingerprint
    assert caplog.text.count("more than once") == 1, "where both are taken for the same frame"


def test_frames_without_annos_need_the_name_of_their_split(repo_root, root, tmp_path):
    """As kitti_infos_test.pkl has them: the same numbers in training/ are other frames, half of them for evaluation."""
    folder = shutil.copytree(root, tmp_path / "kitti")
    infos = pickle.loads((folder / "more.pkl").read_bytes())
    del infos[0]["annos"]
    (folder / "more.pkl").write_bytes(pickle.dumps(infos))
    cfg = data_cfg(repo_root, folder)
    with pytest.raises(DataError, match="INFO_PATH.unlabelled: 1 of 1 frames have no annos.*DATA_SPLIT.unlabelled"):
        build_dataset(cfg, CLASSES, training=True)
    cfg.DATA_SPLIT.unlabelled = "train"
    assert len(build_dataset(cfg, CLASSES, training=True)) == 4


@pytest.fixture
def model_file(tmp_path):
    """A student with unlabelled frames; keys of its KD block may be replaced."""

    def write(**kd):
        block = {"TEACHER": {"CFG": "cfgs/simulated_models/pointpillar.yaml"}, "INIT": {"NAME": "slice"}, **kd}
        content = {
            "_BASE_CONFIG_": "cfgs/simulated_models/kd/pointpillar_student.yaml",
            "DATA_CONFIG": {"INFO_PATH": {"unlabelled": ["more.pkl"]}},
            "KD": block,
        }
        (tmp_path / "student.yaml").write_text(yaml.safe_dump(content))
        return tmp_path / "student.yaml"

    return write


def test_frames_that_nobody_labels_are_refused_with_the_way_out(model_file):
    cfg_from_yaml_file(model_file(LABELS={}, LOSSES=[]), EasyDict())
    with pytest.raises(ConfigError, match=r"DATA_CONFIG.INFO_PATH.unlabelled: .*set KD.LABELS \(LABELS: {}\)"):
        cfg_from_yaml_file(model_file(LOSSES=[{"NAME": "PivotalLogit"}]), EasyDict())
