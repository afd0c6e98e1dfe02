"""From which score on a detection counts: where the F1 over all frames is best."""

from __future__ import annotations

import numpy as np

from pcdet.audit.report import IGNORED, TRUE
from pcdet.audit.tables import KINDS, NO_DETECTION


def best_threshold(scores: np.ndarray, true: np.ndarray, num_objects: int) -> float:
    """The score with the highest F1, 2 hits / (detections + objects), of the detections from it on.

    Args:
        scores: (N,) of detections that are right or wrong.
        true: (N,) bool, which of them find an object.
        num_objects: how many there are to find.

    Returns:
        Of equally good scores the highest; ``NO_DETECTION`` without detections.
    """
    if not len(scores):
        return NO_DETECTION
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(true[order])
    last = np.flatnonzero(np.append(np.diff(scores) != 0, True))  # of each score, since all of it counts or none
    f1 = 2 * hits[last] / (last + 1 + num_objects)
    return float(scores[last[f1.argmax()]])


def class_thresholds(
    scores: np.ndarray, class_id: np.ndarray, kinds: np.ndarray, num_objects: np.ndarray
) -> np.ndarray:
    """`best_threshold` of each class.

    Args:
        scores: (N,) of all detections of a training.
        class_id: (N,).
        kinds: (N,) places in ``KINDS``; ignored ones are left out.
        num_objects: (C,) of each class.

    Returns:
        (C,) scores.
    """
    judged, true = kinds != KINDS.index(IGNORED), kinds == KINDS.index(TRUE)
    rows = [judged & (class_id == number) for number in range(len(num_objects))]
    return np.array([best_threshold(scores[r], true[r], n) for r, n in zip(rows, num_objects.tolist(), strict=True)])
