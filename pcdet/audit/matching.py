"""Which detection finds which object: measures of fit, and the greedy matching by falling score."""

from __future__ import annotations

import numpy as np
import torch

from pcdet.audit.tables import NONE
from pcdet.datasets.frame_labels import MatchingRule
from pcdet.ops.iou3d_nms.iou3d_nms_utils import boxes_iou3d

NO_FIT = -np.inf


def overlaps(boxes: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """(N, M) volume that every pair of boxes (N, 7) and (M, 7) shares over the volume of both."""
    return boxes_iou3d(*(torch.from_numpy(np.array(b[:, :7], dtype=np.float64)) for b in (boxes, objects))).numpy()


def distances(boxes: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """(N, M) metres over the ground between the centres of (N, 7) and (M, 7) boxes."""
    return np.linalg.norm(boxes[:, None, :2] - objects[None, :, :2], axis=-1)


def fits(rule: MatchingRule, overlap: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """How well pairs fit, the higher the better: the overlap, or the distance below 0; ``NO_FIT`` beyond the rule.

    Args:
        rule: when a detection finds an object.
        overlap: of pairs, any shape.
        distance: of the same.
    """
    if rule.measure == "overlap":
        return np.where(overlap >= rule.limit, overlap, NO_FIT)
    return np.where(distance <= rule.limit, -distance, NO_FIT)


def match(fit: np.ndarray, scores: np.ndarray, run: np.ndarray) -> np.ndarray:
    """Gives each detection, by falling score, the free object that it fits best; for many trainings at once.

    Whether an object is taken depends on higher scores alone, so the detections from any threshold on are matched as
    they would be without the others.

    Args:
        fit: (N, M); ``NO_FIT`` where a detection cannot take an object, such as one of another class.
        scores: (N,); of equal ones the first goes first.
        run: (N,) which training a detection is of. Trainings do not take each other's objects.

    Returns:
        (N,) object that each takes, or ``NONE``.
    """
    taken = np.full(len(fit), NONE)
    able = np.flatnonzero((fit > NO_FIT).any(axis=1)) if fit.shape[1] else np.zeros(0, dtype=np.int64)
    if not len(able):
        return taken
    order = able[np.lexsort((-scores[able], run[able]))]  # stable
    of_run = run[order]
    turn = np.arange(len(order)) - np.searchsorted(of_run, of_run)
    free = np.ones((run.max() + 1, fit.shape[1]), dtype=bool)
    for now in range(turn.max() + 1):
        rows = order[turn == now]  # one of each training that has so many
        left = np.where(free[run[rows]], fit[rows], NO_FIT)
        best = left.argmax(axis=1)
        fitting = left[np.arange(len(rows)), best] > NO_FIT
        rows, best = rows[fitting], best[fitting]
        taken[rows] = best
        free[run[rows], best] = False
    return taken
