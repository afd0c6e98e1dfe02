"""nuScenes frames without labels in a training: which they are, how often they come, what a sample of them holds."""

import numpy as np
import pytest
from easydict import EasyDict
from support import nuscenes_files

from pcdet.config import cfg_from_yaml_file
from pcdet.datasets.errors import DataError
from pcdet.datasets.nuscenes.categories import DETECTION_CLASSES
from pcdet.datasets.nuscenes.create_infos import create_nuscenes_infos
from pcdet.datasets.nuscenes.layout import info_name
from pcdet.datasets.nuscenes.nuscenes_dataset import NuScenesDataset
from pcdet.utils import safe_pickle

SWEEPS, TEST = nuscenes_files.SWEEPS, "v1.0-test"
LABELLED, MORE = 2, 1  # of the three training frames


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A release whose first two training frames are labelled, the third in a file of its own, and two test frames."""
    root = nuscenes_files.write_release(tmp_path_factory.mktemp("unlabelled") / "nuscenes")
    nuscenes_files.write_release(root, TEST, {"scene-0077": 2})
    for version in (nuscenes_files.VERSION, TEST):
        create_nuscenes_infos(root, version, SWEEPS, workers=0)
    folder = root / nuscenes_files.VERSION
    infos = safe_pickle.load(folder / info_name("train", SWEEPS))
    safe_pickle.dump(infos[:LABELLED], folder / "labelled.pkl")
    safe_pickle.dump(infos[LABELLED:], folder / "more.pkl")
    return root


@pytest.fixture
def built(repo_root, root):
    """Builds the data set of the shipped file on these frames, without gt_sampling unless it is given."""

    def build(
        training=True, *, labelled=("labelled.pkl",), unlabelled=("more.pkl",), split=None, sampling=None, **changes
    ):
        cfg = cfg_from_yaml_file(repo_root / "tools/cfgs/dataset_configs/nuscenes_dataset.yaml", EasyDict())
        cfg.update(VERSION=nuscenes_files.VERSION, MAX_SWEEPS=SWEEPS, **changes)
        cfg.INFO_PATH = {"train": list(labelled), "test": [info_name("val", SWEEPS)]}
        if unlabelled:
            cfg.INFO_PATH["unlabelled"] = list(unlabelled)
        if split:
            cfg.DATA_SPLIT.unlabelled = split
        cfg.DATA_AUGMENTOR.AUG_CONFIG_LIST = [sampling] if sampling else []
        data = NuScenesDataset(cfg, list(DETECTION_CLASSES), training, root)
        data.set_seed(1)
        return data

    return build


def test_a_training_has_the_unlabelled_frames_behind_the_labelled_ones_and_an_evaluation_has_none(built):
    training, testing = built(BALANCED_RESAMPLING=False), built(False)
    assert (len(training), len(testing)) == (LABELLED + MORE, 2)
    boxes = [len(training[i]["gt_boxes"]) for i in range(len(training))]
    assert min(boxes[:LABELLED]) > 0 and boxes[LABELLED:] == [0], "the labels that the last frame has are not looked at"
    assert training.frame_labels(LABELLED) is None
    assert training.class_counts() == built(unlabelled=()).class_counts() == {"car": 2, "truck": 2, "ignore": 2}


def test_balanced_resampling_counts_the_labelled_frames_and_has_each_other_one_once(built):
    alone, training = built(unlabelled=()), built()
    assert len(alone.order) == 2, "cars and trucks: each a tenth of four, and at least one"
    np.testing.assert_array_equal(training.order[:-MORE], alone.order)
    assert training.order[-MORE:].tolist() == [LABELLED]


@pytest.mark.parametrize("velocity", [True, False])
def test_a_sample_without_labels_has_the_form_of_the_others(built, velocity):
    training = built(BALANCED_RESAMPLING=False, PRED_VELOCITY=velocity)
    labelled, unlabelled = training[0], training[LABELLED]
    columns = 10 if velocity else 8  # with the class
    assert unlabelled.keys() == labelled.keys()
    assert unlabelled["gt_boxes"].shape == (0, columns) and labelled["gt_boxes"].shape[1] == columns
    batch = training.collate_batch([labelled, unlabelled])
    assert batch["gt_boxes"].shape[2] == columns and np.count_nonzero(batch["gt_boxes"][1]) == 0


def test_nothing_is_pasted_into_a_frame_without_labels(built):
    paste = {
        "NAME": "gt_sampling", "DB_INFO_PATH": [f"nuscenes_dbinfos_{SWEEPS}sweeps_withvelo.pkl"], "PREPARE": {},
        "SAMPLE_GROUPS": ["truck:1"], "NUM_POINT_FEATURES": 5,
    }  # fmt: skip
    training = built(BALANCED_RESAMPLING=False, sampling=paste)
    labelled, unlabelled = training.load_frame(0), training.load_frame(LABELLED)
    for sample in (labelled, unlabelled):
        sample["gt_boxes"], sample["gt_names"] = sample["gt_boxes"][:0], sample["gt_names"][:0]  # room for a truck
    pasted, left = (training.data_augmentor.forward(s, np.random.default_rng(0)) for s in (labelled, unlabelled))
    assert len(pasted["gt_boxes"]) > 0, "pasting works where there are labels"
    assert len(left["gt_boxes"]) == 0


def test_frames_of_the_test_split_are_read_from_their_own_release(built, root):
    training = built(BALANCED_RESAMPLING=False, split="test", unlabelled=[info_name("test", SWEEPS)])
    assert len(training) == LABELLED + 2
    sample = training.load_frame(LABELLED + 1)
    assert sample["metadata"] == {"token": "scene-0077 1"} and sample["gt_boxes"].shape == (0, 9)
    cloud = root / TEST / "samples/LIDAR_TOP/scene-0077_3.pcd.bin"
    here = sample["points"][sample["points"][:, 4] == 0]
    np.testing.assert_array_equal(here[:, :4], np.fromfile(cloud, np.float32).reshape(-1, 5)[:, :4])
    with pytest.raises(DataError, match=rf"{TEST}/more.pkl does not exist.*--version {TEST}"):
        built(split="test")
    with pytest.raises(DataError, match=r"_test.pkl does not exist.*; frames of v1.0-test need .*unlabelled: test"):
        built(unlabelled=[info_name("test", SWEEPS)])


def test_the_same_frames_with_and_without_labels_are_other_data(built):
    all_labelled = built(labelled=("labelled.pkl", "more.pkl"), unlabelled=(), BALANCED_RESAMPLING=False)
    some = built(BALANCED_RESAMPLING=False)
    assert list(all_labelled.infos.tokens()) == list(some.infos.tokens())
    assert all_labelled.fingerprint != some.fingerprint


@pytest.mark.parametrize("velocity", [True, False])
def test_boxes_of_a_results_file_are_the_labels_of_frames_without(built, tmp_path, velocity):
    frame = built(BALANCED_RESAMPLING=False).load_frame(LABELLED)["frame_id"]
    box = [5.0, 10.0, -1.0, 4.0, 2.0, 1.5, 0.3, 2.0, -1.0]
    result = {"frame_id": frame, "name": np.array(["car", "truck"]), "score": np.array([0.9, 0.1])}
    safe_pickle.dump([{**result, "boxes_lidar": np.array([box, box], np.float32)}], tmp_path / "result.pkl")
    labels = {"FILE": str(tmp_path / "result.pkl"), "SCORE": 0.3}
    training = built(PRED_VELOCITY=velocity, PSEUDO_LABELS=labels)
    sample = training.load_frame(int(np.flatnonzero(training.order == LABELLED)[0]))
    assert sample["gt_names"].tolist() == ["car"] and sample["unlabelled"]
    np.testing.assert_array_equal(sample["gt_boxes"], np.array([box[: 9 if velocity else 7]], np.float32))
    assert training.class_counts() == {"car": 3, "truck": 2, "ignore": 2}, (
        "two labelled frames, and one box of the file"
    )
    assert training.frame_labels(len(training) - 1) is None, "nobody has labelled it"
    assert training.fingerprint != built(PRED_VELOCITY=velocity).fingerprint
