"""Thresholds, counts of errors and curves of detections that were judged by hand."""

import numpy as np
import pytest
from support.hand_made_audit import judged, objects_of

from pcdet.audit.counts import error_counts
from pcdet.audit.curves import SCORES, score_curves
from pcdet.audit.tables import KINDS
from pcdet.audit.thresholds import NO_DETECTION, best_threshold, class_thresholds


@pytest.mark.parametrize(
    ("scores", "true", "num_objects", "wanted"),
    [
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0], 2, 0.7),  # F1: 2/3, 2/4, 4/5, 4/6
        ([0.6, 0.9, 0.7, 0.8], [0, 1, 1, 0], 2, 0.7),  # in any order
        ([0.9, 0.9, 0.5], [1, 0, 1], 4, 0.5),  # both of 0.9 count or none: 2/6, 4/7
        ([0.9, 0.5, 0.4], [1, 0, 1], 1, 0.9),  # 2/2
        ([0.9, 0.8], [1, 0], 0, 0.9),
        ([0.9, 0.8], [0, 0], 3, 0.9),  # nothing is right: the fewest
        ([], [], 3, NO_DETECTION),
    ],
)
def test_the_threshold_is_the_score_of_the_best_f1(scores, true, num_objects, wanted):
    assert best_threshold(np.array(scores), np.array(true, dtype=bool), num_objects) == wanted


def test_each_class_has_its_own_and_ignored_detections_are_left_out():
    kinds = [KINDS.index(kind) for kind in ("true", "ignored", "background", "true")]
    scores, classes = np.array([0.9, 0.8, 0.7, 0.3]), np.array([0, 0, 0, 1])
    # class 0, F1 with one more object to find: 2/3 at 0.9, 2/4 at 0.7. Were 0.8 a hit, it would be 0.8.
    assert class_thresholds(scores, classes, np.array(kinds), np.array([2, 1])).tolist() == [0.9, 0.3]


def models():
    """Two frames with cars 0, 1 and pedestrian 2, and two seeds, whose thresholds are 0.5 for all classes."""
    objects = objects_of([["car", "car"], ["pedestrian"]])
    one = [(0, 0, 0.9, "true", 0), (0, 0, 0.4, "true", 1), (1, 1, 0.8, "class", -1), (1, 1, 0.7, "ignored", -1)]
    two = [(0, 0, 0.6, "true", 1), (1, 1, 0.5, "true", 2), (1, 0, 0.55, "background", -1)]
    return [judged("m", "student", [one, two], objects)], objects


def test_errors_are_counted_from_the_thresholds_on_for_each_frame_and_seed():
    rows = {(row.class_name, row.kind): row.per_frame for row in error_counts(*models())}
    # seed 1: a true car, one missed; an error of class, a pedestrian missed. Seed 2: car, background, pedestrian true,
    # one car missed. Two seeds and two frames: a quarter each.
    wanted = {
        ("car", "true"): 0.5, ("car", "background"): 0.25, ("car", "missed"): 0.5,
        ("pedestrian", "true"): 0.25, ("pedestrian", "class"): 0.25, ("pedestrian", "missed"): 0.25,
        ("", "true"): 0.75, ("", "background"): 0.25, ("", "class"): 0.25, ("", "missed"): 0.75,
    }  # fmt: skip
    assert {key: number for key, number in rows.items() if number} == wanted
    assert len(rows) == 3 * 9  # all, car, pedestrian; true, seven errors, missed


def test_curves_are_means_over_seeds_of_what_lies_above_each_threshold():
    found = {curve.class_name: curve for curve in score_curves(*models())}
    assert list(found) == ["", "car", "pedestrian"]

    def at(name, score):
        curve = found[name]
        row = curve.scores.index(score)
        return curve.precision[row], curve.recall[row], curve.false_positives[row]

    assert at("car", 0.7) == (1.0, 0.25, 0.0)  # seed 1 has one of two cars, seed 2 detects nothing yet
    assert at("car", 0.5) == (0.75, 0.5, 0.25)  # precision 1 and 1/2; one of two in each; one wrong in 2 x 2 frames
    assert at("car", 0.0) == (0.75, 0.75, 0.25)
    assert at("pedestrian", 0.5) == (0.5, 0.5, 0.25)  # precision 0 and 1; the ignored one is neither
    assert at("", 0.8) == pytest.approx((0.5, 1 / 6, 0.25))  # seed 1: one of two right
    assert found["car"].scores[0] == 0.9 and found["pedestrian"].scores[0] == 0.8  # above, nobody detects anything
    assert len(SCORES) <= 100 and (np.diff(SCORES) < 0).all()


def test_a_seed_that_detects_nothing_of_a_class_has_no_part_in_its_threshold():
    objects = models()[1]
    rows = [(0, 0, 0.9, "background", -1)], [(0, 0, 0.9, "background", -1), (0, 1, 0.9, "background", -1)]
    model = judged("student", "student", rows, objects)
    for run, own in zip(model.runs, ([0.2, 1.0], [0.4, 0.6]), strict=True):
        run.thresholds[:2] = own
    assert model.thresholds[:2].tolist() == pytest.approx([0.3, 0.6])
