"""MAP_CLASS_TO_KITTI: other data sets' classes, and boxes without a camera, under KITTI's evaluation."""

import shutil
from pathlib import Path

import kitti_files
import numpy as np
import pytest
from kitti_files import CAR

from pcdet.config_checks import find_problems
from pcdet.datasets.dataset import DatasetTemplate
from pcdet.datasets.kitti.kitti_dataset import KittiDataset
from pcdet.datasets.pickles import read_pickle
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
