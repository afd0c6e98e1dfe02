"""Objects of each class: told at the start, and missing ones noticed."""

import logging
import shutil
from pathlib import Path

import pytest
from support import kitti_files

from pcdet.datasets import build_dataloader
from pcdet.datasets.dataset import DatasetTemplate
from pcdet.datasets.errors import DataError
from pcdet.datasets.pickles import read_pickle
from pcdet.registry import AUGMENTORS
from pcdet.utils import safe_pickle

CLASSES = ["Car", "Pedestrian", "Cyclist"]


@pytest.fixture
def kitti(prepared_kitti, tmp_path):
    """A prepared folder to change."""
    return Path(shutil.copytree(prepared_kitti, tmp_path / "kitti"))


def loader(root, classes, training=True, augmentors=()):
    config = kitti_files.dataset_cfg(DATA_AUGMENTOR=list(augmentors))
    return build_dataloader(config, classes, 1, False, root_path=root, workers=0, seed=0, training=training)


def test_the_objects_of_each_class_are_told_in_one_line(prepared_kitti, caplog):
    with caplog.at_level(logging.INFO, "pcdet"):
        loader(prepared_kitti, CLASSES)
    assert "train: objects Car 3, Pedestrian 1, Cyclist 2; left out: Van 1" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_training_on_names_that_no_label_has_is_refused_with_what_is_meant(prepared_kitti, caplog):
    said = "no object of car, truck.*background.*Car 3, Cyclist 2, .*for car, did you mean Car"
    with pytest.raises(DataError, match=said):
        loader(prepared_kitti, ["car", "truck"])
    with caplog.at_level(logging.WARNING, "pcdet"):
        loader(prepared_kitti, ["car"], training=False)
    assert "the val split has no object of car" in caplog.text


def test_one_class_without_an_object_is_a_warning_unless_objects_are_pasted(kitti, caplog):
    path = kitti / "kitti_infos_train.pkl"
    infos = [info for info in read_pickle(path) if "Pedestrian" not in info["annos"]["name"]]
    safe_pickle.dump(infos, path)
    with caplog.at_level(logging.WARNING, "pcdet"):
        loader(kitti, CLASSES)
        assert "the train split has no object of Pedestrian" in caplog.text
        caplog.clear()
        loader(kitti, CLASSES, augmentors=[{**kitti_files.AUGMENTORS[0], "PREPARE": {}}])
        assert "no object of Pedestrian" not in caplog.text
        loader(kitti, ["Pedestrian"], augmentors=[{**kitti_files.AUGMENTORS[0], "PREPARE": {}}])


@pytest.mark.parametrize(("told", "missing"), [({"Van": 1}, True), (lambda self: {"Pedestrian": 1}, False)])
def test_an_augmentors_object_counts_is_asked_where_it_is_a_method(kitti, caplog, monkeypatch, told, missing):
    path = kitti / "kitti_infos_train.pkl"
    safe_pickle.dump([info for info in read_pickle(path) if "Pedestrian" not in info["annos"]["name"]], path)
    flip = {"NAME": "random_world_flip", "ALONG_AXIS_LIST": ["x"]}
    monkeypatch.setattr(AUGMENTORS.get("random_world_flip"), "object_counts", told, raising=False)
    with caplog.at_level(logging.WARNING, "pcdet"):
        loader(kitti, CLASSES, augmentors=[flip])
    assert ("no object of Pedestrian" in caplog.text) == missing


def test_a_split_without_labels_and_a_data_set_that_does_not_know_say_nothing(kitti, caplog):
    path = kitti / "kitti_infos_val.pkl"
    safe_pickle.dump([{k: v for k, v in info.items() if k != "annos"} for info in read_pickle(path)], path)
    assert DatasetTemplate.class_counts(None) is None
    with caplog.at_level(logging.INFO, "pcdet"):
        loader(kitti, ["car"], training=False)
    assert "objects" not in caplog.text
