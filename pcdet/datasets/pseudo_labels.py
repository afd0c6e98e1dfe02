"""Boxes that a detector has found, as the labels of frames that nobody has labelled: made once, before the training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pcdet.datasets.errors import DataError
from pcdet.datasets.pickles import read_pickle
from pcdet.datasets.results import in_frame_order
from pcdet.utils.safe_files import sha256_of

KEY = "DATA_CONFIG.PSEUDO_LABELS"
NEEDED = ("name", "score", "boxes_lidar", "frame_id")


@dataclass(frozen=True, kw_only=True)
class PseudoLabelsConfig:
    """PSEUDO_LABELS: which boxes become labels of the frames of ``INFO_PATH.unlabelled``.

    Attributes:
        file: results of these frames, from the working directory: a ``result.pkl`` of ``test.py``, ours or OpenPCDet's.
            Results of other frames may be in it too.
        score: a box's must exceed it; one for all classes, or one for each. With 0 a file without a box is taken too.
    """

    file: str
    score: float | list[float] = 0.6

    def __post_init__(self):
        scores = self.score if isinstance(self.score, list) else [self.score]
        if not scores or not all(0 <= score <= 1 for score in scores):
            raise ValueError(f"SCORE: must be a score in [0, 1], or one for each class, got {self.score}")

    def thresholds(self, class_names: Sequence[str]) -> dict[str, float]:
        """Class -> the score that its boxes must exceed.

        Raises:
            DataError: there is not one for each class.
        """
        scores = self.score if isinstance(self.score, list) else [self.score] * len(class_names)
        if len(scores) != len(class_names):
            raise DataError(
                f"{KEY}.SCORE: must name a score for each of the classes {list(class_names)}, got {self.score}"
            )
        return dict(zip(class_names, scores, strict=True))


class PseudoLabels:
    """The labels that a results file holds for some frames.

    Args:
        config: the file, and which of its boxes count.
        class_names: in the order of their scores; boxes of other classes are left out.
        columns: that a label has: 7 [x, y, z, dx, dy, dz, heading], or 9 with [vx, vy]; metres, LiDAR frame.
        frames: that need labels, each with the name under which the results have it.

    Attributes:
        digest: changes with the file and with the scores.

    Raises:
        DataError: the file is missing or damaged; it has no result of a frame, or several; a result is none, or its
            boxes lack columns; no box of any frame has the score.
    """

    def __init__(self, config: PseudoLabelsConfig, class_names: Sequence[str], *, columns: int, frames: Sequence[str]):
        self._thresholds, self._columns = config.thresholds(class_names), columns
        self.path = Path(config.file)
        if not self.path.is_file():
            raise DataError(
                f"{KEY}.FILE: {self.path.absolute()} does not exist; run test.py with the teacher on the frames of "
                "INFO_PATH.unlabelled and name the result.pkl that it writes"
            )
        self.digest = f"{sha256_of(self.path)} {self._thresholds}"
        results = _results_of(frames, _read(self.path), self.path)
        self._of_frame = {frame: self._labels(result) for frame, result in zip(frames, results, strict=True)}
        self._check_some(results)

    def __getitem__(self, frame: str) -> tuple[np.ndarray, np.ndarray]:
        """(names (N,), boxes (N, columns) float32) of a frame, for the caller to change."""
        names, boxes = self._of_frame[frame]
        return names.copy(), boxes.copy()

    def __str__(self) -> str:
        found = self.class_counts()
        boxes = ", ".join(f"{name} {found[name]}" for name in self._thresholds)
        return f"boxes of {self.path} are the labels of {len(self._of_frame)} frames: {boxes}"

    def class_counts(self) -> Counter[str]:
        """The labels of each class."""
        return Counter(name for names, _ in self._of_frame.values() for name in names.tolist())

    def _labels(self, result: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        names, scores = np.asarray(result["name"], dtype=str), np.asarray(result["score"], dtype=np.float64)
        boxes = np.asarray(result["boxes_lidar"], dtype=np.float32)
        boxes = boxes.reshape(-1, self._columns) if not boxes.size else boxes  # results without a box differ in shape
        self._check(result["frame_id"], names, scores, boxes)
        least = np.array([self._thresholds.get(name, np.inf) for name in names])
        sure = scores > least
        return names[sure], boxes[sure, : self._columns]

    def _check(self, frame: str, names: np.ndarray, scores: np.ndarray, boxes: np.ndarray) -> None:
        where = f"{KEY}.FILE: {self.path}, frame {frame}"
        if boxes.ndim != 2 or not len(names) == len(scores) == len(boxes):
            shapes = f"name {names.shape}, score {scores.shape}, boxes_lidar {boxes.shape}"
            raise DataError(f"{where}: needs as many names and scores as boxes (N, 7 or more), got {shapes}")
        if boxes.shape[1] < self._columns:
            raise DataError(
                f"{where}: its boxes have {boxes.shape[1]} columns and labels need {self._columns}; use a teacher that "
                "predicts them all"
            )
        if not np.isfinite(boxes).all() or (boxes[:, 3:6] <= 0).any():
            raise DataError(f"{where}: a box is not finite or has no size; make the results again")
        if not ((scores >= 0) & (scores <= 1)).all():
            raise DataError(
                f"{where}: scores must lie in [0, 1], got {scores.min():.3g} to {scores.max():.3g}; make the results "
                "with MODEL.POST_PROCESSING.OUTPUT_RAW_SCORE False"
            )

    def _check_some(self, results: Sequence[Mapping[str, Any]]) -> None:
        wanted = any(self._thresholds.values())  # with 0, whatever is there
        if not results or not wanted or any(len(names) for names, _ in self._of_frame.values()):
            return
        objects = [(s, n) for result in results for s, n in zip(result["score"], result["name"], strict=True)]
        found = "it has no box at all" if not objects else "the surest is {1} with {0:.3g}".format(*max(objects))
        raise DataError(
            f"{KEY}: of {len(results)} frames, {self.path} has no box of {', '.join(self._thresholds)} with a score "
            f"above {sorted(set(self._thresholds.values()))}: {found}; lower SCORE, or use a better teacher, with the "
            "same names of classes"
        )


def _read(path: Path) -> list[Mapping[str, Any]]:
    results = read_pickle(path)
    if not isinstance(results, list) or not all(isinstance(result, Mapping) for result in results):
        raise DataError(f"{KEY}.FILE: {path} must hold a list with a dict for each frame, as result.pkl does")
    lacking = [(i, key) for i, result in enumerate(results) for key in NEEDED if key not in result]
    if lacking:
        i, key = lacking[0]
        raise DataError(f"{KEY}.FILE: {path}: result {i} has no {key}; results need {', '.join(NEEDED)}")
    return results


def _results_of(frames: Sequence[str], results: Sequence[Mapping[str, Any]], path: Path) -> list[Mapping[str, Any]]:
    """One result for each of these frames."""
    wanted, where = set(frames), f"{KEY}.FILE: {path}"
    advice = "run test.py on the frames of INFO_PATH.unlabelled, all of them"
    found = [result for result in results if str(result["frame_id"]) in wanted]
    if frames and not found:
        raise DataError(f"{where} has no result of any of {len(frames)} frames, such as {frames[0]}; {advice}")
    try:
        return in_frame_order(found, frames)
    except DataError as error:
        raise DataError(f"{where}: {error}; {advice}") from error
