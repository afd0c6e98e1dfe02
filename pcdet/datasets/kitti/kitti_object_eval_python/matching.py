"""Greedy matching of detections to ground truth as the KITTI devkit does it, for all frames and thresholds at once.

Within a frame the ground truth takes turns in file order, and each takes the best detection that is left, for every
score threshold at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pcdet.datasets.greedy_matching import take_turns
from pcdet.datasets.kitti.kitti_object_eval_python.overlaps import Pairs
from pcdet.datasets.kitti.kitti_object_eval_python.rules import NO_SCORE, NUM_RECALL_POINTS


@dataclass(frozen=True)
class Problem:
    """One class, metric and difficulty.

    ``pairs`` holds only candidates: their overlap is large enough, their ground truth is of the class or of its
    neighbour, their detection is of the class or too small.
    """

    pairs: Pairs
    frame: np.ndarray  # (P,) of the pairs
    scores: np.ndarray  # (P,) of the pairs' detections
    gt_counts: np.ndarray  # (P,) whether the pair's ground truth counts
    det_counts: np.ndarray  # (P,) whether the pair's detection counts
    det_excused: np.ndarray  # (P,) whether the pair's detection lies in a DontCare area
    objects: np.ndarray  # (F,) ground truth that counts in each frame, matched or not
    rival_scores: np.ndarray  # (D,) ascending scores of all detections that count and lie in no DontCare area
    rival_frame: np.ndarray  # (D,) their frames


@dataclass(frozen=True)
class Curve:
    """Precision and orientation similarity at the sampled recalls, not rising; zero where recall is not reached."""

    precision: np.ndarray  # (41,)
    similarity: np.ndarray | None  # (41,)


def recall_curve(problem: Problem, pair_similarity: np.ndarray | None = None) -> Curve:
    """The curve from which average precision is taken.

    Args:
        problem: what to match.
        pair_similarity: (P,) (1 + cos of the angle between the pair) / 2, to have the orientation similarity too.
    """
    thresholds = score_thresholds(problem.scores[unfiltered_hits(problem)], int(problem.objects.sum()))
    num = len(thresholds)
    kept = ~(problem.scores[:, None] < thresholds)  # not >=: a score that is no number stays, as in the devkit
    hits, rivals_taken = filtered_hits(problem, kept)
    num_hits = np.count_nonzero(hits, axis=0)
    rivals = len(problem.rival_scores) - np.searchsorted(problem.rival_scores, thresholds, side="left")
    total = num_hits + rivals - np.count_nonzero(rivals_taken, axis=0)  # hits and false alarms

    def falling(values: np.ndarray) -> np.ndarray:
        curve = np.zeros(NUM_RECALL_POINTS)
        # 0 / 0 is no number in the devkit and spoils its average; here it is 0
        np.divide(values, total, out=curve[:num], where=total > 0)
        return np.maximum.accumulate(curve[::-1])[::-1]

    similarity = None if pair_similarity is None else falling(pair_similarity @ hits)
    return Curve(falling(num_hits), similarity)


def unfiltered_hits(problem: Problem) -> np.ndarray:
    """Which pairs (P,) are true positives without a threshold; here the highest score is preferred, not the overlap."""
    preference = np.lexsort((problem.pairs.det, -problem.scores))
    taken = _take(problem, preference, (problem.scores > NO_SCORE)[:, None])[:, 0]
    return taken & problem.gt_counts & problem.det_counts


def filtered_hits(problem: Problem, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which pairs are true positives, and which take a detection from the rivals, in T cases at once.

    Args:
        problem: what to match.
        kept: (P, T) whether the pair's detection is above the threshold.

    Returns:
        Two (P, T) bool. A rival that is taken is no false alarm.
    """
    pairs = problem.pairs
    # a detection that counts goes before one that is too small; then the larger overlap, the earlier one
    small = ~problem.det_counts
    preference = np.lexsort((pairs.det, np.where(small, 0, -pairs.overlap), small))
    taken = _take(problem, preference, kept)
    hits = taken & (problem.gt_counts & problem.det_counts)[:, None]
    return hits, taken & (problem.det_counts & ~problem.det_excused)[:, None]


def _take(problem: Problem, preference: np.ndarray, free: np.ndarray) -> np.ndarray:
    return take_turns(problem.pairs.row, problem.pairs.det, problem.frame, preference, free)


def score_thresholds(hit_scores: np.ndarray, num_gt: int) -> np.ndarray:
    """At most 41 of the scores, descending: those at which recall comes nearest to 0, 1/40, 2/40, ...

    Args:
        hit_scores: (T,) scores of the true positives.
        num_gt: ground truth that counts.
    """
    places = threshold_places(np.array([len(hit_scores)]), np.array([num_gt]))[0]
    return np.sort(hit_scores)[::-1][places[places >= 0]]


def threshold_places(num_hits: np.ndarray, num_gt: np.ndarray) -> np.ndarray:
    """Which true positives, counted from the highest score, give the thresholds; for R data sets at once.

    The devkit walks down the scores. It takes the first at which the wanted recall is not nearer to the next score's
    recall than to this one's, or the last score of all; then it wants 1/40 more. Which it takes depends on the numbers
    of hits and objects alone.

    Args:
        num_hits: (R,) true positives without a threshold.
        num_gt: (R,) ground truth that counts; at least ``num_hits``.

    Returns:
        (R, 41) rising places from 0, and -1 behind the last one.
    """
    steps = np.full(NUM_RECALL_POINTS - 1, 1 / (NUM_RECALL_POINTS - 1))
    recall = np.concatenate([[0.0], np.cumsum(steps)])[:, None]  # with the rounding of the devkit's sum
    objects = np.maximum(num_gt, 1)[:, None, None]
    # all scores before the first of these five are passed over, and the fifth is not
    nearby = np.maximum(np.floor(recall * objects).astype(np.int64) - 3, 0) + np.arange(5)  # (R, 41, 5)
    passed = (nearby + 2) / objects - recall < recall - (nearby + 1) / objects
    wanted = nearby[..., 0] + np.count_nonzero(passed, axis=-1)
    # each place lies behind the one before it
    number = np.arange(NUM_RECALL_POINTS)
    places = np.maximum.accumulate(wanted - number, axis=1) + number
    last = num_hits[:, None] - 1
    ended = np.concatenate([last < 0, places[:, :-1] >= last], axis=1)
    return np.where(ended, -1, np.minimum(places, last))
