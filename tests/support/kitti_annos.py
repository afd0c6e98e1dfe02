"""Annotations as KITTI's evaluation reads them, and the evaluation in one call."""

import numpy as np

from pcdet.datasets.kitti.kitti_object_eval_python.eval import evaluate
from pcdet.datasets.kitti.kitti_object_eval_python.objects import Objects

CLASSES = ("Car", "Pedestrian", "Cyclist")
SIZES = {"Car": (3.9, 1.5, 1.6), "Van": (5.0, 2.2, 1.9), "Truck": (10.0, 3.2, 2.5), "Cyclist": (1.8, 1.7, 0.6)}


def anno(names, boxes=None, *, bbox=None, alpha=None, scores=None, occluded=0, truncated=0.0):
    """One frame; boxes (N, 7) l, h, w, x, y, z, rotation_y default to boxes side by side."""
    num = len(names)
    if boxes is None:
        boxes = np.array(
            [[*SIZES.get(name, (0.8, 1.7, 0.6)), 20.0 * i, 1.6, 20.0, 0.3] for i, name in enumerate(names)]
        )
    boxes = np.asarray(boxes, dtype=np.float64).reshape(num, 7)
    if bbox is None:
        bbox = [[100.0 * i, 100.0, 100.0 * i + 80, 180.0] for i in range(num)]
    frame = {
        "name": np.array(names, dtype=str),
        "truncated": np.full(num, truncated),
        "occluded": np.full(num, occluded),
        "alpha": np.zeros(num) if alpha is None else np.asarray(alpha, dtype=np.float64),
        "bbox": np.asarray(bbox, dtype=np.float64).reshape(num, 4),
        "dimensions": boxes[:, :3],
        "location": boxes[:, 3:6],
        "rotation_y": boxes[:, 6],
    }
    if scores is not None:
        frame["score"] = np.asarray(scores, dtype=np.float64)
    return frame


def run(gt, dt, classes=CLASSES):
    """Results of annotations and of detections, frame by frame."""
    return evaluate(Objects.from_annos(gt, scored=False), Objects.from_annos(dt, scored=True), classes)
