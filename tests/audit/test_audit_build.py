"""A whole audit of a tiny data set: what it holds, what it refuses, and its file."""

import json

import numpy as np
import pytest
from support import kitti_files
from support.kitti_files import CAR, PEDESTRIAN, VAN

from pcdet.audit.build import build_audit
from pcdet.audit.files import write_json
from pcdet.audit.judging import AuditedModel
from pcdet.audit.scenes import thin
from pcdet.datasets.dataset import DatasetTemplate
from pcdet.datasets.errors import DataError
from pcdet.datasets.kitti.kitti_dataset import KittiDataset
from pcdet.datasets.kitti.kitti_infos import CLASS_NAMES, create_kitti_infos

BOX = (10.0, 0, 0, 4, 2, 1.5, 0)


class Clouds(DatasetTemplate):
    """Frames with one box each, 50 points in a row through it."""

    frames, unlabelled, loads = 12, (), 0

    def num_frames(self):
        return self.frames

    def load_frame(self, index):
        self.loads += 1
        x = np.linspace(0, 20, 50)
        points = np.column_stack([x, 0 * x, 0 * x, 0 * x]).astype(np.float32)
        labels = {"gt_boxes": np.array([BOX]), "gt_names": np.array(["car"])} if index not in self.unlabelled else {}
        return {"frame_id": index, "points": points, **labels}


def clouds(**attributes):
    made = type("Clouds", (Clouds,), attributes)
    return made(kitti_files.dataset_cfg(DATASET="Clouds"), ["car"], training=False, root_path=".")


def results(frames, box=BOX, score=0.9, name="car"):
    """One detection in each frame."""
    boxes = np.array([box], dtype=np.float32)
    return [
        {"frame_id": i, "name": np.array([name]), "score": np.float32([score]), "boxes_lidar": boxes} for i in frames
    ]


def model(name, role, *seeds):
    return AuditedModel(name=name, role=role, detections=seeds or (results(range(12)),))


MISSING = results(range(12), (10, 9, 0, 4, 2, 1.5, 0))


def test_an_audit_holds_everything_and_its_file_the_numbers(tmp_path):
    dataset = clouds()
    models = [
        model("student", "student", results(range(12)), results(range(12))),
        model("teacher", "teacher"),
        model("control", "control", MISSING, results(range(12))),
    ]
    audit = build_audit(dataset, models, [("student", "control")], max_scenes=3, points_per_scene=25)
    assert dataset.loads == 12 + 3  # labels once a frame, clouds of scenes
    assert audit.frames == 12 and audit.rules == {"car": "3D overlap of at least 0.5"}
    assert [(m.name, m.seeds) for m in audit.models] == [("teacher", 1), ("control", 2), ("student", 2)]
    assert audit.models[0].thresholds == {"car": pytest.approx(0.9)}
    assert audit.groups[0].recall == {"teacher": 1.0, "control": 0.5, "student": 1.0}
    assert audit.gains[0].gain == 0.5
    errors = {(row.model, row.class_name, row.kind): row.per_frame for row in audit.errors}
    assert errors["control", "car", "background"] == errors["control", "car", "missed"] == 0.5
    assert len(audit.objects) == 12 and audit.objects[0].points == 10  # x from 8 to 12 in steps of 20 / 49
    scene = audit.scenes[0]
    assert scene.frame == "0" and scene.points_in_file == 50 and len(scene.points) <= 25
    assert scene.counted.tolist() == [True] and list(scene.names) == ["car"] and scene.importance == {}
    assert scene.detections["control"].kinds == ["background"] and scene.detections["student"].kinds == ["true"]
    np.testing.assert_array_equal(scene.detections["student"].boxes, [BOX])

    write_json(tmp_path / "audit.json", audit)
    written = json.loads((tmp_path / "audit.json").read_text())
    assert written["groups"][0]["recall"] == audit.groups[0].recall and written["gains"][0]["gain"] == 0.5
    assert written["scenes"][0] == {"frame": "0", "points_in_file": 50} and written["frames"] == 12
    assert written["curves"][0]["scores"] == audit.curves[0].scores


def test_low_detections_are_shown_down_to_a_tenth_or_the_threshold():
    def detections(score):
        return [
            {
                "frame_id": i,
                "name": np.array(["car"] * 3),
                "score": np.array([score, 0.1, 0.04]),
                "boxes_lidar": np.array([BOX, *[(10, 9, 0, 4, 2, 1.5, 0)] * 2]),
            }
            for i in range(12)
        ]

    models = [model("high", "student", detections(0.9)), model("low", "student", detections(0.05))]
    shown = build_audit(clouds(), models, []).scenes[0].detections
    assert shown["high"].scores.tolist() == [0.9, 0.1]
    assert shown["low"].scores.tolist() == [0.05, 0.1]  # 24 of 0.05 and 0.1 hold all cars: F1 24 / 36


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = kitti_files.write_folder(tmp_path_factory.mktemp("audit") / "kitti")
    create_kitti_infos(kitti_files.dataset_cfg(), CLASS_NAMES, root, workers=0)
    return root


def test_kittis_neighbours_are_neutral_and_its_attributes_are_groups(prepared):
    dataset = KittiDataset(kitti_files.dataset_cfg(), list(CLASS_NAMES), training=False, root_path=prepared)
    found = [
        {
            "frame_id": "000004",
            "name": np.array(["Car", "Car", "Pedestrian"]),
            "score": np.array([0.9, 0.8, 0.7]),
            "boxes_lidar": np.array([CAR, VAN, PEDESTRIAN]),
        },
        {"frame_id": "000005", "name": np.array([]), "score": np.array([]), "boxes_lidar": np.zeros((0, 7))},
    ]
    audit = build_audit(dataset, [model("m", "student", found)], [])
    by_frame = {scene.frame: scene for scene in audit.scenes}
    scene = by_frame["000004"]
    assert scene.detections["m"].kinds == ["true", "ignored", "true"]
    assert list(scene.names) == ["Car", "Pedestrian", "Cyclist", "Van"]
    assert scene.counted.tolist() == [True, True, True, False]
    recall = {(group.by, group.value, group.class_name): group.recall["m"] for group in audit.groups}
    assert recall["class", "all", ""] == 0.5  # a car and a pedestrian of one car, two pedestrians, one cyclist
    assert recall["occlusion", "fully visible", "Pedestrian"] == recall["difficulty", "easy", "Pedestrian"] == 0.5
    assert audit.rules["Car"] == "3D overlap of at least 0.7"


def test_clouds_are_thinned_by_the_first_point_of_each_voxel():
    near, far = np.zeros((500, 3)) + np.linspace(0, 0.1, 500)[:, None], np.array([[50.0, 0, 0], [60, 0, 0]])
    points = np.concatenate([near, far, [[np.nan, 0, 0]]])
    thinned = thin(points, 10)
    assert 3 <= len(thinned) <= 10 and thinned.dtype == np.float32
    np.testing.assert_array_equal(thinned[0], points[0])
    np.testing.assert_array_equal(thinned[-2:], far)
    np.testing.assert_array_equal(thin(points, 600), points[:-1].astype(np.float32))


@pytest.mark.parametrize(
    ("dataset", "detections", "message"),
    [
        ({"frames": 0}, results([]), "has no frames to audit; name a split"),
        ({"unlabelled": (4, 7)}, results(range(12)), "2 of 12 frames have no labels, such as number 4; audit"),
        ({}, results(range(11)), "m, seed 1 of 1: no results for 1 of 12 frames, for instance 11; give"),
        ({}, results(range(13)), "m, seed 1 of 1: results for 1 frames that the split does not have: 12; give"),
        ({}, results(range(12), name="bus"), "m, seed 1 of 1, frame 0: the data set has no matching rule for bus"),
        ({}, results(range(12), score=np.nan), "frame 0: boxes and scores must be finite, but detection 0"),
        ({}, results(range(12), (1, 2, 3)), r"frame 0: the results need a name and a score .* boxes of \[1, 3\]"),
        ({}, [{"frame_id": i} for i in range(12)], "the results have no name, score, boxes_lidar; give"),
        ({"LABEL_ATTRIBUTES": {"rain": ("yes",)}}, results(range(12)), "frame 0: the attribute rain must be one of"),
    ],
)
def test_data_that_cannot_be_audited_is_named(dataset, detections, message):
    with pytest.raises(DataError, match=message):
        build_audit(clouds(**dataset), [model("m", "student", detections)], [])


@pytest.mark.parametrize(
    ("models", "pairs", "message"),
    [
        ([], [], "needs at least one model"),
        ([model("a", "student"), model("a", "control")], [], "several are called a; rename"),
        ([model("a", "pupil")], [], "the role of a must be one of teacher, control, student, got 'pupil'"),
        ([AuditedModel(name="a", role="student", detections=[])], [], "a has no detections"),
        ([model("a", "teacher"), model("b", "teacher")], [], "one teacher, got a, b; audit"),
        ([model("a", "student")], [("a", "plain")], "pair a, plain: there is no model plain, only a"),
        ([model("a", "student"), model("b", "control")], [("b", "a")], "but b is a control"),
    ],
)
def test_models_and_pairs_that_do_not_fit_together_are_named(models, pairs, message):
    with pytest.raises(ValueError, match=message):
        build_audit(clouds(), models, pairs)


def test_a_file_is_not_written_with_a_number_that_is_none(tmp_path):
    audit = build_audit(clouds(), [model("m", "student")], [], max_scenes=0)
    audit.models[0].thresholds["car"] = float("nan")
    (tmp_path / "audit.json").write_text("old")
    with pytest.raises(ValueError):
        write_json(tmp_path / "audit.json", audit)
    assert (tmp_path / "audit.json").read_text() == "old"
