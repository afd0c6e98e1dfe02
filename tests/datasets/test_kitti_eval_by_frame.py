"""Counts by frame against the evaluator on frames that are written out, and against counts by hand."""

import numpy as np
import pytest
from support.kitti_annos import CLASSES, anno, detections, labelled_frames, random_frames, run

from pcdet.datasets.kitti.kitti_object_eval_python import by_frame, rules
from pcdet.datasets.kitti.kitti_object_eval_python.by_frame import frame_scores

PERCENT = 1e-10  # the same operations; NumPy may sum 40 numbers in another order


def evaluator_ap(gt, dt, row, classes=rules.CLASS_NAMES):
    """AP R40 by class, metric and difficulty where frame i is listed ``row[i]`` times; 0 where nothing is evaluated."""
    listed = np.repeat(np.arange(len(row)), row)
    ap = run([gt[i] for i in listed], [dt[i] for i in listed], classes)["strict"]["ap"]
    return lambda name, metric, level: ap[name][metric][level]["R40"] if ap[name][metric] else 0.0


def assert_equals_the_evaluator(gt, dt, copies, classes=rules.CLASS_NAMES):
    """Every class, metric and difficulty, for every row of copies; how many AP are not zero."""
    expected = [evaluator_ap(gt, dt, row, classes) for row in copies]
    not_zero = 0
    for metric in rules.METRICS:
        for level in rules.DIFFICULTIES:
            scores = frame_scores(gt, dt, classes, metric, level)
            values = {name: [ap(name, metric, level) for ap in expected] for name in classes}
            for name, wanted in values.items():
                got = scores.classes[name].average_precision(np.asarray(copies))
                np.testing.assert_allclose(got, wanted, rtol=0, atol=PERCENT)
                not_zero += np.count_nonzero(wanted)
            means = np.mean(list(values.values()), axis=0)
            np.testing.assert_allclose(scores.resampled(copies), means, rtol=0, atol=PERCENT)
    return not_zero


@pytest.mark.parametrize("seed", range(2))
def test_all_frames_once_have_the_evaluators_ap(seed):
    gt, dt = random_frames(seed)
    assert assert_equals_the_evaluator(gt, dt, np.ones((1, len(gt)), dtype=int)) > 10


@pytest.mark.parametrize("seed", range(2))
def test_a_resample_has_the_evaluators_ap_of_its_frames_written_out(seed):
    gt, dt = random_frames(10 + seed, frames=40)
    copies = np.random.default_rng(seed).multinomial(40, np.full(40, 1 / 40), size=4)
    assert copies.max() >= 3 and (copies == 0).any()
    assert assert_equals_the_evaluator(gt, dt, copies) > 40


def test_a_frame_that_is_drawn_often_or_alone_or_no_frame_at_all():
    gt = labelled_frames(0, 4)
    dt = detections(gt, 0)
    each = np.eye(4, dtype=int)
    assert assert_equals_the_evaluator(gt, dt, np.concatenate([each, 60 * each, 60 * each + 1]), CLASSES) > 100
    assert frame_scores(gt, dt, CLASSES).resampled([[0] * 4]).tolist() == [0]


def test_resamples_of_many_objects_have_the_evaluators_ap():
    gt = labelled_frames(0, 60)
    dt = detections(gt, 0)
    copies = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), size=3)
    assert assert_equals_the_evaluator(gt, dt, copies, CLASSES) == 3 * 3 * 9


def test_scores_that_are_not_finite_count_as_in_the_evaluator():
    gt, dt = random_frames(30, frames=60)
    rng = np.random.default_rng(0)
    for frame in dt:
        odd = rng.random(len(frame["score"])) < 0.1
        frame["score"][odd] = rng.choice([np.nan, np.inf, -np.inf], np.count_nonzero(odd))
    assert assert_equals_the_evaluator(gt, dt, rng.multinomial(60, np.full(60, 1 / 60), size=3)) > 20


def test_frames_whose_detections_are_all_incomplete_are_not_evaluated():
    box = [[-3.9, 1.5, -1.6, 0, 1.6, 20, 0.3]]  # two negative sides: the rectangle has an area all the same
    gt = [anno(["Car"], box)] * 2 + [anno(["Car"])] * 2
    dt = [anno(["Car"], box, scores=[0.9])] * 2 + [anno(["Car"], scores=[0.5])] * 2
    assert assert_equals_the_evaluator(gt, dt, [[30, 30, 0, 0], [30, 30, 1, 0], [0, 0, 30, 30]], ("Car",)) > 6


def test_counts_by_hand():
    """One car a frame: found at 0.9; found at 0.5 below two false alarms, one also below that; not found."""
    gt = [anno(["Car"])] * 3
    place = [3.9, 1.5, 1.6, 0, 1.6, 20, 0.3]
    other = [[*place[:3], 30 + 10 * i, *place[4:]] for i in range(3)]
    dt = [
        anno(["Car"], [place], scores=[0.9]),
        anno(["Car"] * 4, [place, *other], scores=[0.5, 0.7, 0.5, 0.4]),
        anno(["Car"], other[:1], scores=[0.95]),
    ]
    counts = frame_scores(gt, dt, ["Car"]).classes["Car"]
    assert counts.scores.tolist() == [0.9, 0.5]
    assert counts.objects.tolist() == [1, 1, 1]
    assert counts.unfiltered.toarray().tolist() == [[1, 0, 0], [0, 1, 0]]
    assert counts.hits.toarray().tolist() == [[1, 0, 0], [0, 1, 0]]
    assert counts.false_alarms.toarray().tolist() == [[0, 0, 1], [0, 2, 0]]
    # thresholds 0.9 and 0.5 have precision 1/2 and 2/5, at recall 0 and 1/40; the first is no part of R40
    assert counts.average_precision(np.array([[1, 1, 1]])) == pytest.approx([100 / 40 * 2 / 5])


def test_resamples_in_chunks_have_the_same_ap(monkeypatch):
    gt, dt = random_frames(40, frames=30)
    scores = frame_scores(gt, dt, rules.CLASS_NAMES, "bbox")
    copies = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), size=50)
    whole = scores.resampled(copies)
    assert len(set(whole)) > 40
    monkeypatch.setattr(by_frame, "CHUNK", 7)
    assert scores.resampled(copies).tolist() == whole.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["Bus"]}, "has no class 'Bus'"),
        ({"classes": []}, "classes must name at least one class and each once, got []"),
        ({"classes": ["Car", "car"]}, "each once, got ['Car', 'Car']"),
        ({"metric": "aos"}, "metric must be one of bbox, bev, 3d, got 'aos'"),
        ({"difficulty": "mod"}, "difficulty must be one of easy, moderate, hard, got 'mod'"),
        ({"gt_annos": [], "dt_annos": []}, "gt_annos must hold at least one frame"),
        ({"dt_annos": []}, "must hold the same frames, got 1 and 0 of them"),
    ],
)
def test_what_cannot_be_counted_is_named(change, message):
    given = {"gt_annos": [anno(["Car"])], "dt_annos": [anno(["Car"], scores=[0.5])], "classes": ["Car"]}
    with pytest.raises(ValueError) as error:
        frame_scores(**{**given, **change})
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("copies", "message"),
    [
        ([1, 1], "copies must have shape (resamples, 2 frames), got (2,)"),
        ([[1, 1, 1]], "got (1, 3)"),
        ([[1.0, 1.0]], "copies must be counts: integers from 0, got float64"),
        ([[1, -1]], "got int64 from -1"),
    ],
)
def test_copies_that_are_no_counts_of_the_frames_are_named(copies, message):
    scores = frame_scores([anno(["Car"])] * 2, [anno(["Car"], scores=[0.5])] * 2, ["Car"])
    with pytest.raises(ValueError) as error:
        scores.resampled(copies)
    assert message in str(error.value)
