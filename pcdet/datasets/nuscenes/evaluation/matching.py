"""Which detection finds which object: the nearest free one of its class, detections of high scores first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pcdet.datasets.greedy_matching import take_turns
from pcdet.datasets.nuscenes.evaluation.boxes import Boxes

NOTHING = -1
MOST_PAIRS = 4_000_000  # whose distance is taken at once, to bound the memory


def by_score(boxes: Boxes) -> np.ndarray:
    """(N,) the boxes from the highest score to the lowest; of equal ones the later comes first, as in the devkit."""
    return np.lexsort((np.arange(len(boxes)), boxes.score))[::-1]


def match(objects: Boxes, found: Boxes, thresholds: Sequence[float]) -> np.ndarray:
    """The object that each detection finds at each threshold.

    Args:
        objects: M of one class.
        found: N of the same class, in the order in which they choose.
        thresholds: T distances of centres over the ground; what is found is nearer.

    Returns:
        (N, T) numbers of objects; ``NOTHING``.
    """
    by_sample = np.argsort(objects.sample, kind="stable")
    turns = np.argsort(found.sample, kind="stable")
    thresholds = np.asarray(thresholds, dtype=np.float64)
    parts = list(_pairs_within(objects[by_sample], found[turns], float(thresholds.max())))
    turn, place, distance = (np.concatenate(column) for column in zip(*parts, strict=True))
    nearest = np.lexsort((place, distance))  # of equally near objects the earlier
    taken = take_turns(turn, place, found.sample[turns[turn]], nearest, distance[:, None] < thresholds)
    matched = np.full((len(found), len(thresholds)), NOTHING, dtype=np.int64)
    pair, case = np.nonzero(taken)
    matched[turns[turn[pair]], case] = by_sample[place[pair]]
    return matched


def _pairs_within(objects: Boxes, found: Boxes, limit: float) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(detection, object, distance) of all pairs of one sample nearer than ``limit``; both tables ascend by sample."""
    first = np.searchsorted(objects.sample, found.sample, side="left")
    counts = np.searchsorted(objects.sample, found.sample, side="right") - first
    pairs_up_to = np.cumsum(counts)
    cuts = np.searchsorted(pairs_up_to, np.arange(MOST_PAIRS, counts.sum(), MOST_PAIRS))
    for rows in np.split(np.arange(len(found)), cuts):
        row = np.repeat(rows, counts[rows])
        number = np.arange(len(row)) - np.repeat(np.cumsum(counts[rows]) - counts[rows], counts[rows])
        place = first[row] + number  # the number-th object of the detection's sample
        apart = objects.center[place, :2] - found.center[row, :2]
        distance = np.sqrt((apart * apart).sum(axis=1))
        near = distance < limit
        yield row[near], place[near], distance[near]
