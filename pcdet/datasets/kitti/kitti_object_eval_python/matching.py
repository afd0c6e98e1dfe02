"""Greedy matching of detections to ground truth as the KITTI devkit does it, for all frames and thresholds at once.

Within a frame the ground truth takes turns in file order, and each takes the best detection that is left. What is best
does not depend on what is left, so every ground truth has a fixed order of preference: it takes the first of its
candidates that is still free. Frames do not touch each other; one step therefore handles one candidate of one ground
truth in every frame and for every score threshold, as one row operation on booleans.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

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
    num_gt: int  # ground truth that counts, matched or not
    rival_scores: np.ndarray  # (D,) ascending scores of all detections that count and lie in no DontCare area


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
    thresholds = score_thresholds(_unfiltered_hits(problem), problem.num_gt)
    pairs, num = problem.pairs, len(thresholds)
    # a detection that counts goes before one that is too small; then the larger overlap, the earlier one
    small = ~problem.det_counts
    preference = np.lexsort((pairs.det, np.where(small, 0, -pairs.overlap), small))
    kept = ~(problem.scores[:, None] < thresholds)  # not >=: a score that is no number stays, as in the devkit
    taken = take_turns(pairs, problem.frame, preference, kept)

    hits = taken & (problem.gt_counts & problem.det_counts)[:, None]
    num_hits = np.count_nonzero(hits, axis=0)
    rivals = len(problem.rival_scores) - np.searchsorted(problem.rival_scores, thresholds, side="left")
    false_alarms = rivals - np.count_nonzero(taken & (problem.det_counts & ~problem.det_excused)[:, None], axis=0)
    total = num_hits + false_alarms

    def falling(values: np.ndarray) -> np.ndarray:
        curve = np.zeros(NUM_RECALL_POINTS)
        # 0 / 0 is no number in the devkit and spoils its average; here it is 0
        np.divide(values, total, out=curve[:num], where=total > 0)
        return np.maximum.accumulate(curve[::-1])[::-1]

    similarity = None if pair_similarity is None else falling(pair_similarity @ hits)
    return Curve(falling(num_hits), similarity)


def _unfiltered_hits(problem: Problem) -> np.ndarray:
    """Scores of the true positives without a threshold; here the highest score is preferred, not the overlap."""
    preference = np.lexsort((problem.pairs.det, -problem.scores))
    taken = take_turns(problem.pairs, problem.frame, preference, (problem.scores > NO_SCORE)[:, None])[:, 0]
    return problem.scores[taken & problem.gt_counts & problem.det_counts]


def take_turns(pairs: Pairs, frame: np.ndarray, preference: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Which candidate each ground truth takes, in T cases at once.

    Args:
        pairs: P candidates, ordered by ground truth.
        frame: (P,) ascending.
        preference: (P,) all candidates, the preferred first; only the order within one ground truth matters.
        free: (P, T) which candidates can be taken at all.

    Returns:
        (P, T) bool.
    """
    taken = np.zeros_like(free)
    if not len(frame):
        return taken
    row = _dense(pairs.row)
    turn = row - row[np.searchsorted(frame, frame)]  # place of the ground truth among those of its frame
    order = preference[np.argsort(row[preference], kind="stable")]
    rank = np.empty_like(row)
    rank[order] = np.arange(len(row)) - np.searchsorted(row, row)  # place of the candidate for its ground truth
    step = turn * (rank.max() + 1) + rank
    order = np.argsort(step, kind="stable")
    det = np.unique(pairs.det, return_inverse=True)[1]

    det_free = np.ones((det.max() + 1, free.shape[1]), dtype=bool)
    row_free = np.ones((row[-1] + 1, free.shape[1]), dtype=bool)
    for now in np.split(order, np.flatnonzero(np.diff(step[order])) + 1):
        takes = free[now] & det_free[det[now]] & row_free[row[now]]
        det_free[det[now]] &= ~takes
        row_free[row[now]] &= ~takes
        taken[now] = takes
    return taken


def _dense(ascending: np.ndarray) -> np.ndarray:
    """Ascending numbers renumbered 0, 1, 2, ... without gaps."""
    return np.cumsum(np.concatenate([[0], np.diff(ascending) != 0]))


def score_thresholds(hit_scores: np.ndarray, num_gt: int) -> np.ndarray:
    """At most 41 of the scores, descending: those at which recall comes nearest to 0, 1/40, 2/40, ...

    Args:
        hit_scores: (T,) scores of the true positives.
        num_gt: ground truth that counts.
    """
    scores = np.sort(hit_scores)[::-1]
    chosen, recall, index = [], 0.0, 0
    last = len(scores) - 1
    while index <= last:
        left, right = (index + 1) / num_gt, (index + 2) / num_gt
        if index < last and right - recall < recall - left:
            # the wanted recall lies beyond; jump to just before it rather than walk there
            index = min(last, max(index + 1, math.floor(recall * num_gt) - 3))
            continue
        chosen.append(scores[index])
        recall += 1 / (NUM_RECALL_POINTS - 1)
        index += 1
    return np.array(chosen)
