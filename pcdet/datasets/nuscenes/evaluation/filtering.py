"""Which boxes the evaluation looks at: those within range of their class, with points, and outside bicycle racks."""

from __future__ import annotations

import numpy as np

from pcdet.datasets.nuscenes.evaluation.boxes import Boxes
from pcdet.datasets.nuscenes.evaluation.ground_truth import GroundTruth, Racks
from pcdet.datasets.nuscenes.evaluation.rules import CLASS_NUMBER, CLASS_RANGE, CLASSES, IN_RACKS

_RANGE = np.array([CLASS_RANGE[name] for name in CLASSES], dtype=np.float64)
_BIKES = [CLASS_NUMBER[name] for name in IN_RACKS]


def objects_to_find(truth: GroundTruth) -> Boxes:
    """The labelled boxes that count."""
    return truth.boxes[_counts(truth.boxes, truth) & (truth.points > 0)]


def detections_to_judge(found: Boxes, truth: GroundTruth) -> Boxes:
    """The detected boxes that count for or against a detector, in their order."""
    return found[_counts(found, truth)]


def _counts(boxes: Boxes, truth: GroundTruth) -> np.ndarray:
    away = boxes.center[:, :2] - truth.ego[boxes.sample]
    near = np.sqrt((away * away).sum(axis=1)) < _RANGE[boxes.class_id]
    return near & ~in_racks(boxes, truth.racks)


def in_racks(boxes: Boxes, racks: Racks) -> np.ndarray:
    """(N,) bool: bikes whose centre lies in a bicycle rack of their sample, its surface included."""
    inside = np.zeros(len(boxes), dtype=bool)
    bikes = np.flatnonzero(np.isin(boxes.class_id, _BIKES))
    bikes = bikes[np.argsort(boxes.sample[bikes], kind="stable")]
    first, last = (np.searchsorted(boxes.sample[bikes], racks.sample, side=side) for side in ("left", "right"))
    for rack, (begin, end) in enumerate(zip(first, last, strict=True)):
        of_sample = bikes[begin:end]
        place = (boxes.center[of_sample] - racks.center[rack]) @ racks.axes[rack]  # in the rack's frame
        width, length, height = racks.size[rack] / 2
        inside[of_sample] |= (np.abs(place) <= [length, width, height]).all(axis=1)
    return inside
