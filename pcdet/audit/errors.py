"""What becomes of detections: they find an object, or they are one kind of error.

In the spirit of TIDE (D. Bolya, S. Foley, J. Hays, J. Hoffman, TIDE: A General Toolbox for Identifying Object Detection
Errors, ECCV 2020, arXiv 2008.08115), which tells errors apart by the overlap with what is labelled. What is different
for boxes in space: localisation is divided into heading, size and centre, by which correction alone would make the
detection find its object; it is asked for before another class, since a detector that sees the right thing of the right
class is nearest to the truth; TIDE's "both" (a poorly placed box on another class) is background here; and errors are
counted, not weighed by the average precision that their correction would gain. An object is missed where no detection
finds it, also where one comes near; TIDE counts those that nothing comes near.

The kinds, in the order in which they are asked for:

- ``true``: the rule of its class holds with an object of its class that no higher score has taken.
- ``ignored``: the rule holds with an object that is neutral for its class.
- ``duplicate``: the rule holds with an object of its class, which a higher score has taken.
- ``heading``, ``size``, ``localisation``: the object of its class with the highest overlap has at least 0.1 of it
  (TIDE's background threshold), and the rule would hold if the detection had that object's heading, its three sizes or
  its centre. Where several of these would do, the one that leaves the highest overlap.
- ``several``: as before, but no single correction is enough.
- ``class``: the rule holds with an object of another class, also one that no detector looks for.
- ``background``: everything else.

A turn by 180 degrees changes no overlap, and is no error of heading here. Where the rule asks for a distance of
centres, heading and size have no part in it: detections that overlap their object by 0.1 and miss the rule are all
``localisation``, and the others ``class`` or ``background``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pcdet.audit.matching import NO_FIT, distances, fits, match, overlaps
from pcdet.audit.tables import KINDS, NONE
from pcdet.datasets.frame_labels import MatchingRule
from pcdet.ops.iou3d_nms.iou3d_nms_utils import paired_boxes_iou3d

BACKGROUND_OVERLAP = 0.1  # of TIDE: below it, a detection has nothing to do with an object
CORRECTIONS = {"heading": slice(6, 7), "size": slice(3, 6), "localisation": slice(0, 3)}  # columns of a box
NUMBER = {kind: number for number, kind in enumerate(KINDS)}


def judge_frame(
    boxes: np.ndarray,
    class_id: np.ndarray,
    scores: np.ndarray,
    run: np.ndarray,
    objects: np.ndarray,
    object_class: np.ndarray,
    neutral: np.ndarray,
    rules: Sequence[MatchingRule],
) -> tuple[np.ndarray, np.ndarray]:
    """Judges the detections of one frame, of many trainings at once.

    Args:
        boxes: (N, 7) detections.
        class_id: (N,) theirs.
        scores: (N,) theirs.
        run: (N,) which training each is of.
        objects: (M, 7) labels.
        object_class: (M,) as which they count, or ``NONE``.
        neutral: (C, M) bool, for which classes they are neutral.
        rules: C of them.

    Returns:
        (N,) places in ``KINDS``, and (N,) the object that each detection finds, or ``NONE``.
    """
    overlap, distance = overlaps(boxes, objects), distances(boxes, objects)
    fit = np.full(overlap.shape, NO_FIT)
    for number, rule in enumerate(rules):
        rows = class_id == number
        fit[rows] = fits(rule, overlap[rows], distance[rows])
    holds = fit > NO_FIT
    own = class_id[:, None] == object_class[None]
    excused = neutral[class_id]
    found = match(np.where(own, fit, NO_FIT), scores, run)

    kinds = np.full(len(boxes), NUMBER["background"])
    kinds[(holds & ~own & ~excused).any(axis=1)] = NUMBER["class"]
    own_overlap = np.where(own, overlap, 0.0)
    near = np.flatnonzero(own_overlap.max(axis=1, initial=0.0) >= BACKGROUND_OVERLAP)
    if len(near):
        kinds[near] = _corrections(boxes[near], objects[own_overlap[near].argmax(axis=1)], class_id[near], rules)
    kinds[(holds & own).any(axis=1)] = NUMBER["duplicate"]
    kinds[(holds & excused).any(axis=1)] = NUMBER["ignored"]
    kinds[found != NONE] = NUMBER["true"]
    return kinds, found


def _corrections(
    boxes: np.ndarray, objects: np.ndarray, class_id: np.ndarray, rules: Sequence[MatchingRule]
) -> np.ndarray:
    """The kind of error by which each box (N, 7) misses its object (N, 7)."""
    overlap = np.empty((len(CORRECTIONS), len(boxes)))
    enough = np.empty(overlap.shape, dtype=bool)
    for row, columns in enumerate(CORRECTIONS.values()):
        corrected = boxes.copy()
        corrected[:, columns] = objects[:, columns]
        overlap[row] = paired_boxes_iou3d(*(torch.from_numpy(np.ascontiguousarray(b)) for b in (corrected, objects)))
        distance = np.linalg.norm(corrected[:, :2] - objects[:, :2], axis=1)
        for number, rule in enumerate(rules):
            mine = class_id == number
            enough[row, mine] = fits(rule, overlap[row, mine], distance[mine]) > NO_FIT
    best = np.where(enough, overlap, -1.0).argmax(axis=0)
    names = np.array([NUMBER[kind] for kind in CORRECTIONS])
    return np.where(enough.any(axis=0), names[best], NUMBER["several"])
