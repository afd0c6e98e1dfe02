"""Groups of objects and their recalls, counted by hand."""

import numpy as np
import pytest
from support.hand_made_audit import CLASSES, finding, labels_of

from pcdet.audit.groups import distance_edges, find_members, to_groups
from pcdet.audit.tables import Objects

WEATHER = {"weather": ("clear", "rain")}


def objects():
    """Four cars, a pedestrian and a tram, which nobody looks for, in two frames."""
    frames = [
        labels_of(
            ["car", "car", "tram"], "a", distance=[5, 25, 5], points=[3, 5, 9], weather=["clear", "rain", "rain"]
        ),
        labels_of(
            ["car", "pedestrian", "car"], "b", distance=[41, 20, 65], points=[100, None, 19], weather=["clear"] * 3
        ),
    ]
    return Objects.of_labels(frames, CLASSES, ["weather"])


def test_every_group_is_counted_for_all_classes_and_for_each():
    table = objects()
    teacher = finding("teacher", "teacher", [1, 1, 0, 1, 0, 0], table)
    student = finding("student", "student", [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 1, 0]], table)
    found = to_groups(find_members(table, WEATHER), [teacher, student])
    rows = {
        (group.by, group.value, group.class_name): (group.objects, group.recall["teacher"], group.recall["student"])
        for group in found
    }
    assert rows == {
        ("class", "all", ""): (5, 3 / 5, pytest.approx(0.4)),  # the student: one of five, three of five
        ("class", "car", "car"): (4, 3 / 4, 0.375),
        ("class", "pedestrian", "pedestrian"): (1, 0.0, 0.5),
        ("distance", "0-20 m", ""): (1, 1.0, 1.0),
        ("distance", "0-20 m", "car"): (1, 1.0, 1.0),
        ("distance", "20-40 m", ""): (2, 0.5, 0.5),
        ("distance", "20-40 m", "car"): (1, 1.0, 0.5),
        ("distance", "20-40 m", "pedestrian"): (1, 0.0, 0.5),
        ("distance", "40-60 m", ""): (1, 1.0, 0.0),
        ("distance", "40-60 m", "car"): (1, 1.0, 0.0),
        ("distance", "60+ m", ""): (1, 0.0, 0.0),
        ("distance", "60+ m", "car"): (1, 0.0, 0.0),
        ("points", "0-4", ""): (1, 1.0, 1.0),
        ("points", "0-4", "car"): (1, 1.0, 1.0),
        ("points", "5-19", ""): (2, 0.5, 0.25),
        ("points", "5-19", "car"): (2, 0.5, 0.25),
        ("points", "100+", ""): (1, 1.0, 0.0),
        ("points", "100+", "car"): (1, 1.0, 0.0),
        ("points", "unknown", ""): (1, 0.0, 0.5),
        ("points", "unknown", "pedestrian"): (1, 0.0, 0.5),
        ("weather", "clear", ""): (4, 0.5, pytest.approx(0.375)),
        ("weather", "clear", "car"): (3, pytest.approx(2 / 3), pytest.approx(1 / 3)),
        ("weather", "clear", "pedestrian"): (1, 0.0, 0.5),
        ("weather", "rain", ""): (1, 1.0, 0.5),
        ("weather", "rain", "car"): (1, 1.0, 0.5),
    }
    assert len(rows) == len(found)


def test_labels_without_points_and_attributes_have_no_groups_of_them():
    table = Objects.of_labels([labels_of(["car"])], CLASSES, [])
    assert [group.by for group in find_members(table, {})] == ["class", "class", "distance", "distance"]


def test_frames_without_objects_have_no_groups():
    assert find_members(Objects.of_labels([labels_of([])], CLASSES, []), {}) == []


@pytest.mark.parametrize(
    ("distances", "edges"),
    [
        (np.arange(0, 80), [20, 40, 60]),  # a road
        (np.arange(0, 50), [20, 40]),  # nothing beyond 60
        ([*range(0, 60), 61, 62], [20, 40]),  # 2 of 62 beyond 60: joined with those before
        (np.arange(0, 30), [10, 20]),  # none beyond 40, a third beyond 20
        (np.arange(0, 15), [5, 10]),  # none beyond 20
        (np.arange(0, 4), []),
        ([], []),
    ],
)
def test_groups_of_distance_fit_the_data(distances, edges):
    assert distance_edges(np.array(distances, dtype=float)) == edges


def test_objects_that_do_not_count_are_told_by_their_neutral_class():
    labels = labels_of(["car", "pedestrian"])
    neutral = type(labels)(**{**vars(labels), "neutral": [("car",), ("car",)]})
    table = Objects.of_labels([neutral], CLASSES, [])
    assert table.counted.tolist() == [False, True]
    assert table.neutral.tolist() == [[True, True], [False, False]]
