"""Kinds of errors that follow from the geometry of hand-made boxes.

The object is a car of 4 x 2 x 1.5 m at the origin, heading along x. Overlaps in the comments are shared volumes over
volumes of both; all boxes have one height, so that areas will do.
"""

import numpy as np
import pytest

from pcdet.audit.errors import judge_frame
from pcdet.audit.tables import KINDS, NONE
from pcdet.datasets.frame_labels import MatchingRule

CAR, PEDESTRIAN = 0, 1
OBJECT = (0.0, 0.0, 0.0, 4.0, 2.0, 1.5, 0.0)
RULES = [MatchingRule("overlap", 0.7), MatchingRule("overlap", 0.5)]


def judge(
    boxes, classes=None, scores=None, objects=(OBJECT,), object_class=(CAR,), neutral=None, rules=RULES, run=None
):
    """Kinds and found objects of detections, one a row."""
    num = len(boxes)
    kinds, found = judge_frame(
        np.array(boxes, dtype=np.float64).reshape(num, 7),
        np.zeros(num, dtype=np.int64) if classes is None else np.array(classes),
        np.linspace(0.9, 0.1, num) if scores is None else np.array(scores),
        np.array(run, dtype=np.int64) if run else np.zeros(num, dtype=np.int64),
        np.array(objects, dtype=np.float64).reshape(-1, 7),
        np.array(object_class, dtype=np.int64),
        np.zeros((2, len(objects)), dtype=bool) if neutral is None else np.array(neutral),
        rules,
    )
    return [KINDS[kind] for kind in kinds], found.tolist()


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ((0.7, 0, 0, 4, 2, 1.5, 0), "true"),  # 3.3 / 4.7 = 0.702
        ((0, 0, 0, 4, 2, 1.5, np.pi), "true"),  # turned to the back: 1
        ((0, 0, 0, 4, 2, 1.5, np.pi / 2), "heading"),  # 4 / 12; right when turned back
        ((0, 0, 0, 2, 2, 1.5, 0), "size"),  # 1 / 2
        ((0, 0, 0, 4, 2, 0.75, 0), "size"),  # 1 / 2, by the height
        ((1, 0, 0, 4, 2, 1.5, 0), "localisation"),  # 3 / 5
        ((0, 0, 0.5, 4, 2, 1.5, 0), "localisation"),  # 1 / 2, by the height of the centre
        ((2, 0, 0, 4, 2, 1.5, np.pi / 2), "several"),  # 2 / 14; turned back 2 / 6; moved back 4 / 12
        ((0.7, 0, 0, 3, 2, 1.5, 0), "localisation"),  # 2.8 / 4.2; with its size 3.3 / 4.7; moved back 3 / 4: the best
        ((3.2, 0, 0, 4, 2, 1.5, 0), "localisation"),  # 0.8 / 7.2 = 0.111
        ((3.3, 0, 0, 4, 2, 1.5, 0), "background"),  # 0.7 / 7.3 = 0.096
        ((50, 0, 0, 4, 2, 1.5, 0), "background"),
    ],
)
def test_one_detection_is_what_its_geometry_says(box, kind):
    assert judge([box]) == ([kind], [0 if kind == "true" else NONE])


def test_the_lower_of_two_right_detections_is_a_duplicate_whatever_fits_better():
    better, worse = OBJECT, (0.5, *OBJECT[1:])
    assert judge([better, worse], scores=[0.4, 0.6]) == (["duplicate", "true"], [NONE, 0])
    assert judge([better, worse], scores=[0.5, 0.5])[0] == ["true", "duplicate"]  # of equal scores the first


def test_trainings_do_not_take_each_others_objects():
    assert judge([OBJECT, OBJECT], run=[0, 1]) == (["true", "true"], [0, 0])


def test_another_class_is_an_error_of_class_also_one_that_no_detector_looks_for():
    assert judge([OBJECT], [PEDESTRIAN])[0] == ["class"]
    assert judge([OBJECT], [CAR], object_class=[NONE])[0] == ["class"]
    assert judge([(1, *OBJECT[1:])], [CAR], object_class=[NONE])[0] == ["background"]  # 3 / 5, but 0.7 is asked


def test_what_lies_near_an_object_of_its_class_is_judged_by_that_one_first():
    """A car beside the car: 0.6 of the one, all of the other, which is labelled as a truck."""
    objects = [OBJECT, (1, *OBJECT[1:])]
    assert judge([objects[1]], objects=objects, object_class=[CAR, NONE])[0] == ["localisation"]


def test_a_neutral_object_excuses_its_neighbour_class_alone_and_any_number_of_detections():
    neutral = [[True], [False]]
    kinds, found = judge([OBJECT, OBJECT, OBJECT], [CAR, CAR, PEDESTRIAN], object_class=[NONE], neutral=neutral)
    assert kinds == ["ignored", "ignored", "class"] and found == [NONE] * 3


def test_an_object_that_counts_goes_before_a_neutral_one_that_fits_better():
    """Overlaps 3.8 / 4.2 with the car that counts, 1 with the neutral one: the second detection finds no car."""
    objects = [(0.2, *OBJECT[1:]), OBJECT]
    neutral = [[False, True], [False, False]]
    kinds, found = judge([OBJECT, OBJECT], objects=objects, object_class=[CAR, NONE], neutral=neutral)
    assert kinds == ["true", "ignored"] and found == [0, NONE]


def test_nothing_labelled_and_nothing_detected():
    assert judge([OBJECT], objects=[], object_class=[]) == (["background"], [NONE])
    assert judge([]) == ([], [])


def test_by_the_distance_of_centres_heading_and_size_are_no_errors():
    """A truck of 10 x 2 m; 2 m are allowed. 3 m off it overlaps by 7 / 13, 9 m off by 1 / 19."""
    truck, rules = (0, 0, 0, 10, 2, 1.5, 0), [MatchingRule("distance", 2.0)] * 2
    cases = {
        (0, 1.9, 0, 10, 2, 1.5, 1.0): "true",
        (0, 0, 5, 10, 2, 1.5, 0): "true",  # over the ground: the height is not looked at
        (0, 0, 0, 1, 1, 1, 1.0): "true",
        (3, 0, 0, 10, 2, 1.5, 0): "localisation",
        (9, 0, 0, 10, 2, 1.5, 0): "background",
    }
    for box, kind in cases.items():
        assert judge([box], objects=[truck], rules=rules)[0] == [kind], box
    assert judge([(1, 0, 0, 1, 1, 1, 0)], [PEDESTRIAN], objects=[truck], rules=rules)[0] == ["class"]
