"""nuScenes' evaluation: which boxes count, how detections choose objects, and what errors are."""

import math

import numpy as np
import pytest
from support.nuscenes_release import detected, labelled, write_release, write_results

from pcdet.datasets.errors import DataError
from pcdet.datasets.nuscenes.evaluate import evaluate_file
from pcdet.datasets.nuscenes.evaluation import matching
from pcdet.datasets.nuscenes.evaluation.boxes import Boxes


def evaluate(folder, objects, boxes, seconds=0.5):
    write_release(folder, objects, seconds)
    return evaluate_file(write_results(folder / "results.json", boxes), folder, "v1.0-mini")


def test_a_detector_that_is_right_has_all_precision_and_no_error(tmp_path):
    places = [((10, 5, 1), 0), ((-20, 3, 1), 1)]
    objects = [labelled("car", center, sample, attribute="vehicle.parked") for center, sample in places]
    boxes = [detected("car", center, sample, attribute="vehicle.parked") for center, sample in places]
    metrics = evaluate(tmp_path, objects, boxes)
    assert metrics["mean_dist_aps"]["car"] == pytest.approx(1) and metrics["mean_ap"] == pytest.approx(0.1)
    errors = metrics["label_tp_errors"]["car"]
    assert [errors[e] for e in ("trans_err", "scale_err", "orient_err", "attr_err")] == pytest.approx([0] * 4, abs=1e-9)
    assert errors["vel_err"] == 1  # no label tells the velocity of an object seen once
    assert metrics["label_tp_errors"]["bus"]["trans_err"] == 1  # nothing to find


def test_only_objects_in_range_and_with_points_have_to_be_found(tmp_path):
    objects = [labelled("pedestrian", (39.9, 0, 1)), labelled("pedestrian", (40, 0, 1)),
               labelled("pedestrian", (5, 0, 1), points=0)]  # fmt: skip
    metrics = evaluate(tmp_path, objects, [detected("pedestrian", (39.9, 0, 1))])
    assert metrics["mean_dist_aps"]["pedestrian"] == pytest.approx(1)


def test_boxes_out_of_range_are_no_false_alarms(tmp_path):
    right, far = detected("car", (10, 0, 1), score=0.1), detected("car", (0, 50, 1), score=0.9)
    near = detected("car", (0, 49.9, 1), score=0.9)
    # a false alarm first: precision rises from 0 to 1 / 2 with recall, and (0.5 r - 0.1) / 0.9 has the mean 0.2 there
    for name, boxes, ap in (("far", [right, far], 1.0), ("near", [right, near], 0.2)):
        metrics = evaluate(tmp_path / name, [labelled("car", (10, 0, 1))], boxes)
        assert metrics["label_aps"]["car"]["2.0"] == pytest.approx(ap), name


@pytest.mark.parametrize(("place", "counts"), [((10.9, 2.9), False), ((10.9, 3.1), True), ((12.9, 0), True)])
def test_a_bicycle_in_a_rack_of_its_sample_does_not_count(tmp_path, place, counts):
    rack = labelled("rack", (10, 0, 1), size=(2, 6, 2), yaw=math.pi / 2)  # two wide, six along y
    bike = labelled("bicycle", (*place, 1)), labelled("bicycle", (*place, 1), sample=1)
    boxes = [detected("bicycle", (*place, 1), sample) for sample in (0, 1)]
    metrics = evaluate(tmp_path, [rack, *bike], boxes[:1])  # the box of the sample that has the rack
    assert metrics["label_aps"]["bicycle"]["0.5"] > 0 if counts else metrics["label_aps"]["bicycle"]["0.5"] == 0
    (tmp_path / "other").mkdir()
    found = evaluate_file(write_results(tmp_path / "other" / "r.json", boxes[1:]), tmp_path, "v1.0-mini")
    # half of the two objects, or the only one
    assert found["label_aps"]["bicycle"]["0.5"] == pytest.approx(40 / 90 if counts else 1)


@pytest.mark.parametrize(("name", "error"), [("barrier", 0), ("car", math.pi)])
def test_a_barrier_turned_by_half_a_turn_is_the_same(tmp_path, name, error):
    metrics = evaluate(tmp_path, [labelled(name, (10, 0, 1), yaw=1)], [detected(name, (10, 0, 1), yaw=1 + math.pi)])
    assert metrics["label_tp_errors"][name]["orient_err"] == pytest.approx(error, abs=1e-9)


def test_errors_that_a_class_does_not_have_are_no_numbers(tmp_path):
    metrics = evaluate(tmp_path, [labelled("car", (1, 0, 1))], [])
    absent = {n: {e for e, v in values.items() if math.isnan(v)} for n, values in metrics["label_tp_errors"].items()}
    assert absent["traffic_cone"] == {"orient_err", "vel_err", "attr_err"}
    assert absent["barrier"] == {"vel_err", "attr_err"} and not absent["car"]
    assert metrics["mean_ap"] == metrics["nd_score"] == 0


@pytest.mark.parametrize(("seconds", "error"), [(0.5, 1.0), (1.6, None)])
def test_velocities_come_from_labels_at_most_a_second_and_a_half_apart(tmp_path, seconds, error):
    moved = [
        labelled("car", (10, 0, 1), 0, instance="one"),
        labelled("car", (10 + 3 * seconds, 0, 1), 1, instance="one"),
    ]
    boxes = [detected("car", o["translation"], o["sample"], velocity=(3, 1)) for o in moved]
    found = evaluate(tmp_path, moved, boxes, seconds)["label_tp_errors"]["car"]["vel_err"]
    assert found == pytest.approx(1.0 if error is None else error)  # 1 m/s too much in y, or not known: 1


def test_matching_is_that_of_loops_over_detections_and_objects(monkeypatch):
    rng = np.random.default_rng(3)
    objects, found = _random_boxes(rng, 60), _random_boxes(rng, 300)
    monkeypatch.setattr(matching, "MOST_PAIRS", 100)  # several parts
    ordered = found[matching.by_score(found)]
    ours = matching.match(objects, ordered, (0.5, 2.0))
    for column, limit in enumerate((0.5, 2.0)):
        assert ours[:, column].tolist() == _loops(objects, ordered, limit)
    assert (ours >= 0).any(axis=0).all()


def test_of_equal_scores_the_later_box_chooses_first():
    boxes = _random_boxes(np.random.default_rng(0), 6)
    boxes.score[:] = [0.5, 0.9, 0.5, 0.9, 0.1, 0.5]
    assert matching.by_score(boxes).tolist() == [3, 1, 5, 2, 0, 4]


def _random_boxes(rng, number):
    """Boxes of one class in four samples, close together, on a grid so that distances repeat."""
    zeros = np.zeros(number)
    return Boxes(
        sample=rng.integers(0, 4, number), class_id=zeros, center=rng.integers(0, 12, (number, 3)) / 2.0,
        size=np.ones((number, 3)), yaw=zeros, velocity=np.zeros((number, 2)), attribute=zeros,
        score=rng.integers(0, 9, number) / 9,
    )  # fmt: skip


def _loops(objects, found, limit):
    taken, matched = set(), []
    for sample, center in zip(found.sample, found.center, strict=True):
        best, least = -1, limit
        for i in np.flatnonzero(objects.sample == sample):
            distance = math.dist(center[:2], objects.center[i, :2])
            if i not in taken and distance < least:
                best, least = int(i), distance
        taken.add(best)
        matched.append(best)
    return matched


def test_a_split_without_labels_is_refused(tmp_path):
    write_release(tmp_path, [])
    with pytest.raises(DataError, match="labels none of the 2 samples"):
        evaluate_file(write_results(tmp_path / "r.json", []), tmp_path, "v1.0-mini")


def test_a_version_whose_split_is_not_known_asks_for_one(tmp_path):
    write_release(tmp_path, [])
    (tmp_path / "v1.0-mini").rename(tmp_path / "own")
    with pytest.raises(DataError, match="version own has no split that the challenge evaluates"):
        evaluate_file(write_results(tmp_path / "r.json", []), tmp_path, "own")
