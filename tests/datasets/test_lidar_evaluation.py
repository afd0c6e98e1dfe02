"""MAP_CLASS_TO_KITTI: other data sets' classes, and boxes without a camera, under KITTI's evaluation."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from support import kitti_files
from support.kitti_files import CAR

from pcdet.config.check import find_problems
from pcdet.datasets.dataset import DatasetTemplate
from pcdet.datasets.errors import DataError
from pcdet.datasets.kitti.kitti_dataset import KittiDataset
from pcdet.datasets.pickles import read_pickle
from pcdet.registry import DATASETS
from pcdet.utils import safe_pickle


@pytest.fixture
def kitti(prepared_kitti, tmp_path):
    """A prepared folder to change."""
    return Path(shutil.copytree(prepared_kitti, tmp_path / "kitti"))


def make(root, classes, **changes):
    return KittiDataset(kitti_files.dataset_cfg(**changes), classes, training=False, root_path=root)


def detections(dataset, names):
    """What a perfect detector finds, under the model's names."""
    annos = []
    for info in dataset.kitti_infos:
        anno = {key: value for key, value in info["annos"].items() if key != "gt_boxes_lidar"}
        anno = {key: value[anno["name"] != "DontCare"] for key, value in anno.items()}
        anno["name"] = np.array([names.get(name, name) for name in anno["name"]])
        anno["score"] = np.linspace(0.9, 0.5, len(anno["name"]))
        annos.append({**anno, "frame_id": info["point_cloud"]["lidar_idx"]})
    return annos


def test_kitti_names_are_evaluated_where_a_folder_has_its_own(kitti):
    dataset = make(kitti, ["Car"])
    wanted = dataset.evaluation(detections(dataset, {}), ["Car", "Pedestrian"])
    own = {"Car": "vehicle", "Pedestrian": "walker"}
    infos = read_pickle(kitti / "kitti_infos_val.pkl")
    for info in infos:
        info["annos"]["name"] = np.array([own.get(name, name) for name in info["annos"]["name"]])
    safe_pickle.dump(infos, kitti / "kitti_infos_val.pkl")
    mapping = {value: key for key, value in own.items()}
    dataset = make(kitti, list(mapping), MAP_CLASS_TO_KITTI=mapping)
    found = dataset.evaluation(detections(dataset, {}), list(mapping))
    assert found == wanted and found[1]["Car_3d/easy_R11"] > 0


class Clouds(DatasetTemplate):
    """Labels in the LiDAR frame alone."""

    def num_frames(self):
        return 40

    def load_frame(self, index):
        boxes = np.array([(10 + index, *CAR[1:])], dtype=np.float32)
        return {"frame_id": index, "points": np.zeros((1, 4)), "gt_boxes": boxes, "gt_names": np.array(["vehicle"])}


def clouds(**changes):
    return Clouds(kitti_files.dataset_cfg(DATASET="Clouds", **changes), ["vehicle"], training=False, root_path=".")


def test_boxes_of_the_lidar_frame_are_evaluated_by_kittis_rules(tmp_path):
    dataset = clouds(MAP_CLASS_TO_KITTI={"vehicle": "Car"})

    def score(shift):
        boxes = [dataset.load_frame(index)["gt_boxes"] + np.float32([0, 0, shift, 0, 0, 0, 0]) for index in range(40)]
        annos = [{"frame_id": i, "name": np.array(["vehicle"]), "score": np.array([0.9 - 0.01 * i]), "boxes_lidar": b}
                 for i, b in enumerate(boxes)]  # fmt: skip
        return dataset.evaluation(annos, ["vehicle"], eval_metric="kitti")[1]

    exact, higher = score(0), score(0.75)  # half of the car's height: a 3d overlap of 1/3
    assert exact["Car_3d/easy_R40"] == exact["Car_bev/easy_R40"] > 97  # 40 objects reach 39 of 40 recalls
    assert higher["Car_bev/easy_R40"] == exact["Car_bev/easy_R40"] and higher["Car_3d/easy_R40"] == 0
    assert exact["Car_image/easy_R40"] == 0, "there is no camera"


def changed_labels(**changes):
    """A data set whose last frame has other labels, and its results, which are as they should be."""
    dataset = clouds(MAP_CLASS_TO_KITTI={"vehicle": "Car"})
    annos = [{"frame_id": i, "name": np.array(["vehicle"]), "score": np.ones(1), "boxes_lidar": np.array([CAR])}
             for i in range(40)]  # fmt: skip
    load = dataset.load_frame
    dataset.load_frame = lambda index: {**load(index), **(changes if index == 39 else {})}
    return dataset, annos


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gt_names": np.zeros(0, "<U1")}, "the labels have 0 names for 1 boxes"),
        ({"gt_boxes": np.array([CAR, CAR])}, "the labels have 1 names for 2 boxes"),
        ({"gt_names": np.array(["vehicle"] * 2)}, "the labels have 2 names for 1 boxes"),
        ({"gt_names": None}, "the labels have no names for 1 boxes"),
        ({"gt_names": np.array([None])}, "the labels have a name that is no text, None"),
        ({"gt_boxes": np.array([CAR]) * [1, 1, np.nan, 1, 1, 1, 1]}, r"must be finite, but box 0 \(vehicle\) is .*nan"),
        ({"gt_boxes": np.zeros((1, 6))}, r"need boxes of shape \(N, 7 or more\), got \(1, 6\)"),
    ],
)
def test_labels_that_cannot_be_evaluated_are_named_with_their_frame(changes, said):
    dataset, annos = changed_labels(**changes)
    with pytest.raises(DataError, match=f"frame 39: .*{said}"):
        dataset.evaluation(annos, ["vehicle"])


def test_results_with_too_few_names_are_named_with_their_frame():
    dataset, annos = changed_labels()
    annos[5]["boxes_lidar"] = np.array([CAR, CAR])
    with pytest.raises(DataError, match="frame 5: the results have 1 names for 2 boxes, 1 scores"):
        dataset.evaluation(annos, ["vehicle"])


def test_a_diverged_networks_boxes_are_scored_and_labels_may_have_velocities():
    dataset, annos = changed_labels(gt_boxes=np.array([[*CAR, np.nan, np.nan]]))
    annos[5]["boxes_lidar"] = np.full((1, 7), np.nan)
    assert dataset.evaluation(annos, ["vehicle"])[0] is not None


class ByItems(DatasetTemplate):
    """As OpenPCDet's data sets are written."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.prepare_data({"points": np.zeros((1, 4), np.float32), "frame_id": index})


def test_a_data_set_whose_labels_cannot_be_loaded_says_so():
    config = kitti_files.dataset_cfg(MAP_CLASS_TO_KITTI={"vehicle": "Car"})
    dataset = ByItems(config, ["vehicle"], training=False, root_path=".")
    with pytest.raises(NotImplementedError, match="ByItems has no num_frames and load_frame, .* labels"):
        dataset.evaluation([{}], ["vehicle"])


def test_without_a_mapping_the_way_out_is_named():
    with pytest.raises(NotImplementedError, match="MAP_CLASS_TO_KITTI"):
        clouds().evaluation([], ["vehicle"])


def test_a_class_that_kittis_evaluation_does_not_know_must_be_mapped():
    config = {"CLASS_NAMES": ["Car", "vehicle", "tree"],
              "DATA_CONFIG": kitti_files.dataset_cfg(MAP_CLASS_TO_KITTI={"vehicle": "Car"})}  # fmt: skip
    assert [p for p in find_problems(config) if "MAP_CLASS" in p] == [
        "DATA_CONFIG.MAP_CLASS_TO_KITTI: has no entry for 'tree' of CLASS_NAMES, which KITTI's evaluation does not "
        "know; map it to one of Car, Pedestrian, Cyclist, Van, Person_sitting, Truck"
    ]
    config["DATA_CONFIG"]["MAP_CLASS_TO_KITTI"] = {"vehicle": "Cars", "tree": "Truck"}
    assert any("MAP_CLASS_TO_KITTI.vehicle: KITTI's evaluation has no class 'Cars'; did you mean Car" in p
               for p in find_problems(config))  # fmt: skip


class OwnEvaluation(Clouds):
    """With rules of its own."""

    def evaluation(self, det_annos, class_names, **kwargs):
        return "", {}


@pytest.mark.parametrize(
    ("dataset", "metric", "refused"),
    [(None, None, True), (None, "kitti", True), (None, "nuscenes", False), (Clouds, None, True),
     (OwnEvaluation, None, False), (OwnEvaluation, "kitti", False), (ByItems, None, False)],
)  # fmt: skip
def test_a_mapping_to_other_classes_keeps_no_data_set_from_training_that_kittis_evaluation_never_sees(
    monkeypatch, dataset, metric, refused
):
    name = "KittiDataset" if dataset is None else dataset.__name__
    if dataset is not None:
        monkeypatch.setitem(DATASETS._classes, name, dataset)
    data = kitti_files.dataset_cfg(DATASET=name, MAP_CLASS_TO_KITTI={"barrier": "barrier"})
    config = {"CLASS_NAMES": ["barrier", "tree"], "DATA_CONFIG": data}
    if metric is not None:
        config["MODEL"] = {"POST_PROCESSING": {"EVAL_METRIC": metric}}
    found = [p.partition(": ")[0] for p in find_problems(config) if "MAP_CLASS" in p]
    wanted = ["DATA_CONFIG.MAP_CLASS_TO_KITTI.barrier", "DATA_CONFIG.MAP_CLASS_TO_KITTI"]
    assert found == (wanted if refused else [])
    (dataset or KittiDataset).SCHEMA(**{key.lower(): value for key, value in data.items()})
