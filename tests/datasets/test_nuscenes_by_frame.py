"""What each frame adds to NDS and mAP, against the evaluation of frames that are written out."""

from dataclasses import replace

import numpy as np
import pytest

from pcdet.datasets.nuscenes.evaluation import by_frame, rules
from pcdet.datasets.nuscenes.evaluation.boxes import Boxes
from pcdet.datasets.nuscenes.evaluation.by_frame import METRICS, frame_scores
from pcdet.datasets.nuscenes.evaluation.ground_truth import GroundTruth, Racks
from pcdet.datasets.nuscenes.evaluation.metrics import evaluate

ROUNDING = 1e-12
KEYS = {"NDS": "nd_score", "mAP": "mean_ap"}


def random_boxes(rng, sample, class_id):
    """Boxes around the vehicle, which stands at the origin; some beyond the range of their class."""
    number = len(sample)
    return Boxes(
        sample=sample,
        class_id=class_id,
        center=np.concatenate([rng.uniform(-25, 25, (number, 2)), rng.normal(0, 1, (number, 1))], axis=1),
        size=rng.uniform(0.5, 4, (number, 3)),
        yaw=rng.uniform(-4, 4, number),
        velocity=rng.normal(0, 2, (number, 2)),
        attribute=rng.integers(-1, len(rules.ATTRIBUTES), number),
    )


def detections(rng, objects, num_samples, found=0.8, wrong=0.6):
    """Moved objects with scores that are all different, and boxes where nothing is."""
    kept = objects[rng.random(len(objects)) < found]
    moved = kept.center + rng.normal(0, 0.6, kept.center.shape)
    extra = int(wrong * len(objects))
    more = random_boxes(rng, rng.integers(0, num_samples, extra), rng.integers(0, 10, extra))
    parts = [replace(kept, center=moved, yaw=kept.yaw + rng.normal(0, 0.3, len(kept)), size=kept.size * 1.1), more]
    columns = {key: np.concatenate([getattr(part, key) for part in parts]) for key in vars(more) if key != "score"}
    velocity = np.nan_to_num(columns["velocity"]) + 0.1
    number = len(parts[0]) + len(more)
    score = np.where(np.arange(number) < len(kept), 0.3, 0.0) + rng.uniform(0, 0.7, number)
    boxes = Boxes(**{**columns, "velocity": velocity}, score=score)
    order = np.argsort(boxes.sample, kind="stable")
    return boxes[order]


def random_set(seed, num_samples=30, per_class=4.0, classes=range(10)):
    """(truth, found): bicycle racks, objects without points, unknown velocities and attributes among them."""
    rng = np.random.default_rng(seed)
    number = rng.poisson(per_class * len(classes) * num_samples / 10)
    boxes = random_boxes(rng, np.sort(rng.integers(0, num_samples, number)), rng.choice(list(classes), number))
    boxes.velocity[rng.random(number) < 0.2] = np.nan
    racks = Racks(
        sample=np.arange(0, num_samples, 3),
        center=rng.uniform(-20, 20, (len(range(0, num_samples, 3)), 3)) * [1, 1, 0],
        size=np.full((len(range(0, num_samples, 3)), 3), 8.0),
        axes=np.tile(np.eye(3), (len(range(0, num_samples, 3)), 1, 1)),
    )
    truth = GroundTruth(
        tokens=[f"sample {i}" for i in range(num_samples)], ego=np.zeros((num_samples, 2)), boxes=boxes,
        points=rng.integers(0, 6, number), racks=racks,
    )  # fmt: skip
    return truth, detections(rng, boxes, num_samples)


def written_out(truth, found, row):
    """The set in which frame i is listed ``row[i]`` times, each time under another token."""
    listed = np.repeat(np.arange(len(row)), row)

    def rows_of(sample):
        return [(np.flatnonzero(sample == old), new) for new, old in enumerate(listed)]

    def renumbered(boxes):
        parts = rows_of(boxes.sample)
        which = np.concatenate([np.zeros(0, dtype=np.int64), *(rows for rows, _ in parts)])
        new = np.concatenate([np.zeros(0, dtype=np.int64), *(np.full(len(rows), i) for rows, i in parts)])
        return which, replace(boxes[which], sample=new)

    objects, boxes = renumbered(truth.boxes)
    racks = [(rows, new) for rows, new in rows_of(truth.racks.sample) if len(rows)]
    which = np.concatenate([np.zeros(0, dtype=np.int64), *(rows for rows, _ in racks)])
    columns = {key: getattr(truth.racks, key)[which] for key in ("center", "size", "axes")}
    sample = np.concatenate([np.zeros(0, dtype=np.int64), *(np.full(len(rows), new) for rows, new in racks)])
    again = GroundTruth(
        tokens=[f"{truth.tokens[old]}, time {time}" for time, old in enumerate(listed)],
        ego=truth.ego[listed],
        boxes=boxes,
        points=truth.points[objects],
        racks=Racks(sample=sample, **columns),
    )
    return again, renumbered(found)[1]


def assert_equals_the_evaluation(truth, found, copies):
    """Both scores of every row of copies; the lowest mAP among them."""
    expected = [evaluate(*written_out(truth, found, row)) for row in copies]
    for metric, key in KEYS.items():
        got = frame_scores(truth, found, metric).resampled(np.asarray(copies))
        np.testing.assert_allclose(got / 100, [numbers[key] for numbers in expected], rtol=0, atol=ROUNDING)
    return min(numbers["mean_ap"] for numbers in expected)


@pytest.mark.parametrize("seed", range(3))
def test_all_frames_once_have_the_evaluations_own_nds_and_map(seed):
    truth, found = random_set(seed)
    metrics = evaluate(truth, found)
    assert 0.1 < metrics["mean_ap"] < 0.9 and max(metrics["tp_errors"].values()) < 1
    for metric, key in KEYS.items():
        [score] = frame_scores(truth, found, metric).resampled(np.ones((1, 30), dtype=int))
        assert score / 100 == pytest.approx(metrics[key], abs=ROUNDING)


@pytest.mark.parametrize("seed", range(3))
def test_a_resample_has_the_evaluations_numbers_of_its_frames_written_out(seed):
    truth, found = random_set(10 + seed)
    copies = np.random.default_rng(seed).multinomial(30, np.full(30, 1 / 30), size=6)
    assert copies.max() >= 3 and (copies == 0).any()
    assert assert_equals_the_evaluation(truth, found, copies) > 0.1


def test_classes_of_few_objects_have_the_evaluations_numbers():
    """Recalls then rise in large steps, some to none at all, and some classes have nothing to find or nothing found."""
    for seed in range(6):
        truth, found = random_set(20 + seed, num_samples=8, per_class=0.6)
        copies = np.random.default_rng(seed).multinomial(8, np.full(8, 1 / 8), size=12)
        assert_equals_the_evaluation(truth, found, np.concatenate([copies, 5 * copies, np.eye(8, dtype=int)]))


def test_recalls_that_are_met_to_the_bit_have_the_evaluations_numbers():
    """100 objects: each hit stands at one of the recalls."""
    truth, found = random_set(40, num_samples=20, per_class=80, classes=[0])
    within = np.flatnonzero((np.linalg.norm(truth.boxes.center[:, :2], axis=1) < 50) & (truth.points > 0))[:100]
    truth = replace(truth, boxes=truth.boxes[within], points=truth.points[within])
    assert len(truth.boxes) == 100
    assert_equals_the_evaluation(truth, found, [[1] * 20, [2] * 20])


def test_an_object_that_is_found_alone_and_a_resample_of_no_frame():
    truth, found = random_set(50, num_samples=3, per_class=20, classes=[0])
    alone = replace(truth, boxes=truth.boxes[:1], points=np.array([3]))
    right = replace(truth.boxes[:1], velocity=np.zeros((1, 2)), score=np.array([0.7]))
    assert_equals_the_evaluation(alone, right, [[1, 1, 1], [3, 0, 4]])
    for metric in METRICS:
        assert frame_scores(truth, found, metric).resampled([[0, 0, 0]]).tolist() == [0]


def test_no_detection_at_all_scores_nothing():
    truth, found = random_set(60, num_samples=4)
    assert assert_equals_the_evaluation(truth, found[:0], [[1, 1, 1, 1], [0, 2, 1, 1]]) == 0


def test_equal_scores_of_one_frame_take_all_copies_of_one_detection_first():
    """Found, then not: with two copies hit, hit, miss, miss against the evaluation's hit, miss, hit, miss."""
    truth, found = random_set(70, num_samples=2, per_class=20, classes=[0])
    truth = replace(truth, boxes=truth.boxes[:1], points=np.array([3]))
    wrong = replace(truth.boxes[:1], center=truth.boxes.center[:1] + 10)
    columns = {key: np.concatenate([getattr(b, key) for b in (wrong, truth.boxes[:1])]) for key in vars(wrong)
               if key != "score"}  # fmt: skip
    found = Boxes(**{**columns, "velocity": np.zeros((2, 2))}, score=np.array([0.5, 0.5]))
    once, twice = np.ones((1, 2), dtype=int), np.full((1, 2), 2)
    scores = frame_scores(truth, found, "mAP")
    assert scores.resampled(once) == pytest.approx(100 * evaluate(truth, found)["mean_ap"], abs=1e-10)
    assert scores.resampled(twice) == pytest.approx(100 * evaluate(truth, found)["mean_ap"], abs=1e-10)
    assert evaluate(*written_out(truth, found, [2, 2]))["mean_ap"] < evaluate(truth, found)["mean_ap"]


def test_resamples_in_parts_have_the_same_scores(monkeypatch):
    scores = frame_scores(*random_set(80), "NDS")
    copies = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), size=40)
    whole = scores.resampled(copies)
    assert len(set(whole)) > 30
    monkeypatch.setattr(by_frame, "CHUNK", 500)
    assert scores.resampled(copies).tolist() == whole.tolist()


def test_counts_of_objects_tell_frames_apart():
    truth, found = random_set(90)
    scores = frame_scores(truth, found)
    assert scores.description == ("NDS", *rules.CLASSES) and scores.num_frames == 30
    counted = sum(own.sum() for own in scores.objects.values())
    assert 0 < counted < len(truth.boxes)  # those without points and out of range do not count


def test_frames_of_one_scene_are_one_block():
    truth, found = random_set(90)
    scenes = ["b", "a", "b"] * 10
    assert frame_scores(truth, found, scenes=scenes).blocks.tolist() == [1, 0, 1] * 10
    assert frame_scores(truth, found).blocks.tolist() == list(range(30))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda truth, found: frame_scores(truth, found, "AP"), "metric must be one of NDS, mAP, got 'AP'"),
        (lambda truth, found: frame_scores(truth, found).resampled([[1, 1]]), "(resamples, 30 frames), got (1, 2)"),
        (lambda truth, found: frame_scores(truth, found).resampled([[0.5] * 30]), "copies must be counts: integers"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_named(call, message):
    with pytest.raises(ValueError) as error:
        call(*random_set(0))
    assert message in str(error.value)
