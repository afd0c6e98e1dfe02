"""The labels of a frame, and the rules by which a detection finds one of them, in a form that all data sets share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from pcdet.datasets.errors import DataError


@dataclass(frozen=True)
class MatchingRule:
    """When a detection finds an object of its class.

    Attributes:
        measure: ``overlap``, of the two boxes in 3D, or ``distance``, of their centres over the ground.
        limit: the least overlap, above 0 and at most 1, or the largest distance in metres; the limit itself will do.

    Raises:
        ValueError: another measure, or a limit that it cannot have.
    """

    measure: Literal["overlap", "distance"]
    limit: float

    def __post_init__(self):
        if self.measure not in ("overlap", "distance"):
            raise ValueError(f"measure must be overlap or distance, got {self.measure!r}")
        if not 0 < self.limit <= (1 if self.measure == "overlap" else np.inf):
            rule = "above 0 and at most 1" if self.measure == "overlap" else "a number of metres above 0"
            raise ValueError(f"the limit of an {self.measure} rule must be {rule}, got {self.limit}")

    def __str__(self) -> str:
        if self.measure == "overlap":
            return f"3D overlap of at least {self.limit:g}"
        return f"centres at most {self.limit:g} m apart over the ground"


@dataclass(frozen=True, kw_only=True)
class FrameLabels:
    """What people have labelled in a frame: M objects, also those that are out of the detectors' range.

    Attributes:
        frame: its name.
        boxes: (M, 7) [x, y, z, dx, dy, dz, heading], LiDAR frame.
        names: M classes, also such as no detector looks for.
        points: M numbers of points in the boxes; None where that is not known.
        neutral: for each object the classes whose detections are neither right nor wrong where they fit on it. With
            its own class, it is not counted.
        attributes: name -> M texts, of those in the data set's ``LABEL_ATTRIBUTES``.

    Raises:
        DataError: a box is not finite, or there is not one of everything for each box; the frame is named.
    """

    frame: str
    boxes: np.ndarray
    names: Sequence[str]
    points: Sequence[int | None]
    neutral: Sequence[tuple[str, ...]]
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self):
        num = len(self.boxes)
        if self.boxes.shape != (num, 7):
            raise DataError(f"frame {self.frame}: the boxes of labels must have shape (M, 7), got {self.boxes.shape}")
        columns = {"names": self.names, "points": self.points, "neutral": self.neutral, **self.attributes}
        for name, values in columns.items():
            if len(values) != num:
                count = f"{len(values)} {name} for {num} labelled boxes"
                raise DataError(f"frame {self.frame}: {count}; each box needs one")
        wrong = np.flatnonzero(~np.isfinite(self.boxes).all(axis=1))
        if len(wrong):
            row = wrong[0]
            raise DataError(
                f"frame {self.frame}: labels must be finite, but box {row} ({self.names[row]}) is "
                f"{self.boxes[row].tolist()}; correct it"
            )


def labels_of_sample(sample: Mapping) -> FrameLabels | None:
    """The labels of a frame as ``load_frame`` returns it, with the points of its cloud counted; None without labels.

    Args:
        sample: with ``frame_id``; for labels with ``gt_boxes`` (M, 7+) and ``gt_names``.

    Raises:
        DataError: the labels cannot be used; the frame is named.
    """
    if sample.get("gt_boxes") is None:
        return None
    boxes = np.asarray(sample["gt_boxes"], dtype=np.float64)
    boxes = boxes[:, :7] if boxes.size else np.zeros((0, 7))
    clouded = sample.get("points") is not None and len(boxes)
    return FrameLabels(
        frame=str(sample["frame_id"]),
        boxes=boxes,
        names=[str(name) for name in sample["gt_names"]],
        points=_count_points(sample["points"], boxes) if clouded else [None] * len(boxes),
        neutral=[()] * len(boxes),
    )


def _count_points(points: np.ndarray, boxes: np.ndarray) -> list[int]:
    from pcdet.ops.roiaware_pool3d.roiaware_pool3d_utils import points_in_boxes_cpu  # loads the native library

    points = np.ascontiguousarray(points[:, :3], dtype=np.float64)
    return points_in_boxes_cpu(points, boxes).sum(axis=1).tolist()
