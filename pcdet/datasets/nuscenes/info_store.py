"""The infos of a split in one array, which forked workers share instead of copying."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from pcdet.datasets.packed import PackedObjects

KEPT = ("lidar_path", "token", "timestamp")
KEPT_ARRAYS = ("ref_from_car", "car_from_global", "gt_boxes", "num_radar_pts")
ARRAYS = (*KEPT_ARRAYS, "gt_names", "num_lidar_pts")
ITSELF, NO_ROWS = np.eye(4), np.zeros((0, 4))  # float64, so that matrices become so
SWEEP_KEYS = ("lidar_path", "transform_matrix", "time_lag")


class InfoStore(Sequence[dict]):
    """Infos in OpenPCDet's form, packed. Each look makes a dictionary anew.

    What loading and evaluation never ask for is left out: cameras, tokens of sweeps and boxes, and the poses from which
    a sweep's ``transform_matrix`` was made.

    Args:
        infos: that have passed ``check_infos``; each is packed and let go.

    Attributes:
        names: of all labelled objects, each once.
    """

    def __init__(self, infos: Iterable[dict]):
        self._numbers: dict[str, int] = defaultdict(itertools.count().__next__)  # a new name gets the next one
        self._infos = PackedObjects(map(self._pack, infos))
        self.names = list(self._numbers)

    def __len__(self) -> int:
        return len(self._infos)

    def __getitem__(self, index: int) -> dict:
        """The info of a frame: ``KEPT`` keys that it has, ``sweeps`` with ``SWEEP_KEYS``, names and points of boxes."""
        packed = self._infos[index]
        info = {key: packed[key] for key in KEPT if key in packed}
        info |= {key: _array_of(packed[key]) for key in ARRAYS if key in packed}
        paths, has_matrix, matrices, lags = packed["sweeps"]
        found = (m if has else None for m, has in zip(_array_of(matrices), has_matrix, strict=True))
        info["sweeps"] = [dict(zip(SWEEP_KEYS, column, strict=True)) for column in zip(paths, found, lags, strict=True)]
        if "gt_names" in info:
            info["gt_names"] = np.array([self.names[n] for n in info["gt_names"]], dtype=str)
        return info

    def tokens(self) -> Iterator[str]:
        """Of the frames, in their order; without unpacking the rest."""
        return (packed["token"] for packed in self._infos)

    @property
    def nbytes(self) -> int:
        """Memory that the infos take."""
        return self._infos.nbytes

    def class_counts(self, index: int, min_points: int = 0) -> Counter[str]:
        """The objects of each class in a frame with at least ``min_points`` LiDAR points, where these are known."""
        packed = self._infos[index]
        if "gt_names" not in packed:
            return Counter()
        numbers = _array_of(packed["gt_names"])
        if "num_lidar_pts" in packed:
            numbers = numbers[_array_of(packed["num_lidar_pts"]) >= min_points]
        return Counter(self.names[n] for n in numbers)

    def _pack(self, info: dict) -> dict:
        packed = {key: info[key] for key in KEPT if key in info}
        packed |= {key: _content_of(info[key]) for key in KEPT_ARRAYS if info.get(key) is not None}
        sweeps = info["sweeps"]
        matrices = [sweep["transform_matrix"] for sweep in sweeps]
        of_all = np.concatenate([NO_ROWS, *(ITSELF if matrix is None else matrix for matrix in matrices)])
        packed["sweeps"] = (
            [sweep["lidar_path"] for sweep in sweeps],
            [matrix is not None for matrix in matrices],
            _content_of(of_all.reshape(-1, 4, 4)),
            [float(sweep["time_lag"]) for sweep in sweeps],
        )
        if "gt_names" in info:
            numbers = [self._numbers[name] for name in info["gt_names"].tolist()]
            packed["gt_names"] = _content_of(np.array(numbers, dtype=np.uint16))
        if info.get("num_lidar_pts") is not None:
            packed["num_lidar_pts"] = _content_of(np.asarray(info["num_lidar_pts"], dtype=np.int32))
        return packed


def _content_of(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    """What an array is made of; pickling this takes a third of the time that pickling the array does."""
    return array.dtype.str, array.shape, array.tobytes()


def _array_of(content: tuple[str, tuple[int, ...], Any]) -> np.ndarray:
    dtype, shape, data = content
    return np.ndarray(shape, dtype, bytearray(data))
