"""The official KITTI evaluation: average precision in the image, on the ground, in space, and of the orientation.

Numbers equal those of the official C++ devkit. OpenPCDet's Python agrees with it but for float32 overlaps, DontCare
areas that it heeds in the image only, and classes that are not evaluated at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pcdet.datasets.kitti.kitti_object_eval_python import rules
from pcdet.datasets.kitti.kitti_object_eval_python.class_curves import ClassTask, Measurements
from pcdet.datasets.kitti.kitti_object_eval_python.objects import Objects
from pcdet.datasets.kitti.kitti_object_eval_python.rules import DIFFICULTIES, METRICS, OVERLAPS

# Row names of the printed table and keys of the flat results, in OpenPCDet's order.
_ROWS = {"bbox": "bbox AP:", "bev": "bev  AP:", "3d": "3d   AP:", "aos": "aos  AP:"}
_KEYS = {"aos": "aos", "3d": "3d", "bev": "bev", "bbox": "image"}


def get_official_eval_result(
    gt_annos: Sequence[dict], dt_annos: Sequence[dict], current_classes, PR_detail_dict: dict | None = None
) -> tuple[str, dict]:
    """OpenPCDet's table and flat results of the official evaluation, on annotations as its infos hold them.

    Args:
        gt_annos: one dict a frame: ``name, truncated, occluded, alpha, bbox, dimensions (lhw), location, rotation_y``.
        dt_annos: one dict a frame, the same frames: the same without ``truncated, occluded``, and ``score``.
        current_classes: a class or several, by name or OpenPCDet's number.
        PR_detail_dict: receives ``bbox, bev, 3d, aos -> (classes, difficulties, 2 overlap sets, 41)`` precision.

    Returns:
        The table, and ``<Class>_{image,bev,3d,aos}/{easy,moderate,hard}_{R40,R11}`` at the strict overlaps and
        ``<Class>_{image,bev,3d,aos}_loose/...`` at the loose ones, in percent. What the devkit does not evaluate is 0
        here; ``aos`` is left out when one detection of any class has no observation angle (alpha -10).

    Raises:
        ValueError: an unknown class, frames that do not correspond, annotations without a needed key.
    """
    classes = rules.resolve_classes(current_classes)
    results = evaluate(*same_frames(gt_annos, dt_annos), classes)
    if PR_detail_dict is not None:
        PR_detail_dict.update(_stacked_curves(results, classes))
    return format_table(results), flatten(results)


def same_frames(gt_annos: Sequence[dict], dt_annos: Sequence[dict]) -> tuple[Objects, Objects]:
    """Ground truth and detections of `get_official_eval_result` as tables.

    Raises:
        ValueError: their numbers of frames differ, or a frame lacks a needed key or has arrays that differ in length.
    """
    if len(gt_annos) != len(dt_annos):
        raise ValueError(
            f"gt_annos and dt_annos must hold the same frames, got {len(gt_annos)} and {len(dt_annos)} of them"
        )
    return Objects.from_annos(gt_annos, scored=False), Objects.from_annos(dt_annos, scored=True)


def evaluate(gt: Objects, dt: Objects, classes: Sequence[str]) -> dict:
    """Average precision and curves of every class.

    Args:
        gt: the ground truth.
        dt: the detections in the same frames.
        classes: names out of ``rules.CLASS_NAMES``.

    Returns:
        ``strict | loose -> ap | curves -> class -> bbox | bev | 3d | aos -> easy | moderate | hard``, and there
        ``{R11, R40}`` in percent or 41 numbers. None instead of the difficulties where the devkit does not evaluate: no
        detection of the class is complete in that metric, or (for ``aos``) some detection has no alpha. A precision of
        0 / 0, which is no number in the devkit and spoils its R11, is 0.
    """
    results = {name: {"ap": {}, "curves": {}} for name in OVERLAPS}
    with np.errstate(invalid="ignore", over="ignore"):  # a network that diverged may predict anything
        measured = Measurements(gt, dt, classes)
        for class_name in classes:
            task = ClassTask(measured, class_name)
            for set_name, overlaps in OVERLAPS.items():
                curves = _metric_curves(task, overlaps[class_name])
                results[set_name]["curves"][class_name] = curves
                results[set_name]["ap"][class_name] = {
                    metric: by_level and {level: average_precision(curve) for level, curve in by_level.items()}
                    for metric, by_level in curves.items()
                }
    return results


def average_precision(curve: Sequence[float]) -> dict[str, float]:
    """Percent from 41 precisions: R11 takes every fourth point, R40 all but the first."""
    return {"R11": float(np.sum(curve[::4]) / 11 * 100), "R40": float(np.sum(curve[1:]) / 40 * 100)}


def format_table(results: dict) -> str:
    """OpenPCDet's text for the results of `evaluate`."""
    lines = []
    with_aos = _has_aos(results)
    for class_name in results["strict"]["ap"]:
        for set_name in results:
            overlaps = ", ".join(f"{value:.2f}" for value in OVERLAPS[set_name][class_name])
            for points, label in (("R11", "AP"), ("R40", "AP_R40")):
                lines.append(f"{class_name} {label}@{overlaps}:")
                for metric, title in _ROWS.items():
                    if metric == "aos" and not with_aos:
                        continue
                    digits = 2 if metric == "aos" else 4
                    values = _by_level(results[set_name]["ap"][class_name][metric], points)
                    lines.append(title + ", ".join(f"{value:.{digits}f}" for value in values))
    return "".join(line + "\n" for line in lines)


def flatten(results: dict) -> dict[str, float]:
    """The flat results of `get_official_eval_result` from those of `evaluate`."""
    flat = {}
    with_aos = _has_aos(results)
    for set_name, suffix in (("strict", ""), ("loose", "_loose")):
        for points in ("R40", "R11"):
            for class_name, by_metric in results[set_name]["ap"].items():
                for metric, key in _KEYS.items():
                    if metric == "aos" and not with_aos:
                        continue
                    for level, value in zip(DIFFICULTIES, _by_level(by_metric[metric], points), strict=True):
                        flat[f"{class_name}_{key}{suffix}/{level}_{points}"] = value
    return flat


def _has_aos(results: dict) -> bool:
    return any(by_metric["aos"] is not None for by_metric in results["strict"]["ap"].values())


def _by_level(by_level: dict | None, points: str) -> list[float]:
    return [by_level[level][points] if by_level else 0.0 for level in DIFFICULTIES]


def _stacked_curves(results: dict, classes: Sequence[str]) -> dict[str, np.ndarray]:
    empty = dict.fromkeys(DIFFICULTIES, [0.0] * rules.NUM_RECALL_POINTS)
    metrics = [metric for metric in (*METRICS, "aos") if metric != "aos" or _has_aos(results)]
    return {
        metric: np.array(
            [
                [
                    [(results[set_name]["curves"][name][metric] or empty)[level] for set_name in OVERLAPS]
                    for level in DIFFICULTIES
                ]
                for name in classes
            ]
        )
        for metric in metrics
    }


def _metric_curves(task: ClassTask, overlaps: Sequence[float]) -> dict:
    """``bbox | bev | 3d | aos -> level -> 41 numbers``, or None for a metric that is not evaluated."""
    curves = {}
    for metric, overlap in zip(METRICS, overlaps, strict=True):
        by_level = task.curves(metric, overlap) if task.is_evaluated(metric) else None
        curves[metric] = by_level and {level: curve.precision.tolist() for level, curve in by_level.items()}
    if task.is_evaluated("aos"):
        by_level = task.curves("bbox", overlaps[0])
        curves["aos"] = {level: curve.similarity.tolist() for level, curve in by_level.items()}
    return {**dict.fromkeys((*METRICS, "aos")), **curves}
