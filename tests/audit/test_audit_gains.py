"""Gains of students over their controls: means by hand, intervals beside a slow bootstrap, what is won and lost."""

import numpy as np
import pytest
from support.hand_made_audit import finding, objects_of

from pcdet.audit.gains import MIN_FRAMES, WHOLE, RecallBootstrap, group_gains, verdict
from pcdet.audit.groups import find_members, to_groups
from pcdet.audit.objects import object_rows
from pcdet.audit.scenes import choose_frames

PAIR = [("student", "control")]


def crowd(num_frames=40, seed=0):
    """Frames with one to six cars."""
    rng = np.random.default_rng(seed)
    return objects_of([["car"] * n for n in rng.integers(1, 7, num_frames)])


def found_by(objects, seeds, chance, seed):
    """Seeds that find cars with a chance that differs from frame to frame and a little from seed to seed."""
    rng = np.random.default_rng(seed)
    frames = np.random.default_rng(9).uniform(-0.25, 0.25, len(objects.frames))[objects.frame]
    return rng.random((seeds, len(objects.frame))) < chance + frames + rng.normal(0, 0.05, (seeds, 1))


def slow_interval(own, control, objects, paired, resamples=4000):
    """By the definition: frames and seeds drawn one by one, the recall of each drawn seed on the drawn frames."""
    rng, gains = np.random.default_rng(123), []
    rows = [np.flatnonzero(objects.frame == frame) for frame in range(len(objects.frames))]
    for _ in range(resamples):
        drawn = np.concatenate([rows[frame] for frame in rng.integers(0, len(rows), len(rows))])
        mine = rng.integers(0, len(own), len(own))
        other = mine if paired else rng.integers(0, len(control), len(control))
        gains.append(own[mine][:, drawn].mean() - control[other][:, drawn].mean())
    return np.percentile(gains, [2.5, 97.5])


@pytest.mark.parametrize(("seeds", "control_seeds"), [(1, 1), (4, 4), (4, 3)])
def test_intervals_are_those_of_a_slow_bootstrap(seeds, control_seeds):
    objects = crowd()
    own, control = found_by(objects, seeds, 0.6, 1), found_by(objects, control_seeds, 0.5, 2)
    models = [finding("control", "control", control, objects), finding("student", "student", own, objects)]
    bootstrap = RecallBootstrap(objects, models, resamples=4000)
    (interval,) = bootstrap.intervals(np.arange(len(objects.frame)), PAIR)
    wanted = slow_interval(own, control, objects, seeds == control_seeds)
    width = wanted[1] - wanted[0]
    np.testing.assert_allclose(interval, wanted, atol=0.1 * width)
    assert RecallBootstrap(objects, models, resamples=4000).intervals(np.arange(len(objects.frame)), PAIR) == [interval]


def test_seeds_are_drawn_in_pairs_where_there_are_as_many_of_both():
    """Each student's seed finds what its control's finds; between seeds, all or nothing: pairs have no spread."""
    objects = crowd()
    everything = np.ones(len(objects.frame))
    same = [everything, 0 * everything, everything, 0 * everything]
    models = [finding("control", "control", same, objects), finding("student", "student", same, objects)]
    assert RecallBootstrap(objects, models).intervals(np.arange(len(everything)), PAIR) == [(0.0, 0.0)]
    models[0] = finding("control", "control", same[:2], objects)
    ((low, high),) = RecallBootstrap(objects, models).intervals(np.arange(len(everything)), PAIR)
    assert low < -0.3 and high > 0.3


def test_gains_are_differences_of_recalls_and_the_teacher_is_set_beside_them():
    objects = objects_of([["car"]] * 12 + [["pedestrian"]] * 3)
    cars = np.arange(15) < 12
    models = [
        finding("teacher", "teacher", cars & (np.arange(15) < 6), objects),
        finding("control", "control", cars & (np.arange(15) < 9), objects),
        finding("student", "student", np.ones(15), objects),
    ]
    members = find_members(objects, {})
    groups = to_groups(members, models)
    gains = group_gains(members, groups, models, PAIR, objects)
    by_class = {groups[gain.group].class_name: gain for gain in gains if groups[gain.group].by == "class"}
    assert by_class["car"].gain == pytest.approx(0.25) and by_class["car"].verdict == "gain"
    assert by_class["car"].teacher_worse is True  # 6 of 12, the control 9
    assert by_class[""].gain == pytest.approx(6 / 15)
    few = by_class["pedestrian"]  # three frames: all that was found is one difference
    assert few.gain == 1 and few.interval == WHOLE and few.verdict == "not shown" and few.teacher_worse is False
    assert MIN_FRAMES > 3
    assert len(gains) == len(groups)
    without = group_gains(members, to_groups(members, models[1:]), models[1:], PAIR, objects)
    assert {gain.teacher_worse for gain in without} == {None}


@pytest.mark.parametrize(
    ("interval", "wanted"),
    [((0.01, 0.2), "gain"), ((-0.2, -0.01), "loss"), ((-0.1, 0.1), "not shown"), ((0.0, 0.2), "not shown")],
)
def test_a_verdict_needs_an_interval_that_leaves_zero_out(interval, wanted):
    assert verdict(interval) == wanted


def test_objects_and_frames_with_the_most_won_or_lost_come_first():
    objects = objects_of([["car", "car"], ["car", "tram"], ["car", "car"]])
    models = [
        finding("control", "control", [[1, 0, 0, 0, 0, 1], [1, 0, 1, 0, 0, 1]], objects),
        finding("student", "student", [[0, 0, 1, 1, 0, 1], [0, 0, 1, 1, 1, 1]], objects),
    ]
    rows = object_rows(models, PAIR, objects)
    assert [(row.frame, row.index, row.found) for row in rows] == [
        ("0", 0, {"control": 1.0, "student": 0.0}),
        ("1", 0, {"control": 0.5, "student": 1.0}),
        ("2", 0, {"control": 0.0, "student": 0.5}),
    ]  # neither object 1 of frame 0, which nobody finds, nor the tram, which does not count
    assert [row.points for row in rows] == [None] * 3 and {row.distance for row in rows} == {10.0}
    assert object_rows(models, PAIR, objects, most=1) == rows[:1]
    assert choose_frames(models, PAIR, objects, 2) == [0, 1]
    assert choose_frames(models, [], objects, 9) == [0, 1, 2] and object_rows(models, [], objects) == []
