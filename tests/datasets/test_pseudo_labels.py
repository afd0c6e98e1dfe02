"""Boxes found before a training as the labels of its unlabelled frames: which count, and what is refused."""

import pickle
import shutil

import numpy as np
import pytest
from easydict import EasyDict

from pcdet.config import ConfigError, cfg_from_yaml_file
from pcdet.config.check import find_problems
from pcdet.datasets import DatasetTemplate, build_dataset
from pcdet.datasets.errors import DataError
from pcdet.datasets.pseudo_labels import PseudoLabels, PseudoLabelsConfig

CLASSES = ["Car", "Pedestrian", "Cyclist"]
CAR, NEAR = [5.0, 1.0, -1.0, 3.9, 1.6, 1.5, 0.3], [8.0, -2.0, -1.0, 0.8, 0.6, 1.7, 0.0]


def result(frame, *objects):
    """A frame of result.pkl with (name, score, box) objects."""
    names, scores, boxes = zip(*objects, strict=True) if objects else ((), (), ())
    return {
        "frame_id": frame, "name": np.array(names, dtype="<U10"), "score": np.array(scores, dtype=np.float32),
        "boxes_lidar": np.array(boxes, dtype=np.float32).reshape(-1, len(boxes[0]) if boxes else 7),
    }  # fmt: skip


@pytest.fixture
def labels_of(tmp_path):
    """Reads the labels of frames from results; the score, the frames and the columns may be given."""

    def read(results, *, score=0.5, frames=("a",), columns=7):
        path = tmp_path / "result.pkl"
        path.write_bytes(pickle.dumps(results))
        return PseudoLabels(
            PseudoLabelsConfig(file=str(path), score=score), CLASSES, columns=columns, frames=list(frames)
        )

    return read


def test_boxes_above_the_score_are_the_labels(labels_of):
    found = labels_of([result("a", ("Car", 0.9, CAR), ("Car", 0.5, NEAR), ("Pedestrian", 0.51, NEAR)), result("b")])
    names, boxes = found["a"]
    assert names.tolist() == ["Car", "Pedestrian"], "a score must exceed the threshold"
    np.testing.assert_array_equal(boxes, np.array([CAR, NEAR], np.float32))
    assert str(found).endswith("are the labels of 1 frames: Car 1, Pedestrian 1, Cyclist 0")


def test_each_class_may_have_its_own_score_and_other_classes_are_left_out(labels_of):
    objects = [("Car", 0.6, CAR), ("Pedestrian", 0.6, NEAR), ("Tram", 0.99, CAR), ("Cyclist", 0.3, NEAR)]
    assert labels_of([result("a", *objects)], score=[0.7, 0.5, 0.2])["a"][0].tolist() == ["Pedestrian", "Cyclist"]
    with pytest.raises(DataError, match=r"SCORE: must name a score for each of the classes \['Car'"):
        labels_of([result("a", *objects)], score=[0.7, 0.5])


def test_a_score_of_0_takes_what_there_is_and_be_it_nothing(labels_of):
    assert labels_of([result("a", ("Car", 0.01, CAR))], score=0)["a"][0].tolist() == ["Car"]
    names, boxes = labels_of([result("a")], score=0)["a"]
    assert names.tolist() == [] and boxes.shape == (0, 7)


def test_a_caller_may_change_what_it_gets(labels_of):
    found = labels_of([result("a", ("Car", 0.9, CAR))])
    found["a"][1][:] = 0
    np.testing.assert_array_equal(found["a"][1], np.array([CAR], np.float32))


def test_a_velocity_is_kept_where_labels_have_one_and_left_out_where_not(labels_of):
    moving = [result("a", ("Car", 0.9, [*CAR, 2.0, -1.0])), result("b")]
    assert labels_of(moving, columns=9, frames=("a", "b"))["a"][1][0, 7:].tolist() == [2.0, -1.0]
    assert labels_of(moving, columns=9, frames=("a", "b"))["b"][1].shape == (0, 9)
    assert labels_of(moving, columns=7)["a"][1].shape == (1, 7)


BAD = {
    "no list": ({"a": 1}, "must hold a list with a dict for each frame"),
    "no scores": ([{"frame_id": "a", "name": [], "boxes_lidar": []}], "result 0 has no score"),
    "other frames": ([result("b")], "has no result of any of 1 frames, such as a; run test.py"),
    "twice": ([result("a"), result("a")], "several results for 1 frames: a"),
    "too few scores": (
        [{**result("a", ("Car", 0.9, CAR)), "score": np.zeros(0)}],
        r"name \(1,\), score \(0,\), boxes_lidar \(1, 7\)",
    ),
    "logits": ([result("a", ("Car", 2.5, CAR))], "scores must lie in .*OUTPUT_RAW_SCORE False"),
    "no number": ([result("a", ("Car", 0.9, [np.nan, *CAR[1:]]))], "frame a: a box is not finite"),
    "no size": ([result("a", ("Car", 0.9, [*CAR[:3], 0.0, *CAR[4:]]))], "or has no size"),
    "unsure": ([result("a", ("Car", 0.3, CAR), ("Cyclist", 0.4, NEAR))], "the surest is Cyclist with 0.4; lower SCORE"),
    "of other classes": (
        [result("a", ("car", 0.9, CAR))],
        "no box of Car, Pedestrian, Cyclist .* the surest is car with 0.9; .* with the same names of classes",
    ),
    "empty": ([result("a")], "it has no box at all"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_results_that_cannot_be_labels_are_refused_with_their_frame(labels_of, case):
    results, message = BAD[case]
    with pytest.raises(DataError, match=message):
        labels_of(results)


def test_boxes_without_a_velocity_are_refused_where_labels_need_one(labels_of):
    with pytest.raises(DataError, match="its boxes have 7 columns and labels need 9"):
        labels_of([result("a", ("Car", 0.9, CAR))], columns=9)


def test_every_frame_needs_a_result(labels_of):
    with pytest.raises(DataError, match="no results for 1 of 2 frames, for instance b; run test.py"):
        labels_of([result("a", ("Car", 0.9, CAR))], frames=("a", "b"))


def test_a_file_that_is_not_there_is_named_with_the_command_that_makes_it(tmp_path):
    config = PseudoLabelsConfig(file=str(tmp_path / "none.pkl"))
    with pytest.raises(DataError, match=r"none.pkl does not exist; run test.py with the teacher"):
        PseudoLabels(config, CLASSES, columns=7, frames=["a"])


# ------------------------------------------------------------------------------------------------------ in a data set


@pytest.fixture
def root(partly_labelled_kitti):
    """Four training frames: the first three labelled, the fourth in an info file of its own."""
    return partly_labelled_kitti


class Mine(DatasetTemplate):
    """A data set of a user's own."""


@pytest.fixture
def built(repo_root, root, tmp_path):
    """Builds the training data with these objects as the labels of its last frame."""

    def build(*objects, score=0.5, cls=None, **changes):
        more = pickle.loads((root / "more.pkl").read_bytes())
        (tmp_path / "result.pkl").write_bytes(pickle.dumps([result(more[0]["point_cloud"]["lidar_idx"], *objects)]))
        cfg = cfg_from_yaml_file(repo_root / "tools/cfgs/dataset_configs/simulated_kitti_dataset.yaml", EasyDict())
        cfg.DATA_PATH, cfg.DATA_AUGMENTOR.AUG_CONFIG_LIST = str(root), []
        cfg.INFO_PATH = {"train": ["labelled.pkl"], "test": ["kitti_infos_val.pkl"], "unlabelled": ["more.pkl"]}
        cfg.PSEUDO_LABELS = {"FILE": str(tmp_path / "result.pkl"), "SCORE": score}
        cfg.update(changes)
        return build_dataset(cfg, CLASSES, training=True) if cls is None else cls(cfg, CLASSES)

    return build


def test_a_frame_without_labels_trains_on_the_boxes_of_the_file(built):
    data = built(("Car", 0.9, CAR), ("Pedestrian", 0.2, NEAR))
    sample = data[3]
    np.testing.assert_allclose(sample["gt_boxes"], np.array([[*CAR, 1.0]]), atol=1e-6)
    assert sample.keys() == data[0].keys()
    np.testing.assert_array_equal(data[3]["gt_boxes"], sample["gt_boxes"])


def test_a_bad_frame_that_is_left_out_needs_no_labels(built, root, tmp_path):
    """A teacher that leaves it out too has no result of it."""
    twin = shutil.copytree(root, tmp_path / "twin")
    first, last = (pickle.loads((twin / name).read_bytes())[0] for name in ("labelled.pkl", "more.pkl"))
    (twin / "more.pkl").write_bytes(pickle.dumps([first, last]))
    cloud = twin / "training" / "velodyne" / f"{first['point_cloud']['lidar_idx']}.bin"
    cloud.write_bytes(bytes(17))
    data = built(("Car", 0.9, CAR), DATA_PATH=str(twin), SKIP_BAD_FRAMES=True)
    assert len(data.bad_frames) == 2, "the frame, as labelled and as unlabelled"
    np.testing.assert_allclose(data[len(data) - 1]["gt_boxes"], np.array([[*CAR, 1.0]]), atol=1e-6)


def test_the_boxes_of_the_file_count_as_objects_of_their_class(built):
    own = built(("Tram", 0.9, CAR), ("Car", 0.9, CAR)).class_counts()
    assert built(("Car", 0.9, CAR), ("Car", 0.8, NEAR)).class_counts()["Car"] == own["Car"] + 1


def test_a_data_set_that_reads_no_frames_without_labels_says_so(built):
    with pytest.raises(ConfigError, match="INFO_PATH.unlabelled: Mine reads no frames without labels; remove it"):
        built(("Car", 0.9, CAR), cls=Mine)


def test_another_file_or_another_score_is_other_data(built):
    few, more = built(("Car", 0.9, CAR)), built(("Car", 0.9, CAR), ("Car", 0.4, NEAR))
    assert few.fingerprint != more.fingerprint != built(("Car", 0.9, CAR), ("Car", 0.4, NEAR), score=0.3).fingerprint


def test_labels_of_no_frames_are_refused_and_frames_with_them_need_no_teacher(repo_root):
    cfg = cfg_from_yaml_file(repo_root / "tools/cfgs/simulated_models/pointpillar.yaml", EasyDict(LOCAL_RANK=0))
    cfg.DATA_CONFIG.PSEUDO_LABELS = {"FILE": "result.pkl", "SCORE": 0.3}
    assert "PSEUDO_LABELS: of no frames" in "\n".join(find_problems(cfg))
    cfg.DATA_CONFIG.INFO_PATH.unlabelled = ["more.pkl"]
    assert find_problems(cfg) == []
    cfg.DATA_CONFIG.PSEUDO_LABELS.SCORE = 3
    assert "DATA_CONFIG.PSEUDO_LABELS.SCORE: must be a score in [0, 1]" in "\n".join(find_problems(cfg))
