"""Detections in the LiDAR frame become a submission in the global one, and are evaluated as the data set asks."""

import json
import math

import numpy as np
import pytest
from support.nuscenes_release import SAMPLES, labelled, write_release

from pcdet.datasets.errors import DataError
from pcdet.datasets.nuscenes.evaluate import evaluate_file
from pcdet.datasets.nuscenes.evaluation import evaluate_annos
from pcdet.datasets.nuscenes.evaluation.frames import Frames
from pcdet.datasets.nuscenes.evaluation.submission import make_submission


def pose(yaw, x, y, z):
    """(4, 4) from a frame that stands at a place, turned about z, to the outer one."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    return np.array([[cos, -sin, 0, x], [sin, cos, 0, y], [0, 0, 1, z], [0, 0, 0, 1.0]])


def infos(labelled=True):
    """The vehicle at (100, 0), turned a quarter to the left; the sensor 2 m above it, turned a quarter to the right."""
    car, lidar = np.linalg.inv(pose(math.pi / 2, 100, 0, 0)), np.linalg.inv(pose(-math.pi / 2, 1, 0, 2))
    labels = {"gt_boxes": np.zeros((0, 9))} if labelled else {}
    return [{"token": token, "car_from_global": car, "ref_from_car": lidar, **labels} for token in SAMPLES]


def anno(token, boxes=(), names=(), scores=None):
    score = np.full(len(boxes), 0.5) if scores is None else np.array(scores)
    boxes = np.array(boxes, dtype=np.float32).reshape(len(names), 9 if not len(boxes) else len(boxes[0]))
    return {"name": np.array(names), "score": score, "boxes_lidar": boxes, "metadata": {"token": token}}


def same_turn(own, expected):
    """Quaternions of both signs are one turn."""
    np.testing.assert_allclose(np.array(own) * np.sign(own[0]), expected, atol=1e-6)


def test_boxes_velocities_and_headings_are_turned_into_the_global_frame():
    # the two quarter turns cancel: the sensor's axes are the world's, and it stands at (100, 1, 2)
    box = [5, 6, -1, 4, 2, 1.5, 0.3, 3, 0.5]
    made = make_submission([anno(SAMPLES[1]), anno(SAMPLES[0], [box], ["car"])], Frames.of_infos(infos()))
    assert made.boxes.sample.tolist() == [0]
    np.testing.assert_allclose(made.boxes.center, [[105, 7, 1]], atol=1e-5)
    np.testing.assert_allclose(made.boxes.size, [[2, 4, 1.5]])
    np.testing.assert_allclose(made.boxes.velocity, [[3, 0.5]], atol=1e-6)
    np.testing.assert_allclose(
        made.rotation * np.sign(made.rotation[0, 0]), [[math.cos(0.15), 0, 0, math.sin(0.15)]], atol=1e-6
    )


def test_infos_without_poses_are_named():
    poseless = [{key: value for key, value in info.items() if key != "ref_from_car"} for info in infos()]
    with pytest.raises(DataError, match=f"2 of 2 infos have no ref_from_car.*such as that of {SAMPLES[0]}"):
        Frames.of_infos(poseless)


def test_a_slope_tilts_boxes_and_shortens_velocities_over_the_ground():
    tilt = np.eye(4)
    tilt[:3, :3] = [[math.cos(0.4), 0, math.sin(0.4)], [0, 1, 0], [-math.sin(0.4), 0, math.cos(0.4)]]  # about y
    frames = Frames.of_infos([{"token": "a", "car_from_global": np.linalg.inv(tilt), "ref_from_car": np.eye(4)}])
    made = make_submission([anno("a", [[10, 0, 0, 4, 2, 1, math.pi / 2, 5, 0]], ["bus"])], frames)
    np.testing.assert_allclose(made.boxes.center, [[10 * math.cos(0.4), 0, -10 * math.sin(0.4)]], atol=1e-5)
    np.testing.assert_allclose(made.boxes.velocity, [[5 * math.cos(0.4), 0]], atol=1e-6)
    half = math.sqrt(0.5)  # (cos 0.2, 0, sin 0.2, 0) times (cos pi/4, 0, 0, sin pi/4)
    same_turn(
        made.rotation[0], [math.cos(0.2) * half, math.sin(0.2) * half, math.sin(0.2) * half, math.cos(0.2) * half]
    )


@pytest.mark.parametrize(
    ("name", "moving", "standing"),
    [
        ("car", "vehicle.moving", "vehicle.parked"),
        ("bus", "vehicle.moving", "vehicle.stopped"),
        ("bicycle", "cycle.with_rider", "cycle.without_rider"),
        ("pedestrian", "pedestrian.moving", "pedestrian.standing"),
        ("barrier", "", ""),
    ],
)
def test_attributes_follow_speed_as_in_openpcdet(tmp_path, name, moving, standing):
    speeds = {moving: (0.15, 0.15), standing: (0.1, 0.1)}  # 0.21 and 0.14 m/s; 0.2 divides them
    boxes = [[1, 1, 0, 1, 1, 1, 0, *speed] for speed in speeds.values()]
    annos = [anno(SAMPLES[0], boxes, [name] * len(boxes)), anno(SAMPLES[1])]
    text, numbers = evaluate_annos(
        annos,
        [name],
        root_path=tmp_path,
        version="v1.0-test",
        infos=infos(labelled=False),
        output_path=tmp_path / "out",
    )
    assert text is None and numbers == {}
    written = json.loads((tmp_path / "out" / "results_nusc.json").read_text())
    assert [box["attribute_name"] for box in written["results"][SAMPLES[0]]] == list(speeds)
    assert written["results"][SAMPLES[1]] == [] and written["meta"]["use_lidar"] is True


def test_the_written_files_and_the_returned_numbers_agree(tmp_path):
    objects = [labelled("car", (105, 7, 1)), labelled("car", (95, 7, 1), sample=1), labelled("pedestrian", (110, 0, 1))]
    root = write_release(tmp_path / "set", objects)
    poses = json.loads((root / "v1.0-mini" / "ego_pose.json").read_text())
    poses[0]["translation"] = [100.0, 0.0, 0.0]
    (root / "v1.0-mini" / "ego_pose.json").write_text(json.dumps(poses))
    annos = [
        anno(SAMPLES[0], [[5.3, 6, -1, 4, 2, 1.5, 0]], ["car"], [0.9]),
        anno(SAMPLES[1], [[-5, 6, -1, 4, 2, 1.5, 0.1], [9, 9, 0, 1, 1, 1, 0]], ["car", "pedestrian"], [0.8, 0.7]),
    ]
    text, numbers = evaluate_annos(
        annos, ["car", "pedestrian"], root_path=root, version="v1.0-mini", infos=infos(), output_path=tmp_path / "out"
    )
    summary = json.loads((tmp_path / "out" / "metrics_summary.json").read_text())
    again = evaluate_file(tmp_path / "out" / "results_nusc.json", root, "v1.0-mini")
    assert numbers["mAP"] == summary["mean_ap"] == pytest.approx(again["mean_ap"], abs=1e-12)
    assert numbers["NDS"] == pytest.approx(again["nd_score"], abs=1e-12)
    assert numbers["car/AP"] == pytest.approx(1) and numbers["pedestrian/AP"] == 0
    assert numbers["car/trans_err"] == pytest.approx(again["label_tp_errors"]["car"]["trans_err"], abs=1e-12)
    assert "***pedestrian error" in text and "***bus" not in text and f"NDS:\t {numbers['NDS']:.4f}" in text


def test_detections_that_cannot_be_submitted_are_refused(tmp_path):
    wrong = [[1, 1, 0, 1, 1, 1, 0], [1, 1, 0, float("inf"), 1, 1, 0], [1, 1, 0, 0, 1, 1, 0]]
    annos = [anno(SAMPLES[0], wrong, ["Car", "bus", "truck"]), anno(SAMPLES[1], np.ones((501, 7)), ["car"] * 501)]
    with pytest.raises(DataError) as caught:
        make_submission(annos, Frames.of_infos(infos()))
    said = "\n".join(caught.value.problems)
    for part in (
        "no class Car", "1 detections are no boxes (numbers must be finite), for instance a bus of sample sample0",
        "(sizes must be above 0), for instance a truck", "more than 500 boxes, for instance sample1, which has 501",
    ):  # fmt: skip
        assert part in said
    with pytest.raises(DataError, match=r"no results for 1 of 2 frames, for instance sample1"):
        make_submission([anno(SAMPLES[0])], Frames.of_infos(infos()))
    with pytest.raises(DataError, match="has no metadata with the sample's token"):
        make_submission([{"name": [], "frame_id": "x"}], Frames.of_infos(infos()))
