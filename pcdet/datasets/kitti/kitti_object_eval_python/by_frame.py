"""What single frames add to KITTI's average precision, so that a resample of frames is scored without new matching.

Detections are matched within one frame, at one score threshold. The counts of a set of frames are therefore sums over
its frames, and the evaluator's rule for thresholds looks at such sums alone. A resample has the average precision that
the evaluator gives for its frames written out, a frame that is drawn twice listed twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from pcdet.datasets.frame_scores import checked_copies, first_above, in_parts
from pcdet.datasets.kitti.kitti_object_eval_python import rules
from pcdet.datasets.kitti.kitti_object_eval_python.class_curves import ClassTask, Measurements
from pcdet.datasets.kitti.kitti_object_eval_python.eval import same_frames
from pcdet.datasets.kitti.kitti_object_eval_python.matching import (
    Problem,
    filtered_hits,
    threshold_places,
    unfiltered_hits,
)

CHUNK = 1 << 17  # thresholds times resamples looked at together; bounds the memory, and fits a processor's cache


@dataclass(frozen=True)
class ClassCounts:
    """Counts of one class in each of F frames, at every score that can become a threshold.

    A threshold is the score of a true positive. There are T distinct ones in all frames, and any resample chooses among
    them. The three matrices are sparse: a row holds what is added when the threshold falls to its score, so that the
    counts at a threshold are the sums of the rows down to it.

    Attributes:
        scores: (T,) descending.
        objects: (F,) ground truth that counts.
        complete: (F,) detections that have what the metric needs; the devkit evaluates nothing where there is none.
        unfiltered: (T, F) true positives of the matching without a threshold, which choose the thresholds.
        hits: (T, F) true positives of the matching at a threshold.
        false_alarms: (T, F) likewise.
    """

    scores: np.ndarray
    objects: np.ndarray
    complete: np.ndarray
    unfiltered: sparse.csr_array
    hits: sparse.csr_array
    false_alarms: sparse.csr_array

    def average_precision(self, copies: np.ndarray) -> np.ndarray:
        """(R,) AP R40 in percent of R resamples, from (R, F) how often each holds each frame."""
        parts = in_parts(copies, len(self.scores), CHUNK)
        return np.concatenate([self._average_precision(part) for part in parts])

    def _average_precision(self, copies: np.ndarray) -> np.ndarray:
        """The same of (F, R) copies."""
        num_resamples = copies.shape[1]
        if not len(self.scores):
            return np.zeros(num_resamples)
        unfiltered, hits, false_alarms = (  # (T, R)
            np.cumsum(changes @ copies, axis=0, dtype=np.int32)
            for changes in (self.unfiltered, self.hits, self.false_alarms)
        )
        places = threshold_places(unfiltered[-1], self.objects @ copies)
        places[self.complete @ copies == 0] = -1
        chosen = first_above(unfiltered, np.maximum(places, 0))
        resample = np.arange(num_resamples)[:, None]
        hits = hits[chosen, resample]  # (R, 41)
        total = hits + false_alarms[chosen, resample]
        precision = np.zeros(places.shape)
        np.divide(hits, total, out=precision, where=(places >= 0) & (total > 0))
        curve = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        return np.sum(curve[:, 1:], axis=1) / (rules.NUM_RECALL_POINTS - 1) * 100


@dataclass(frozen=True)
class FrameScores:
    """What the frames of one evaluated run add to its mAP; made by `frame_scores`.

    Attributes:
        metric: ``bbox``, ``bev`` or ``3d``.
        difficulty: ``easy``, ``moderate`` or ``hard``.
        classes: counts by class, all of the same F frames.
    """

    metric: str
    difficulty: str
    classes: Mapping[str, ClassCounts]

    @property
    def description(self) -> tuple[str, ...]:
        """Metric, difficulty and classes."""
        return self.metric, self.difficulty, *self.classes

    @property
    def objects(self) -> dict[str, np.ndarray]:
        """Class -> (F,) ground truth that counts."""
        return {name: counts.objects for name, counts in self.classes.items()}

    @property
    def num_frames(self) -> int:
        """F."""
        return len(next(iter(self.classes.values())).objects)

    @property
    def blocks(self) -> np.ndarray:
        """(F,) each frame's own: the object benchmark does not say which frames are of one drive."""
        return np.arange(self.num_frames)

    def resampled(self, copies: np.ndarray) -> np.ndarray:
        """The mean over classes of the AP R40 of resamples.

        Args:
            copies: (R, F) whole numbers, how often each resample holds each frame; a row of ones is the whole set.

        Returns:
            (R,) percent. A resample without objects or without detections of a class has AP 0 there, as in the devkit.

        Raises:
            ValueError: another shape, or numbers that are negative or not of an integer type.
        """
        copies = checked_copies(copies, self.num_frames)
        return np.mean([counts.average_precision(copies) for counts in self.classes.values()], axis=0)


def frame_scores(
    gt_annos: Sequence[dict],
    dt_annos: Sequence[dict],
    classes: Sequence[str],
    metric: str = "3d",
    difficulty: str = "moderate",
) -> FrameScores:
    """Matches detections once and keeps what each frame counts, at the strict overlaps.

    Args:
        gt_annos: one dict a frame, as `get_official_eval_result` takes them.
        dt_annos: one dict a frame, the same frames in the same order.
        classes: names out of ``rules.CLASS_NAMES``, each once.
        metric: ``bbox``, ``bev`` or ``3d``.
        difficulty: ``easy``, ``moderate`` or ``hard``.

    Returns:
        The counts; ``resampled`` of all frames once is the mean of the evaluator's
        ``<Class>_<metric>/<difficulty>_R40``.

    Raises:
        ValueError: an unknown class, metric or difficulty, no class or one twice, no frames, frames that do not
            correspond, annotations without a needed key.
    """
    names = rules.resolve_classes(classes)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"classes must name at least one class and each once, got {list(names)}")
    for what, value, known in (("metric", metric, rules.METRICS), ("difficulty", difficulty, rules.DIFFICULTIES)):
        if value not in known:
            raise ValueError(f"{what} must be one of {', '.join(known)}, got {value!r}")
    if not gt_annos:
        raise ValueError("gt_annos must hold at least one frame, got none")
    gt, dt = same_frames(gt_annos, dt_annos)
    with np.errstate(invalid="ignore", over="ignore"):  # a network that diverged may predict anything
        measured = Measurements(gt, dt, names)
        counts = {name: _class_counts(measured, name, metric, difficulty) for name in names}
    return FrameScores(metric, difficulty, counts)


def _class_counts(measured: Measurements, name: str, metric: str, difficulty: str) -> ClassCounts:
    task = ClassTask(measured, name)
    problem = task.problem(metric, rules.OVERLAPS["strict"][name][rules.METRICS.index(metric)], difficulty)
    complete = measured.dt.frame[task.complete(metric)]
    return counts_of_frames(problem, np.bincount(complete, minlength=len(problem.objects)))


def counts_of_frames(problem: Problem, complete: np.ndarray) -> ClassCounts:
    """The counts of one class, from what is matched and from (F,) complete detections of each frame."""
    found = unfiltered_hits(problem)
    scores = np.unique(problem.scores[found])[::-1]
    level_frame, level_score, more_hits, more_taken = _changes(problem)

    def by_score(score: np.ndarray, frame: np.ndarray, count: np.ndarray) -> sparse.csr_array:
        row = np.searchsorted(-scores, -score)  # the first threshold that is not above the score
        kept = row < len(scores)
        entries = count[kept].astype(np.int32), (row[kept], frame[kept])
        matrix = sparse.coo_array(entries, shape=(len(scores), len(problem.objects))).tocsr()
        matrix.eliminate_zeros()
        return matrix

    rival_score = _no_number_is_highest(problem.rival_scores)
    rivals = by_score(rival_score, problem.rival_frame, np.ones(len(rival_score)))
    return ClassCounts(
        scores=scores,
        objects=problem.objects.astype(np.int32),
        complete=complete.astype(np.int32),
        unfiltered=by_score(problem.scores[found], problem.frame[found], np.ones(np.count_nonzero(found))),
        hits=by_score(level_score, level_frame, more_hits),
        false_alarms=rivals - by_score(level_score, level_frame, more_taken),
    )


def _changes(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What changes in a frame as the threshold falls past the scores of its own candidates.

    The i-th case of the matching has the i-th highest candidate's score of each frame as that frame's threshold: there
    are as many cases as one frame has scores, not as all frames have.

    Returns:
        For each distinct score of each frame's candidates (L,): the frame, the score, the change in true positives, and
        the change in rivals that are taken.
    """
    pair_level, level_frame, level_score, level = _levels(problem.frame, _no_number_is_highest(problem.scores))
    if not len(level):
        return level_frame, level_score, np.zeros(0, np.int64), np.zeros(0, np.int64)
    kept = pair_level[:, None] <= np.arange(level.max() + 1)
    frames, starts = np.unique(problem.frame, return_index=True)
    changes = []
    for chosen in filtered_hits(problem, kept):
        counts = np.add.reduceat(chosen, starts, axis=0, dtype=np.int64)
        changes.append(np.diff(counts, axis=1, prepend=0)[np.searchsorted(frames, level_frame), level])
    return level_frame, level_score, *changes


def _levels(frame: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Distinct scores of each frame, numbered 0, 1, ... from the highest.

    Returns:
        (P,) the number of each pair's score; and for each of L distinct ones, by frame: frame, score, number.
    """
    order = np.lexsort((-score, frame))
    sorted_frame, sorted_score = frame[order], score[order]
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = (np.diff(sorted_frame) != 0) | (sorted_score[1:] != sorted_score[:-1])
    level_frame, level_score = sorted_frame[is_new], sorted_score[is_new]
    level = np.arange(len(level_frame)) - np.searchsorted(level_frame, level_frame)
    pair_level = np.empty(len(order), dtype=np.int64)
    pair_level[order] = level[np.cumsum(is_new) - 1]
    return pair_level, level_frame, level_score, level


def _no_number_is_highest(score: np.ndarray) -> np.ndarray:
    """No threshold removes a score that is no number."""
    return np.where(np.isnan(score), np.inf, score)
