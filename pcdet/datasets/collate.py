"""Joins samples to one batch_dict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

LISTS = frozenset({"calib", "image_paths", "ori_shape", "img_process_infos"})
OPTIONAL = frozenset({"road_plane"})  # some frames have none; a batch has it only if all its frames do


def collate_batch(batch_list: Sequence[dict], _unused: Any = False) -> dict:
    """One batch of several samples.

    ==================================  =====================================================================
    ``points``, ``voxel_coords``        (sum of N, 1 + C), (sum of V, 4): the frame's number in the batch first
    ``voxels``, ``voxel_num_points``    (sum of V, P, C), (sum of V,)
    ``gt_boxes``, ``gt_boxes2d``        (B, most boxes, C), zero padded
    ``images``                          (B, most rows, most columns, 3), zero padded
    ``calib``                           list of B
    everything else                     stacked, (B, ...)
    ``batch_size``                      B
    ==================================  =====================================================================

    Raises:
        ValueError: naming the key and the frames, where samples do not fit together.
    """
    if not batch_list:
        raise ValueError("a batch needs at least one sample")
    frames = [sample.get("frame_id") for sample in batch_list]
    batch: dict[str, Any] = {}
    for key in dict.fromkeys(key for sample in batch_list for key in sample):
        values = [sample[key] for sample in batch_list if key in sample]
        if len(values) < len(batch_list):
            if key in OPTIONAL:
                continue
            lacking = [frame for frame, sample in zip(frames, batch_list, strict=True) if key not in sample]
            raise ValueError(f"collating {key!r}: the frames {lacking} of the batch {frames} do not have it")
        try:
            batch[key] = values if key in LISTS else JOINS.get(key, _stack)(values)
        except (ValueError, TypeError, IndexError) as error:
            shapes = [np.shape(value) for value in values]
            raise ValueError(f"collating {key!r} of the frames {frames}, shapes {shapes}: {error}") from error
    batch["batch_size"] = len(batch_list)
    return batch


def _stack(values: list) -> np.ndarray:
    if all(isinstance(value, dict) for value in values):  # metadata
        joined = np.empty(len(values), dtype=object)
        joined[:] = values
        return joined
    return np.stack([np.asarray(value) for value in values], axis=0)


def _concatenate(values: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(values, axis=0)


def _with_batch_index(values: list[np.ndarray]) -> np.ndarray:
    dtype = np.result_type(*(value.dtype for value in values))
    joined = np.empty((sum(map(len, values)), values[0].shape[1] + 1), dtype=dtype)
    start = 0
    for index, value in enumerate(values):
        joined[start : start + len(value), 0] = index
        joined[start : start + len(value), 1:] = value
        start += len(value)
    return joined


def _padded(values: list[np.ndarray]) -> np.ndarray:
    shape = np.max([value.shape for value in values], axis=0)
    joined = np.zeros((len(values), *shape), dtype=np.float32)
    for row, value in zip(joined, values, strict=True):
        row[tuple(slice(0, n) for n in value.shape)] = value
    return joined


JOINS: dict[str, Callable[[list], Any]] = {
    "points": _with_batch_index,
    "voxel_coords": _with_batch_index,
    "voxels": _concatenate,
    "voxel_num_points": _concatenate,
    "gt_boxes": _padded,
    "gt_boxes2d": _padded,
    "images": _padded,
}
