"""Which detection finds which object, by hand and beside KITTI's evaluation."""

import numpy as np
import pytest

from pcdet.audit.errors import judge_frame
from pcdet.audit.matching import NO_FIT, fits, match
from pcdet.audit.tables import KINDS, NONE
from pcdet.datasets.frame_labels import MatchingRule
from pcdet.datasets.kitti.kitti_object_eval_python.by_frame import frame_scores
from pcdet.datasets.kitti.lidar_annos import lidar_anno

CLASSES = ("Car", "Pedestrian", "Cyclist")
SIZES = np.array([[3.9, 1.6, 1.5], [0.8, 0.6, 1.7], [1.8, 0.6, 1.7]])
X = NO_FIT


@pytest.mark.parametrize(
    ("fit", "scores", "taken"),
    [
        ([[0.8, 0.9]], [0.5], [1]),  # the best fit
        ([[0.8, 0.9], [0.7, 0.95]], [0.9, 0.5], [1, 0]),  # the higher score first, the other takes what is left
        ([[0.8, 0.9], [0.7, 0.95]], [0.5, 0.9], [0, 1]),
        ([[0.8, X], [0.9, X]], [0.9, 0.5], [0, NONE]),  # nothing is left that fits
        ([[0.8, X], [0.9, X]], [0.5, 0.5], [0, NONE]),  # of equal scores the first
        ([[X, X], [0.9, 0.8], [0.9, 0.8]], [0.9, 0.5, 0.4], [NONE, 0, 1]),
        ([[-1.5, -0.5]], [0.5], [1]),  # distances: the nearer one
    ],
)
def test_detections_take_the_best_free_object_by_falling_score(fit, scores, taken):
    assert match(np.array(fit), np.array(scores), np.zeros(len(scores), dtype=np.int64)).tolist() == taken


def test_trainings_are_matched_side_by_side():
    """Rows of three trainings in turn; the second has two detections on the first object."""
    fit = np.array([[0.9, X], [0.8, X], [X, 0.8], [0.9, 0.7]])
    taken = match(fit, np.array([0.1, 0.9, 0.5, 0.8]), np.array([0, 1, 2, 1]))
    assert taken.tolist() == [0, 0, 1, 1]


def test_limits_of_rules_fit():
    overlap, distance = np.array([0.5, 0.49]), np.array([2.0, 2.01])
    assert fits(MatchingRule("overlap", 0.5), overlap, distance).tolist() == [0.5, NO_FIT]
    assert fits(MatchingRule("distance", 2.0), overlap, distance).tolist() == [-2.0, NO_FIT]


def frames(seed, num=40):
    """Labels and detections of frames: objects apart from each other, each with none to three detections around it."""
    rng = np.random.default_rng(seed)
    for _ in range(num):
        classes = rng.integers(0, 3, rng.integers(0, 12))
        place = np.column_stack([8.0 + 6 * np.arange(len(classes)), rng.uniform(-3, 3, (len(classes), 2))])
        objects = np.column_stack([place, SIZES[classes], rng.uniform(-3, 3, len(classes))])
        of = np.repeat(np.arange(len(classes)), rng.integers(0, 4, len(classes)))
        boxes = objects[of] + rng.normal(0, 0.1, (len(of), 7)) * [1.5, 0.7, 0.5, 1, 0.5, 0.5, 0.5]
        yield objects, classes, boxes, classes[of], rng.permutation(len(of)) / 100 + 0.1


def test_as_many_detections_are_true_as_kittis_evaluation_counts():
    """Every object counts there (none is small, hidden or of a neighbour class), and every score may be a threshold."""
    rules = [MatchingRule("overlap", limit) for limit in (0.7, 0.5, 0.5)]
    true, errors, labels, results = np.zeros(3, dtype=int), 0, [], []
    for objects, classes, boxes, own, scores in frames(0):
        neutral = np.zeros((3, len(objects)), dtype=bool)
        run = np.zeros(len(boxes), dtype=np.int64)
        kinds, _ = judge_frame(boxes, own, scores, run, objects, classes, neutral, rules)
        is_true = kinds == KINDS.index("true")
        true += np.bincount(own[is_true], minlength=3)
        errors += np.count_nonzero(~is_true)
        labels.append(lidar_anno(objects, np.array(CLASSES)[classes].tolist(), frame=0))
        results.append(lidar_anno(boxes, np.array(CLASSES)[own].tolist(), scores, frame=0))
    counts = frame_scores(labels, results, list(CLASSES), metric="3d").classes
    assert true.tolist() == [counts[name].hits.sum() for name in CLASSES]
    assert true.min() > 10 and errors > 100
