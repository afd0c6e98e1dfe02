"""What the parts of the audit work on: all labelled objects, and the judged detections of each training, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pcdet.audit.report import ERRORS, IGNORED, TRUE, Role
from pcdet.datasets.frame_labels import FrameLabels

KINDS = (TRUE, *ERRORS, IGNORED)  # a kind's number is its place here
UNKNOWN = -1  # in place of a number of points
NONE = -1  # in place of an object or a class
NO_DETECTION = 1.0  # the threshold of a class without detections, which changes nothing


@dataclass(frozen=True, kw_only=True)
class Objects:
    """M labelled objects of F frames, frame by frame in the order of the labels.

    Attributes:
        frames: F names.
        classes: C names, those that detectors look for.
        frame: (M,) number of each object's frame.
        index: (M,) place among the frame's labels.
        boxes: (M, 7) LiDAR frame.
        names: (M,) as labelled.
        class_id: (M,) number of the class as which the object counts; ``NONE`` for those that do not count.
        neutral: (C, M) bool, whether detections of a class that fit on the object are neither right nor wrong.
        points: (M,) in the box; ``UNKNOWN`` where that is not known.
        attributes: name -> (M,) texts.
        start: (F + 1,) first object of each frame, and M.
    """

    frames: Sequence[str]
    classes: Sequence[str]
    frame: np.ndarray
    index: np.ndarray
    boxes: np.ndarray
    names: np.ndarray
    class_id: np.ndarray
    neutral: np.ndarray
    points: np.ndarray
    attributes: Mapping[str, np.ndarray]
    start: np.ndarray

    @property
    def counted(self) -> np.ndarray:
        """(M,) bool: the others count neither for nor against a detector."""
        return self.class_id != NONE

    @property
    def distance(self) -> np.ndarray:
        """(M,) metres from the sensor, over the ground."""
        return np.hypot(self.boxes[:, 0], self.boxes[:, 1])

    def per_class(self) -> np.ndarray:
        """(C,) how many objects count."""
        return np.bincount(self.class_id[self.counted], minlength=len(self.classes))

    @classmethod
    def of_labels(cls, labels: Sequence[FrameLabels], classes: Sequence[str], attributes: Sequence[str]) -> Objects:
        """The table of all frames.

        Args:
            labels: one a frame.
            classes: that detectors look for.
            attributes: names of those that every frame tells.
        """
        counts = np.array([len(frame.names) for frame in labels], dtype=np.int64)
        start = np.concatenate([[0], np.cumsum(counts)])
        names = [name for frame in labels for name in frame.names]
        points = [UNKNOWN if n is None else n for frame in labels for n in frame.points]
        excused = [classes for frame in labels for classes in frame.neutral]
        neutral = np.array([[name in mine for mine in excused] for name in classes], dtype=bool)
        number = {name: i for i, name in enumerate(classes)}
        class_id = [NONE if n in mine else number.get(n, NONE) for n, mine in zip(names, excused, strict=True)]
        return cls(
            frames=[frame.frame for frame in labels],
            classes=list(classes),
            frame=np.repeat(np.arange(len(labels)), counts),
            index=np.arange(len(names)) - np.repeat(start[:-1], counts),
            boxes=np.concatenate([np.zeros((0, 7)), *(frame.boxes for frame in labels)]),
            names=np.array(names, dtype=object),
            class_id=np.array(class_id, dtype=np.int64),
            neutral=neutral.reshape(len(classes), len(names)),
            points=np.array(points, dtype=np.int64),
            attributes={
                name: np.array([text for frame in labels for text in frame.attributes[name]], dtype=object)
                for name in attributes
            },
            start=start,
        )


@dataclass(frozen=True, kw_only=True)
class Detections:
    """N detections of one training, frame by frame.

    Attributes:
        frame: (N,) number of the frame, ascending.
        class_id: (N,).
        scores: (N,).
        boxes: (N, 7) LiDAR frame.
        start: (F + 1,) first detection of each frame, and N.
    """

    frame: np.ndarray
    class_id: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    start: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Run(Detections):
    """Detections of one training with what became of them, each judged as if its own score were the threshold.

    Attributes:
        kinds: (N,) places in ``KINDS``.
        found: (N,) the object that the detection finds; ``NONE`` where it finds none.
        thresholds: (C,) the score from which a detection of each class counts.
    """

    kinds: np.ndarray
    found: np.ndarray
    thresholds: np.ndarray

    @property
    def taken_in(self) -> np.ndarray:
        """(N,) bool: the detections from their classes' thresholds on."""
        return self.scores >= self.thresholds[self.class_id]

    def finds(self, num_objects: int) -> np.ndarray:
        """(M,) bool: the objects that it finds at its thresholds."""
        found = np.zeros(num_objects, dtype=bool)
        found[self.found[self.taken_in & (self.found != NONE)]] = True
        return found


@dataclass(frozen=True, kw_only=True)
class JudgedModel:
    """A detector with all of its trainings judged.

    Attributes:
        name: unlike the others'.
        role: as in the report.
        runs: S of them, one a seed.
        finds: (S, M) bool: which objects each finds at its own thresholds.
    """

    name: str
    role: Role
    runs: Sequence[Run]
    finds: np.ndarray

    @property
    def thresholds(self) -> np.ndarray:
        """(C,) mean of their own over the seeds that detect anything of the class; ``NO_DETECTION`` where none does."""
        own = np.array([run.thresholds for run in self.runs])
        detects = np.array([np.isin(np.arange(own.shape[1]), run.class_id) for run in self.runs])
        mean = (own * detects).sum(axis=0) / np.maximum(detects.sum(axis=0), 1)
        return np.where(detects.any(axis=0), mean, NO_DETECTION)

    @property
    def found(self) -> np.ndarray:
        """(M,) fraction of the seeds that find each object."""
        return self.finds.mean(axis=0)
