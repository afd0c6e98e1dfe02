"""Objects and judged detections of an audit, written down by hand."""

import numpy as np

from pcdet.audit.tables import KINDS, JudgedModel, Objects, Run
from pcdet.datasets.frame_labels import FrameLabels

CLASSES = ["car", "pedestrian"]


def labels_of(names, frame="0", *, distance=10.0, points=None, **attributes):
    """A frame with objects of these classes, one beside the other, at this distance or these distances."""
    num = len(names)
    boxes = np.zeros((num, 7))
    boxes[:, 0] = distance
    boxes[:, 3:6] = [4, 2, 1.5]
    return FrameLabels(
        frame=frame,
        boxes=boxes,
        names=names,
        points=[None] * num if points is None else points,
        neutral=[()] * num,
        attributes=attributes,
    )


def objects_of(names_by_frame):
    """The table of frames with objects of these classes."""
    return Objects.of_labels([labels_of(names, str(i)) for i, names in enumerate(names_by_frame)], CLASSES, [])


def run_of(rows, num_frames, threshold=0.5):
    """A training's detections: rows of frame, class number, score, kind, found object; by frame."""
    rows = sorted(rows, key=lambda row: row[0])
    frame, class_id, scores, kinds, found = zip(*rows, strict=True) if rows else ([], [], [], [], [])
    frame = np.array(frame, dtype=np.int64)
    return Run(
        frame=frame,
        class_id=np.array(class_id, dtype=np.int64),
        scores=np.array(scores, dtype=np.float64),
        boxes=np.tile([10.0, 0, 0, 4, 2, 1.5, 0], (len(rows), 1)),
        start=np.searchsorted(frame, np.arange(num_frames + 1)),
        kinds=np.array([KINDS.index(kind) for kind in kinds], dtype=np.int64),
        found=np.array(found, dtype=np.int64),
        thresholds=np.full(len(CLASSES), threshold),
    )


def judged(name, role, rows_by_seed, objects):
    """A model with one training for each list of rows."""
    runs = [run_of(rows, len(objects.frames)) for rows in rows_by_seed]
    return JudgedModel(name=name, role=role, runs=runs, finds=np.array([run.finds(len(objects.frame)) for run in runs]))


def finding(name, role, finds, objects):
    """A model whose seeds find these objects: (S, M) of 0 and 1."""
    finds = np.array(finds, dtype=bool).reshape(-1, len(objects.frame))
    rows = [[(objects.frame[i], objects.class_id[i], 0.9, "true", i) for i in np.flatnonzero(mine)] for mine in finds]
    return judged(name, role, rows, objects)
