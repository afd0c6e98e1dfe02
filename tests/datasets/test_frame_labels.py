"""The labels of a frame and the rules of matching, in the form that all data sets share."""

import numpy as np
import pytest
from support import kitti_files
from support.kitti_files import CAR, CYCLIST, PEDESTRIAN, VAN

from pcdet.datasets.dataset import DatasetTemplate
from pcdet.datasets.errors import DataError
from pcdet.datasets.frame_labels import FrameLabels, MatchingRule
from pcdet.datasets.kitti.kitti_dataset import KittiDataset
from pcdet.datasets.kitti.kitti_infos import create_kitti_infos
from pcdet.datasets.kitti.kitti_object_eval_python.rules import OVERLAPS

CLASSES = ["Car", "Pedestrian", "Cyclist"]


def kitti(root, classes=CLASSES, **changes):
    return KittiDataset(kitti_files.dataset_cfg(**changes), classes, training=False, root_path=root)


def test_a_kitti_frame_has_all_objects_with_their_points_and_the_neighbour_is_neutral(prepared_kitti):
    labels = kitti(prepared_kitti).frame_labels(0)
    assert labels.frame == "000004"
    assert list(labels.names) == ["Car", "Pedestrian", "Cyclist", "Van"]
    np.testing.assert_allclose(labels.boxes[:, :6], np.array([CAR, PEDESTRIAN, CYCLIST, VAN])[:, :6], atol=1e-5)
    assert list(labels.points) == [27, 27, 27, 28]  # what `grid_inside` puts in each box, and one of the ground
    assert list(labels.neutral) == [(), (), (), ("Car",)]


def test_occlusion_and_difficulty_follow_kittis_limits(tmp_path):
    """Image boxes: 100 pixels high but for the two whose height is said; easy > 40, the others > 25, by the devkit."""
    lines = [
        kitti_files.label_line("Car", CAR, occluded=0, truncated=0.15),  # easy: at the limit
        kitti_files.label_line("Car", CAR, occluded=0, image_box=(0, 100, 50, 140)),  # 40: not easy
        kitti_files.label_line("Car", CAR, occluded=1),  # moderate
        kitti_files.label_line("Car", CAR, occluded=0, truncated=0.31),  # hard
        kitti_files.label_line("Car", CAR, occluded=2),  # hard
        kitti_files.label_line("Car", CAR, occluded=3),  # beyond
        kitti_files.label_line("Car", CAR, occluded=0, image_box=(0, 100, 50, 125)),  # 25: beyond
        kitti_files.DONT_CARE,
    ]
    root = kitti_files.write_folder(tmp_path)
    (root / "training/label_2/000004.txt").write_text("".join(lines))
    create_kitti_infos(kitti_files.dataset_cfg(), CLASSES, root, workers=0)
    dataset = kitti(root)
    attributes = dataset.frame_labels(0).attributes
    seen, partly, largely, unknown = "fully visible", "partly occluded", "largely occluded", "unknown"
    assert attributes == {
        "occlusion": [seen, seen, partly, seen, largely, unknown, seen],
        "difficulty": ["easy", "moderate", "moderate", "hard", "hard", "beyond hard", "beyond hard"],
    }
    assert {name: set(values) for name, values in attributes.items()} == {
        name: set(values) for name, values in dataset.LABEL_ATTRIBUTES.items()
    }


def test_kittis_rules_are_the_strict_overlaps_in_space_also_under_other_names(prepared_kitti):
    own = {"vehicle": "Car", "walker": "Pedestrian"}
    rules = kitti(prepared_kitti).matching_rules()
    renamed = kitti(prepared_kitti, list(own), MAP_CLASS_TO_KITTI={**own, "bus": "Van"})
    assert rules == {name: MatchingRule("overlap", OVERLAPS["strict"][name][2]) for name in CLASSES}
    assert [rule.limit for rule in rules.values()] == [0.7, 0.5, 0.5]
    assert {name: rule.limit for name, rule in renamed.matching_rules().items()} == {"vehicle": 0.7, "walker": 0.5}
    assert renamed.frame_labels(0).neutral[3] == ("vehicle",)  # KITTI's Van, beside what is called a Car there


def test_infos_without_counts_of_points_say_that_they_are_unknown(prepared_kitti):
    dataset = kitti(prepared_kitti)
    del dataset.kitti_infos[0]["annos"]["num_points_in_gt"]
    assert list(dataset.frame_labels(0).points) == [None] * 4


class Clouds(DatasetTemplate):
    """One frame with an upright box, two points in it and one out of it; a second one without labels."""

    def num_frames(self):
        return 2

    def load_frame(self, index):
        points = np.array([[10, 0, 0, 1], [11, 0.4, 0, 1], [13, 0, 0, 1]], dtype=np.float32)
        boxes = np.array([[10, 0, 0, 4, 2, 2, 0, 0.5, 0.1]], dtype=np.float32)  # with a velocity
        labels = {"gt_boxes": boxes, "gt_names": np.array(["car"])} if index == 0 else {}
        return {"frame_id": index, "points": points, **labels}


def clouds(**changes):
    return Clouds(kitti_files.dataset_cfg(DATASET="Clouds", **changes), ["car"], training=False, root_path=".")


def test_any_data_set_has_labels_by_what_it_loads():
    dataset = clouds()
    labels = dataset.frame_labels(0)
    assert labels.frame == "0" and list(labels.names) == ["car"] and list(labels.points) == [2]
    np.testing.assert_array_equal(labels.boxes, [[10, 0, 0, 4, 2, 2, 0]])
    assert labels.attributes == {} and list(labels.neutral) == [()]
    assert dataset.frame_labels(1) is None


def test_any_data_set_asks_for_half_an_overlap_or_what_kitti_asks_of_its_class():
    assert clouds().matching_rules() == {"car": MatchingRule("overlap", 0.5)}
    assert clouds(MAP_CLASS_TO_KITTI={"car": "Car"}).matching_rules() == {"car": MatchingRule("overlap", 0.7)}


def test_neighbours_are_neutral_in_any_data_set_that_kittis_evaluation_judges():
    """A label that its mapping leaves out keeps its name: as a Van it excuses what finds it as a Car."""
    van = type("Vans", (Clouds,), {"load_frame": lambda self, i: {**Clouds.load_frame(self, i), "gt_names": ["Van"]}})
    config = kitti_files.dataset_cfg(DATASET="Vans", MAP_CLASS_TO_KITTI={"car": "Car"})
    labels = van(config, ["car"], training=False, root_path=".").frame_labels(0)
    assert list(labels.names) == ["Van"] and list(labels.neutral) == [("car",)]


def test_rules_speak_for_themselves_and_refuse_what_they_cannot_mean():
    assert str(MatchingRule("overlap", 0.7)) == "3D overlap of at least 0.7"
    assert str(MatchingRule("distance", 2.0)) == "centres at most 2 m apart over the ground"
    for measure, limit in (("overlap", 0.0), ("overlap", 1.1), ("distance", 0.0), ("distance", float("nan"))):
        with pytest.raises(ValueError, match=f"the limit of an {measure} rule"):
            MatchingRule(measure, limit)
    with pytest.raises(ValueError, match="measure must be overlap or distance, got 'bev'"):
        MatchingRule("bev", 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": []}, "frame a: 0 names for 1 labelled boxes"),
        ({"attributes": {"night": ["yes", "no"]}}, "frame a: 2 night for 1 labelled boxes"),
        ({"boxes": np.zeros((1, 9))}, "frame a: the boxes of labels must have shape"),
        ({"boxes": np.full((1, 7), np.nan)}, "frame a: labels must be finite, but box 0 .car."),
    ],
)
def test_labels_that_do_not_fit_together_are_named(change, message):
    sound = {"frame": "a", "boxes": np.zeros((1, 7)), "names": ["car"], "points": [None], "neutral": [()]}
    FrameLabels(**sound)
    with pytest.raises(DataError, match=message):
        FrameLabels(**{**sound, **change})
