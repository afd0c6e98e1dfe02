"""The KITTI evaluation against closed forms."""

import math

import numpy as np
import pytest
from support.kitti_annos import CLASSES, anno, run

from pcdet.datasets.kitti.kitti_object_eval_python import rules
from pcdet.datasets.kitti.kitti_object_eval_python.eval import get_official_eval_result


def values(results, class_name="Car", metric="3d", points="R40", which="strict"):
    by_level = results[which]["ap"][class_name][metric]
    return by_level and [by_level[level][points] for level in rules.DIFFICULTIES]


@pytest.mark.parametrize("num", [1, 2, 10, 39, 40, 41, 80, 81, 200])
def test_perfect_detections_miss_the_first_of_forty_points(num):
    # n thresholds at most fill n of 41 points, and R40 leaves the first one out
    gt = [anno(["Car"]) for _ in range(num)]
    dt = [anno(["Car"], scores=[0.9 - i / 1000]) for i in range(num)]
    results = run(gt, dt)
    for metric in ("bbox", "bev", "3d", "aos"):
        assert values(results, metric=metric) == pytest.approx([min(num - 1, 40) / 40 * 100] * 3)
        filled = sum(1 for point in range(0, 41, 4) if point < num)
        assert values(results, metric=metric, points="R11") == pytest.approx([filled / 11 * 100] * 3)


def test_half_of_the_detections_false_halves_the_precision():
    gt = [anno(["Car"]) for _ in range(100)]
    dt = [anno(["Car", "Car"], scores=[0.5, 0.5]) for _ in range(100)]  # the second is 20 m away
    assert values(run(gt, dt)) == pytest.approx([50.0] * 3)


def test_an_orientation_turned_by_a_right_angle_counts_half():
    gt = [anno(["Car"]) for _ in range(100)]
    dt = [anno(["Car"], scores=[0.5], alpha=[math.pi / 2]) for _ in range(100)]
    results = run(gt, dt)
    assert values(results, metric="aos") == pytest.approx([50.0] * 3)
    assert values(results, metric="bbox") == pytest.approx([100.0] * 3)


def test_an_overlap_equal_to_the_threshold_is_no_match():
    gt = [anno(["Cyclist"], bbox=[[0, 0, 50, 100]])] * 60
    exact = [anno(["Cyclist"], bbox=[[0, 0, 100, 100]], scores=[0.5])] * 60
    more = [anno(["Cyclist"], bbox=[[0, 0, 99, 100]], scores=[0.5])] * 60
    assert values(run(gt, exact), "Cyclist", "bbox") == [0, 0, 0]
    assert values(run(gt, more), "Cyclist", "bbox") == pytest.approx([100.0] * 3)


@pytest.mark.parametrize(
    ("change", "counted"),
    [
        ({"occluded": 0}, [1, 1, 1]),
        ({"occluded": 1}, [0, 1, 1]),
        ({"occluded": 2}, [0, 0, 1]),
        ({"occluded": 3}, [0, 0, 0]),
        ({"truncated": 0.15}, [1, 1, 1]),
        ({"truncated": 0.3}, [0, 1, 1]),
        ({"truncated": 0.5}, [0, 0, 1]),
        ({"truncated": 0.51}, [0, 0, 0]),
        ({"bbox": [[0, 100, 80, 140.01]]}, [1, 1, 1]),
        ({"bbox": [[0, 100, 80, 140]]}, [0, 1, 1]),
        ({"bbox": [[0, 100, 80, 125]]}, [0, 0, 0]),
    ],
)
def test_difficulties_include_their_limits(change, counted):
    gt = [anno(["Car"], **change)] * 60
    dt = [anno(["Car"], scores=[0.5], bbox=change.get("bbox"))] * 60
    assert values(run(gt, dt)) == pytest.approx([100.0 * flag for flag in counted])


@pytest.mark.parametrize(("own", "neighbour"), [("Car", "Van"), ("Pedestrian", "Person_sitting")])
def test_a_neighbour_class_is_neither_right_nor_wrong(own, neighbour):
    gt = [anno([own, neighbour], occluded=0)] * 60
    dt = [anno([own, own], boxes_of(gt[0]), scores=[0.9, 0.8])] * 60
    results = run(gt, dt, (own, neighbour))
    assert values(results, own) == pytest.approx([100.0] * 3)
    assert values(results, neighbour) is None  # nothing was detected as the neighbour


def boxes_of(frame):
    return np.concatenate([frame["dimensions"], frame["location"], frame["rotation_y"][:, None]], axis=1)


@pytest.mark.parametrize(("height", "expected"), [(39, [0, 100, 100]), (24, [0, 0, 0]), (41, [100, 100, 100])])
def test_a_small_detection_of_any_class_can_take_the_ground_truth(height, expected):
    gt = [anno(["Car"])] * 60
    bbox = [[0, 100, 80, 180], [0, 100, 80, 100 + height]]
    dt = [anno(["Car", "Truck"], np.repeat(boxes_of(gt[0]), 2, axis=0), bbox=bbox, scores=[0.5, 0.9])] * 60
    # the highest score is matched while thresholds are chosen; a small box leaves no true positive then
    assert values(run(gt, dt)) == pytest.approx(expected)


def test_detections_in_a_dontcare_area_are_not_false():
    area = [[0, 0, 400, 400]]
    gt = [
        anno(["Car"], bbox=[[500, 100, 600, 200]]),
        anno(["DontCare"], [[-1, -1, -1, -1000, -1000, -1000, -10]], bbox=area),
    ]
    dt = [
        anno(["Car"], bbox=[[500, 100, 600, 200]], scores=[0.5]),
        anno(["Car"], bbox=[[10, 10, 90, 90]], scores=[0.9]),
    ]
    results = run(gt * 60, dt * 60)
    assert values(results, metric="bbox") == pytest.approx([100.0] * 3)
    assert values(results, metric="bev") == pytest.approx([50.0] * 3)  # the area has no place on the ground


def test_what_no_detection_is_complete_for_is_not_evaluated():
    gt = [anno(["Car", "Pedestrian", "Cyclist"])] * 3
    flat = anno(["Car"], [[-1, -1, -1, -1000, -1000, -1000, -10]], scores=[0.5])
    left = anno(["Pedestrian"], bbox=[[-5, 0, 50, 100]], scores=[0.5])
    results = run(gt, [flat, left, anno([], scores=[])])
    is_none = {
        (name, metric): value is None
        for name, by_metric in results["loose"]["ap"].items()
        for metric, value in by_metric.items()
    }
    assert [is_none["Car", metric] for metric in ("bbox", "bev", "3d", "aos")] == [False, True, True, False]
    assert [is_none["Pedestrian", metric] for metric in ("bbox", "bev", "3d", "aos")] == [True, False, False, True]
    assert all(is_none["Cyclist", metric] for metric in ("bbox", "bev", "3d", "aos"))


def test_one_missing_alpha_disables_the_orientation_of_all_classes():
    gt = [anno(["Car", "Pedestrian"])] * 3
    dt = [anno(["Car", "Pedestrian"], scores=[0.5, 0.5]) for _ in range(3)]
    assert "aos" in get_official_eval_result(gt, dt, CLASSES)[0]
    dt[-1]["alpha"][1] = -10
    text, flat = get_official_eval_result(gt, dt, CLASSES)
    assert "aos" not in text and not any("aos" in key for key in flat)


def test_scores_below_minus_ten_million_never_match():
    gt = [anno(["Car"])] * 60
    assert values(run(gt, [anno(["Car"], scores=[-0.999e7])] * 60)) == pytest.approx([100.0] * 3)
    assert values(run(gt, [anno(["Car"], scores=[-1e7])] * 60)) == [0, 0, 0]


def test_names_are_matched_whatever_their_case():
    gt, dt = [anno(["CAR"])] * 60, [anno(["car"], scores=[0.5])] * 60
    assert values(run(gt, dt)) == pytest.approx([100.0] * 3)


def test_nothing_at_all_is_evaluated_to_nothing():
    for gt, dt in (([], []), ([anno([])], [anno([], scores=[])])):
        results = run(gt, dt)
        assert all(value is None for by in results["strict"]["ap"].values() for value in by.values())
        text, flat = get_official_eval_result(gt, dt, CLASSES)
        assert set(flat.values()) == {0.0} and "Car AP@0.70, 0.70, 0.70:\nbbox AP:0.0000, 0.0000, 0.0000\n" in text


def test_predictions_of_a_diverged_network_score_nothing_and_raise_nothing():
    gt = [anno(["Car"])] * 5
    broken = [
        anno(["Car"] * 3, np.full((3, 7), value), bbox=np.full((3, 4), value), scores=[value, 0.5, np.nan])
        for value in (np.nan, np.inf, -np.inf, 1e300, 0.0)
    ]
    results = run(gt, broken)
    for metric in ("bbox", "bev", "3d"):
        assert values(results, metric=metric) in ([0, 0, 0], None)


def test_an_orientation_that_is_no_number_counts_nothing():
    gt = [anno(["Car"])] * 100
    dt = [anno(["Car"], scores=[0.5], alpha=[angle]) for angle in (0.0, np.nan, 0.0, np.inf)] * 25
    assert values(run(gt, dt), metric="aos") == pytest.approx([50.0] * 3)
