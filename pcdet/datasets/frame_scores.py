"""What the frames of one evaluated run add to a score, so that resamples of the frames are scored without evaluating.

A data set that plans of experiments score has ``frame_scores(det_annos, class_names, metric)``, which returns this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np


class FrameScores(Protocol):
    """The counts of one run in F frames."""

    @property
    def description(self) -> tuple[str, ...]:
        """What is scored, for messages: the metric, its level where it has several, and the classes."""

    @property
    def objects(self) -> Mapping[str, np.ndarray]:
        """Class -> (F,) objects to find in each frame, by which runs on other frames are told apart."""

    @property
    def num_frames(self) -> int:
        """F."""

    @property
    def blocks(self) -> np.ndarray:
        """(F,) whole numbers, the same for frames that are much alike, such as those of one scene."""

    def resampled(self, copies: np.ndarray) -> np.ndarray:
        """The score of resamples.

        Args:
            copies: (R, F) whole numbers, how often each resample holds each frame; a row of ones is the whole set.

        Returns:
            (R,) as the metric is shown, such as percent: what the evaluation gives for the frames written out.

        Raises:
            ValueError: another shape, or numbers that are negative or not of an integer type.
        """


def checked_copies(copies: np.ndarray, num_frames: int) -> np.ndarray:
    """(R, F) int32 of what ``FrameScores.resampled`` takes; its ValueError."""
    copies = np.asarray(copies)
    if copies.ndim != 2 or copies.shape[1] != num_frames:
        raise ValueError(f"copies must have shape (resamples, {num_frames} frames), got {copies.shape}")
    if copies.dtype.kind not in "iu" or (copies < 0).any():
        raise ValueError(
            f"copies must be counts: integers from 0, got {copies.dtype} from {copies.min(initial=0)}; "
            "give how often each resample holds each frame"
        )
    return copies.astype(np.int32)


def in_parts(copies: np.ndarray, rows: int, most: int) -> list[np.ndarray]:
    """(R, F) copies as parts (F, R'), of which each has at most ``most`` cells of ``rows`` by R', or one resample."""
    num_parts = max(1, -(-len(copies) * rows // most))
    parts = np.array_split(copies, min(num_parts, max(1, len(copies))))
    return [np.ascontiguousarray(part.T) for part in parts]


def first_above(rising: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(R, K) the first row of each column of (T, R) rising counts above (R, K) values, which must not exceed all."""
    num_rows, num_columns = rising.shape
    step = np.int64(rising[-1].max()) + 1
    offset = np.arange(num_columns, dtype=np.int64)[:, None] * step  # makes one rising list of all columns
    joined = (rising.T + offset).ravel()
    found = np.searchsorted(joined, (values + offset).ravel(), side="right").reshape(values.shape)
    return np.minimum(found - np.arange(num_columns)[:, None] * num_rows, num_rows - 1)
