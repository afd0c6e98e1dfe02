"""Boxes of the LiDAR frame as annotations that KITTI's evaluation takes, and other data sets' classes as KITTI's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pcdet.datasets.errors import DataError
from pcdet.datasets.results import in_frame_order
from pcdet.utils.box_utils import boxes3d_lidar_to_kitti_camera
from pcdet.utils.calibration_kitti import Calibration

HEIGHT = 50  # pixels, above every limit of the evaluation: all objects are easy
AHEAD = Calibration(  # a camera at the LiDAR's origin that looks along +x
    {
        "P2": np.eye(3, 4),
        "R0": np.eye(3),
        "Tr_velo2cam": np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0]]),
    }
)


def lidar_anno(
    boxes: np.ndarray, names: Sequence[str], scores: np.ndarray | None = None, *, frame: object
) -> dict[str, np.ndarray]:
    """The annotation of a frame without a camera. It has no image boxes, so that bev and 3d alone are evaluated.

    Args:
        boxes: (N, 7+) LiDAR frame.
        names: N classes.
        scores: (N,) of detections; None for labels.
        frame: its name, for messages.

    Raises:
        DataError: names, scores and boxes differ in number, a name is no text, or a label's box is not finite.
    """
    what = f"frame {frame}: the " + ("labels" if scores is None else "results")
    boxes = _box_rows(boxes, what)
    if names is None or len(names) != len(boxes) or (scores is not None and len(scores) != len(boxes)):
        count = f"{'no' if names is None else len(names)} names for {len(boxes)} boxes"
        raise DataError(f"{what} have {count}{'' if scores is None else f', {len(scores)} scores'}; each box needs one")
    unnamed = [name for name in names if not isinstance(name, str)]
    if unnamed:
        raise DataError(f"{what} have a name that is no text, {unnamed[0]!r}; each box needs the name of its class")
    if scores is None and not np.isfinite(boxes).all():  # a network that diverged may predict anything, a label not
        row = np.flatnonzero(~np.isfinite(boxes).all(axis=1))[0]
        raise DataError(f"{what} must be finite, but box {row} ({names[row]}) is {boxes[row].tolist()}; correct it")
    camera = boxes3d_lidar_to_kitti_camera(boxes, AHEAD)
    anno = {
        "name": np.array(names, dtype=str),
        "truncated": np.zeros(len(boxes)),
        "occluded": np.zeros(len(boxes)),
        "alpha": -np.arctan2(-boxes[:, 1], boxes[:, 0]) + camera[:, 6],
        "bbox": np.tile([-1.0, 0.0, HEIGHT, HEIGHT], (len(boxes), 1)),
        "dimensions": camera[:, 3:6],
        "location": camera[:, :3],
        "rotation_y": camera[:, 6],
    }
    return anno if scores is None else {**anno, "score": np.asarray(scores)}


def _box_rows(boxes: np.ndarray, what: str) -> np.ndarray:
    """(N, 7) float64: boxes without what follows their heading."""
    boxes = np.asarray(boxes, dtype=np.float64)
    if not boxes.size:
        return np.zeros((0, 7))
    if not 1 <= boxes.ndim <= 2 or boxes.shape[-1] < 7:
        raise DataError(f"{what} need boxes of shape (N, 7 or more), got {boxes.shape}")
    return boxes.reshape(-1, boxes.shape[-1])[:, :7]


def evaluate_lidar_boxes(
    labels: Sequence[dict], results: Sequence[dict], class_names: Sequence[str], mapping: Mapping[str, str]
) -> tuple[str | None, dict]:
    """KITTI's table and numbers for boxes of the LiDAR frame; (None, {}) without labels.

    Args:
        labels: one a frame: ``frame_id, gt_names (M,), gt_boxes (M, 7+)``, the last two None without labels.
        results: one a frame: ``frame_id, name (N,), score (N,), boxes_lidar (N, 7+)``.
        class_names: of the model.
        mapping: class -> KITTI's class.

    Raises:
        DataError: results are missing, repeated or of other frames, or some frames have no labels, or labels that
            cannot be evaluated; the frame is named.
    """
    from pcdet.datasets.kitti.kitti_object_eval_python.eval import get_official_eval_result

    unlabelled = [str(frame["frame_id"]) for frame in labels if frame["gt_boxes"] is None]
    if len(unlabelled) == len(labels):
        return None, {}
    if unlabelled:
        raise DataError(f"{len(unlabelled)} of {len(labels)} frames have no labels, such as {unlabelled[0]}")
    results = in_frame_order(results, [str(frame["frame_id"]) for frame in labels])
    truth = [lidar_anno(frame["gt_boxes"], frame["gt_names"], frame=frame["frame_id"]) for frame in labels]
    found = [
        lidar_anno(result["boxes_lidar"], result["name"], result["score"], frame=frame["frame_id"])
        for frame, result in zip(labels, results, strict=True)
    ]
    classes = kitti_classes(class_names, mapping)
    return get_official_eval_result(in_kitti_classes(truth, mapping), in_kitti_classes(found, mapping), classes)


def in_kitti_classes(annos: Sequence[dict], mapping: Mapping[str, str] | None) -> list[dict]:
    """Annotations with their classes renamed (MAP_CLASS_TO_KITTI); names that the mapping lacks stay."""
    if not mapping:
        return list(annos)
    return [{**anno, "name": np.array([mapping.get(n, n) for n in anno["name"]], dtype=str)} for anno in annos]


def kitti_classes(class_names: Sequence[str], mapping: Mapping[str, str] | None) -> list[str]:
    """The classes that are evaluated, each once, in the order of the model's."""
    return list(dict.fromkeys((mapping or {}).get(name, name) for name in class_names))
