"""nuScenes' detection metrics: average precision by distance, five errors of true positives, mAP and NDS.

Caesar et al., nuScenes: a multimodal dataset for autonomous driving, CVPR 2020, section 3.1. The numbers are those of
nuscenes-devkit 1.2.0 with ``detection_cvpr_2019``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pcdet.datasets.nuscenes.evaluation import rules
from pcdet.datasets.nuscenes.evaluation.boxes import Boxes
from pcdet.datasets.nuscenes.evaluation.filtering import detections_to_judge, objects_to_find
from pcdet.datasets.nuscenes.evaluation.ground_truth import GroundTruth
from pcdet.datasets.nuscenes.evaluation.matching import NOTHING, by_score, match

RECALL = np.linspace(0, 1, rules.RECALL_POINTS)
FIRST = round(100 * rules.MIN_RECALL) + 1  # recall points up to here count for nothing
LARGEST_ERROR = 1.0  # of a class of which too little is found


def evaluate(
    truth: GroundTruth, found: Boxes, progress: Callable[[Sequence[str]], Sequence[str]] = lambda names: names
) -> dict:
    """All numbers, in the form of the devkit's ``metrics_summary.json``.

    Args:
        truth: the labels of all samples.
        found: the detections in them, in the order of the result file: it decides between equal scores.
        progress: called with the classes; gives them one by one, and may show how far it is.

    Returns:
        ``label_aps`` (class -> threshold -> AP), ``mean_dist_aps`` (class -> mean over thresholds), ``mean_ap``,
        ``label_tp_errors`` (class -> error; NaN where it is not defined), ``tp_errors`` (means over classes),
        ``tp_scores``, ``nd_score`` and ``cfg``. APs are 0..1.
    """
    objects, found = objects_to_find(truth), detections_to_judge(found, truth)
    aps: dict[str, dict[str, float]] = {}
    errors: dict[str, dict[str, float]] = {}
    for name in progress(rules.CLASSES):
        number = rules.CLASS_NUMBER[name]
        own = found[found.class_id == number]
        aps[name], errors[name] = _class_metrics(name, objects[objects.class_id == number], own[by_score(own)])
    return _summary(aps, errors)


def _summary(aps: Mapping[str, Mapping[str, float]], errors: Mapping[str, Mapping[str, float]]) -> dict:
    of_classes = {name: float(np.mean(list(values.values()))) for name, values in aps.items()}
    mean_ap = float(np.mean(list(of_classes.values())))
    means = {error: float(np.nanmean([values[error] for values in errors.values()])) for error in rules.ERRORS}
    scores = {error: max(0.0, 1.0 - mean) for error, mean in means.items()}
    return {
        "label_aps": aps,
        "mean_dist_aps": of_classes,
        "mean_ap": mean_ap,
        "label_tp_errors": errors,
        "tp_errors": means,
        "tp_scores": scores,
        "nd_score": float(detection_score(mean_ap, list(means.values()))),
        "cfg": rules.challenge_config(),
    }


def detection_score(mean_ap: float | np.ndarray, errors: Sequence) -> float | np.ndarray:
    """NDS, from mAP and the mean of each error: numbers, or arrays of one shape."""
    scores = [np.maximum(0.0, 1.0 - error) for error in errors]
    return (rules.AP_WEIGHT * mean_ap + sum(scores)) / (rules.AP_WEIGHT + len(scores))


def _class_metrics(name: str, objects: Boxes, found: Boxes) -> tuple[dict[str, float], dict[str, float]]:
    """(threshold -> AP, error -> value) of one class; detections descend by score."""
    matched = match(objects, found, rules.DISTANCE_THRESHOLDS)
    aps, errors = {}, dict.fromkeys(rules.ERRORS, LARGEST_ERROR)
    for threshold, of_threshold in zip(rules.DISTANCE_THRESHOLDS, matched.T, strict=True):
        hits = of_threshold != NOTHING
        aps[str(threshold)] = 0.0
        if not hits.any():
            continue
        recall = np.cumsum(hits) / len(objects)
        precision = np.interp(RECALL, recall, np.cumsum(hits) / np.arange(1, len(hits) + 1), right=0)
        above = np.maximum(precision[FIRST:] - rules.MIN_PRECISION, 0)
        aps[str(threshold)] = float(np.mean(above)) / (1 - rules.MIN_PRECISION)
        if threshold == rules.ERROR_THRESHOLD:
            scores = np.interp(RECALL, recall, found.score, right=0)
            pairs = pair_errors(name, objects[of_threshold[hits]], found[hits])
            errors = {error: _mean_error(values, found.score[hits], scores) for error, values in pairs.items()}
    return aps, {**errors, **dict.fromkeys(rules.UNDEFINED.get(name, ()), np.nan)}


def pair_errors(name: str, objects: Boxes, found: Boxes) -> dict[str, np.ndarray]:
    """Error -> (P,) of P pairs of object and detection; NaN where an object's label does not tell.

    ``trans_err`` metres over the ground, ``scale_err`` 1 - overlap of the sizes, ``orient_err`` radians, ``vel_err``
    m/s, ``attr_err`` 0 or 1.
    """
    shared = np.minimum(objects.size, found.size).prod(axis=1)
    overlap = shared / (objects.size.prod(axis=1) + found.size.prod(axis=1) - shared)
    period = np.pi if name in rules.HALF_TURN_ALIKE else 2 * np.pi
    turned = (objects.yaw - found.yaw + period / 2) % period - period / 2
    wrong = (objects.attribute != found.attribute).astype(np.float64)
    return {
        "trans_err": np.linalg.norm(found.center[:, :2] - objects.center[:, :2], axis=1),
        "scale_err": 1 - overlap,
        "orient_err": np.abs(turned),
        "vel_err": np.linalg.norm(found.velocity - objects.velocity, axis=1),
        "attr_err": np.where(objects.attribute == rules.NO_ATTRIBUTE, np.nan, wrong),
    }


def _mean_error(errors: np.ndarray, hit_scores: np.ndarray, scores: np.ndarray) -> float:
    """Mean over the recalls from the first that counts to the highest reached, of the mean error up to each.

    Args:
        errors: (P,) of the true positives, descending by score.
        hit_scores: (P,) theirs.
        scores: (101,) the score at each recall; 0 where it is not reached.
    """
    running = np.interp(scores[::-1], hit_scores[::-1], _running_mean(errors)[::-1])[::-1]
    reached = np.flatnonzero(scores)
    last = reached[-1] if len(reached) else 0
    return float(np.mean(running[FIRST : last + 1])) if last >= FIRST else LARGEST_ERROR


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean of all values up to each, those that are NaN left out; 0 before the first, 1 where all are NaN."""
    known = ~np.isnan(values)
    if not known.any():
        return np.ones(len(values))
    return np.nancumsum(values) / np.maximum(np.cumsum(known), 1)
