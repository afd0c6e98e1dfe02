"""All objects of a data set in one table, made from OpenPCDet's per-frame annotations or from parsed KITTI records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pcdet.datasets.kitti.kitti_object_eval_python.rules import label_codes


@dataclass(frozen=True)
class Objects:
    """N objects of F frames, ordered by frame and, within one, as they were given. Camera frame, metres, radians.

    ``label`` holds codes of ``rules.LABELS``; ``bbox`` is (N, 4) x1, y1, x2, y2 in pixels; ``dimensions`` is (N, 3)
    length, height, width; ``location`` is (N, 3), the centre of the bottom face. ``truncated`` and ``occluded`` are
    None for detections, ``score`` is None for ground truth.
    """

    num_frames: int
    frame: np.ndarray
    label: np.ndarray
    truncated: np.ndarray | None
    occluded: np.ndarray | None
    alpha: np.ndarray
    bbox: np.ndarray
    dimensions: np.ndarray
    location: np.ndarray
    rotation_y: np.ndarray
    score: np.ndarray | None

    def frame_offsets(self) -> np.ndarray:
        """(F + 1,) where each frame's objects start."""
        return np.searchsorted(self.frame, np.arange(self.num_frames + 1))

    @classmethod
    def from_annos(cls, annos: Sequence[dict], *, scored: bool) -> Objects:
        """Gathers OpenPCDet annotations, one dict a frame.

        Args:
            annos: dicts of arrays ``name, alpha, bbox, dimensions (lhw), location, rotation_y``, with ``score`` when
                ``scored`` and with ``truncated, occluded`` otherwise.
            scored: whether these are detections.

        Raises:
            ValueError: a frame lacks a key, or its arrays differ in length.
        """
        counts = np.array([len(anno["name"]) for anno in annos], dtype=np.int64)
        names = [name for anno in annos for name in np.asarray(anno["name"]).tolist()]

        def column(key: str, *width: int) -> np.ndarray:
            parts = [np.zeros((0, *width))]
            for index, (anno, count) in enumerate(zip(annos, counts, strict=True)):
                if key not in anno:
                    raise ValueError(f"annotation {index} must have the key {key!r}, it has {', '.join(anno)}")
                part = np.asarray(anno[key], dtype=np.float64)
                if part.size != count * math.prod(width):
                    raise ValueError(
                        f"annotation {index}: {key!r} must have shape {(int(count), *width)}, one row for each name, "
                        f"got {part.shape}"
                    )
                parts.append(part.reshape(-1, *width))  # a frame without objects may have any empty shape
            return np.concatenate(parts)

        return cls(
            num_frames=len(annos),
            frame=np.repeat(np.arange(len(annos)), counts),
            label=np.array(label_codes(names), dtype=np.int64),
            truncated=None if scored else column("truncated"),
            occluded=None if scored else column("occluded"),
            alpha=column("alpha"),
            bbox=column("bbox", 4),
            dimensions=column("dimensions", 3),
            location=column("location", 3),
            rotation_y=column("rotation_y"),
            score=column("score") if scored else None,
        )

    @classmethod
    def from_records(cls, names: Sequence[str], values: np.ndarray, counts: Sequence[int], *, scored: bool) -> Objects:
        """Gathers the records of KITTI text files.

        Args:
            names: (N,) class names.
            values: (N, 14) the columns after the name; (N, 15) with the score.
            counts: (F,) objects of each frame.
            scored: whether these are detections.
        """
        return cls(
            num_frames=len(counts),
            frame=np.repeat(np.arange(len(counts)), counts),
            label=np.array(label_codes(names), dtype=np.int64),
            truncated=None if scored else values[:, 0],
            occluded=None if scored else values[:, 1],
            alpha=values[:, 2],
            bbox=values[:, 3:7],
            dimensions=values[:, [9, 7, 8]],  # the file has height, width, length
            location=values[:, 10:13],
            rotation_y=values[:, 13],
            score=values[:, 14] if scored else None,
        )
