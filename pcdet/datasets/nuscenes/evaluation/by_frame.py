"""What each frame adds to mAP and NDS, so that resamples of frames are scored without a new matching.

Detections are matched within one frame, in the order of their scores. A resample is therefore a weighting of the
detections, sorted by score, by how often it holds their frames: it has the numbers that ``metrics.evaluate`` gives for
its frames written out, a frame that is drawn twice listed twice. Where detections of one class have equal scores, the
evaluation goes by their order in the file; here all copies of one come before those of the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pcdet.datasets.frame_scores import checked_copies, first_above, in_parts
from pcdet.datasets.nuscenes.evaluation import rules
from pcdet.datasets.nuscenes.evaluation.boxes import Boxes
from pcdet.datasets.nuscenes.evaluation.filtering import detections_to_judge, objects_to_find
from pcdet.datasets.nuscenes.evaluation.ground_truth import GroundTruth
from pcdet.datasets.nuscenes.evaluation.matching import NOTHING, by_score, match
from pcdet.datasets.nuscenes.evaluation.metrics import (
    FIRST,
    LARGEST_ERROR,
    RECALL,
    detection_score,
    pair_errors,
)

METRICS = ("NDS", "mAP")
PERCENT = 100.0
POINTS = RECALL[FIRST:]  # the K recalls that count
CHUNK = 1 << 18  # detections times resamples looked at together; bounds the memory, and fits a cache


@dataclass(frozen=True)
class ClassMatches:
    """The N detections of one class in F frames, from the highest score to the lowest, and what they find.

    Attributes:
        name: of the class.
        objects: (F,) to find in each frame.
        frame: (N,) of each detection.
        score: (N,).
        hits: distance -> places of the detections that find an object nearer than that, ascending.
        errors: (H, 5) of the hits at ``rules.ERROR_THRESHOLD``, in the order of ``rules.ERRORS``; NaN where the label
            does not tell.
    """

    name: str
    objects: np.ndarray
    frame: np.ndarray
    score: np.ndarray
    hits: Mapping[float, np.ndarray]
    errors: np.ndarray

    def resampled(self, copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """AP (R,), the mean over the distances, and errors (5, R) of R resamples; errors that are not defined are NaN.

        Args:
            copies: (R, F) how often each resample holds each frame.
        """
        parts = [self._of_part(part) for part in in_parts(copies, len(self.frame), CHUNK)]
        aps, errors = (np.concatenate(column, axis=-1) for column in zip(*parts, strict=True))
        errors[[error in rules.UNDEFINED.get(self.name, ()) for error in rules.ERRORS]] = np.nan
        return aps, errors

    def _of_part(self, copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same of (F, R) copies."""
        drawn = copies[self.frame]  # (N, R)
        counts = np.cumsum(drawn, axis=0)
        objects = self.objects @ copies
        aps = np.zeros((len(self.hits), copies.shape[1]))
        errors = np.full((len(rules.ERRORS), copies.shape[1]), LARGEST_ERROR)
        for row, (threshold, places) in enumerate(self.hits.items()):
            if not len(places):
                continue
            steps = _Steps(drawn, counts, places, objects)
            aps[row] = steps.average_precision()
            if threshold == rules.ERROR_THRESHOLD:
                errors = _mean_errors(self.errors, self.score[places], steps, steps.scores(self.score))
        return aps.mean(axis=0), errors


class _Steps:
    """Where R resamples stand at each of the K recalls: between the last detection before the next hit, and that hit.

    ``numpy.interp`` in ``metrics.evaluate`` looks at these two alone. A detection that is drawn several
    times stands there as often.

    Args:
        drawn: (N, R) how often each resample holds each detection.
        counts: (N, R) the same, of all detections up to each.
        places: (H,) of the hits among the detections.
        objects: (R,) to find.
    """

    def __init__(self, drawn: np.ndarray, counts: np.ndarray, places: np.ndarray, objects: np.ndarray):
        self.counts, self.places = counts, places
        self.copies = drawn[places]
        self.hits = np.cumsum(self.copies, axis=0)  # (H, R)
        self.found = self.hits[-1][:, None]  # (R, 1)
        self.objects = np.maximum(objects, 1)[:, None]  # where there are none, none are found
        self.reached = (self.found > 0) & (self.found / self.objects >= POINTS)
        self.before = self._hits_before()  # (R, K) hits up to each recall
        self.is_last = self.before == self.found
        self.next = first_above(self.hits, np.minimum(self.before, np.maximum(self.found - 1, 0)))
        resample = np.arange(len(objects))[:, None]
        copies = self.copies[self.next, resample]
        copy = self.before - (self.hits[self.next, resample] - copies)  # of the next hit, those that are behind
        self.next_count = counts[places][self.next, resample] - copies + copy + 1
        self.count = np.where(self.is_last, counts[-1][:, None], self.next_count - 1)  # detections up to each recall

    def _hits_before(self) -> np.ndarray:
        """(R, K) the most hits whose recall is not above each recall, compared as the evaluation compares them."""
        guess = np.floor(POINTS * self.objects).astype(np.int64)
        guess += (guess + 1) / self.objects <= POINTS
        guess -= guess / self.objects > POINTS
        return np.minimum(guess, self.found)

    def average_precision(self) -> np.ndarray:
        """(R,) 0..1."""
        precision = self.interpolated(self.before / np.maximum(self.count, 1), (self.before + 1) / self.next_count)
        above = np.maximum(precision - rules.MIN_PRECISION, 0)
        return above.mean(axis=1) / (1 - rules.MIN_PRECISION)

    def scores(self, score: np.ndarray) -> np.ndarray:
        """(R, K) the score at each recall, from (N,) those of the detections; 0 where it is not reached."""
        last = first_above(self.counts, np.maximum(self.count, 1) - 1)
        return self.interpolated(score[last], score[self.places[self.next]])

    def interpolated(self, at_last: np.ndarray, at_next: np.ndarray) -> np.ndarray:
        """(R, K) between a number at the last detection up to each recall and one at the next hit; 0 if not reached."""
        low, high = self.before / self.objects, (self.before + 1) / self.objects
        value = _between(POINTS, low, high, at_last, at_next)
        value = np.where(self.is_last, at_last, value)
        value = np.where(self.count == 0, at_next, value)  # the first detection of all is a hit
        return np.where(self.reached, value, 0.0)


def _mean_errors(errors: np.ndarray, hit_score: np.ndarray, steps: _Steps, scores: np.ndarray) -> np.ndarray:
    """(5, R) as ``metrics.evaluate``: mean over the recalls to the highest reached, of the mean error up to each.

    Args:
        errors: (H, 5) of the hits.
        hit_score: (H,) theirs, descending.
        steps: of the hits.
        scores: (R, K) at each recall; 0 where it is not reached.
    """
    resample = np.arange(len(scores))[:, None]
    highest = len(POINTS) - np.argmax((scores != 0)[:, ::-1], axis=1)[:, None]  # how many recalls count
    counts = (np.arange(len(POINTS)) < highest) & (scores != 0).any(axis=1)[:, None]
    # The running mean is looked up by score: between the last hit above it and the first that is not.
    place = np.searchsorted(-hit_score, -scores)
    above = np.where(place > 0, steps.hits[np.maximum(place, 1) - 1, resample], 0)  # drawn hits of higher scores
    most = np.maximum(steps.found - 1, 0)
    upper, lower = (first_above(steps.hits, np.clip(number, 0, most)) for number in (above - 1, above))
    found = np.empty((errors.shape[1], len(scores)))
    for row, values in enumerate(errors.T):
        first, last = _running_means(values, steps.copies)
        mean = _between(scores, hit_score[lower], hit_score[upper], first[lower, resample], last[upper, resample])
        mean = np.where(above == 0, first[lower, resample], mean)
        mean = np.where(above == steps.found, last[-1][:, None], mean)
        total = np.where(counts, mean, 0.0).sum(axis=1)
        number = counts.sum(axis=1)
        found[row] = np.where(number > 0, total / np.maximum(number, 1), LARGEST_ERROR)
    return found


def _running_means(values: np.ndarray, copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of all drawn values up to the first and up to the last copy of each, (H, R); values that are NaN left out.

    1 in resamples without any.
    """
    known = ~np.isnan(values)[:, None]
    value = np.where(known, values[:, None], 0.0)
    sums, numbers = np.cumsum(copies * value, axis=0), np.cumsum(copies * known, axis=0)
    last = sums / np.maximum(numbers, 1)
    first = (sums - copies * value + value) / np.maximum(numbers - copies * known + known, 1)
    nothing = numbers[-1] == 0
    return np.where(nothing, 1.0, first), np.where(nothing, 1.0, last)


def _between(x: np.ndarray, x0: np.ndarray, x1: np.ndarray, y0: np.ndarray, y1: np.ndarray) -> np.ndarray:
    """On the line through two points, as ``numpy.interp`` adds it up; of no meaning where they have one x."""
    width = np.where(x1 == x0, 1.0, x1 - x0)
    return (y1 - y0) / width * (x - x0) + y0


@dataclass(frozen=True)
class FrameScores:
    """What the frames of one evaluated run add to its NDS or mAP; made by `frame_scores`.

    Attributes:
        metric: ``NDS`` or ``mAP``.
        matches: by class, of the same F frames; always those of all ten classes.
        blocks: (F,) number of each frame's scene, or one of its own where scenes are not known.
    """

    metric: str
    matches: Mapping[str, ClassMatches]
    blocks: np.ndarray

    @property
    def description(self) -> tuple[str, ...]:
        """Metric and classes."""
        return self.metric, *self.matches

    @property
    def objects(self) -> dict[str, np.ndarray]:
        """Class -> (F,) objects to find."""
        return {name: own.objects for name, own in self.matches.items()}

    @property
    def num_frames(self) -> int:
        """F."""
        return len(next(iter(self.matches.values())).objects)

    def resampled(self, copies: np.ndarray) -> np.ndarray:
        """NDS or mAP of resamples.

        Args:
            copies: (R, F) whole numbers, how often each resample holds each frame; a row of ones is the whole set.

        Returns:
            (R,) percent.

        Raises:
            ValueError: another shape, or numbers that are negative or not of an integer type.
        """
        copies = checked_copies(copies, self.num_frames)
        aps, errors = zip(*(own.resampled(copies) for own in self.matches.values()), strict=True)
        mean_ap = np.mean(aps, axis=0)
        if self.metric == "mAP":
            return PERCENT * mean_ap
        return PERCENT * detection_score(mean_ap, np.nanmean(errors, axis=0))


def frame_scores(
    truth: GroundTruth, found: Boxes, metric: str = "NDS", scenes: Sequence[str] | None = None
) -> FrameScores:
    """Matches detections once and keeps what each frame counts.

    Args:
        truth: the labels of all samples, which are the frames.
        found: the detections in them, as ``metrics.evaluate`` takes them.
        metric: ``NDS`` or ``mAP``.
        scenes: of the samples, where resamples are to draw whole scenes.

    Returns:
        The matches. ``resampled`` of all frames once is 100 times what ``metrics.evaluate`` gives.

    Raises:
        ValueError: an unknown metric.
    """
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    objects, found = objects_to_find(truth), detections_to_judge(found, truth)
    matches = {}
    for number, name in enumerate(rules.CLASSES):
        own = found[found.class_id == number]
        of_class = objects[objects.class_id == number]
        matches[name] = _class_matches(name, of_class, own[by_score(own)], len(truth.tokens))
    blocks = np.arange(len(truth.tokens)) if scenes is None else np.unique(scenes, return_inverse=True)[1]
    return FrameScores(metric, matches, blocks)


def _class_matches(name: str, objects: Boxes, found: Boxes, num_frames: int) -> ClassMatches:
    """Of one class; detections descend by score."""
    thresholds: Sequence[float] = rules.DISTANCE_THRESHOLDS
    matched = match(objects, found, thresholds)
    hits = {t: np.flatnonzero(column != NOTHING) for t, column in zip(thresholds, matched.T, strict=True)}
    places = hits[rules.ERROR_THRESHOLD]
    partner = matched[places, thresholds.index(rules.ERROR_THRESHOLD)]
    pairs = pair_errors(name, objects[partner], found[places])
    return ClassMatches(
        name=name,
        objects=np.bincount(objects.sample, minlength=num_frames),
        frame=found.sample.astype(np.int32),
        score=found.score,
        hits=hits,
        errors=np.stack([pairs[error] for error in rules.ERRORS], axis=1),
    )
