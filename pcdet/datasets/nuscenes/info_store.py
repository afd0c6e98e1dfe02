"""The infos of a split in one array, which forked workers share instead of copying."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from pcdet.datasets.packed import PackedObjects

KEPT = ("lidar_path", "token", "timestamp", "ref_from_car", "car_from_global", "gt_boxes", "num_radar_pts")
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
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._infos = PackedObjects(map(self._pack, infos))

    def __len__(self) -> int:
        return len(self._infos)

    def __getitem__(self, index: int) -> dict:
        """The info of a frame: ``KEPT`` keys that it has, ``sweeps`` with ``SWEEP_KEYS``, names and points of boxes."""
        info = self._infos[index]
        paths, has_matrix, matrices, lags = info.pop("sweeps")
        columns = zip(
            paths, (m if has else None for m, has in zip(matrices, has_matrix, strict=True)), lags, strict=True
        )
        info["sweeps"] = [dict(zip(SWEEP_KEYS, column, strict=True)) for column in columns]
        if "gt_names" in info:
            info["gt_names"] = np.array([self.names[n] for n in info["gt_names"]], dtype=str)
        return info

    @property
    def nbytes(self) -> int:
        """Memory that the infos take."""
        return self._infos.nbytes

    def class_counts(self, index: int, min_points: int = 0) -> Counter[str]:
        """The objects of each class in a frame with at least ``min_points`` LiDAR points, where these are known."""
        info = self._infos[index]
        numbers = info.get("gt_names", np.zeros(0, dtype=np.uint16))
        if "num_lidar_pts" in info:
            numbers = numbers[info["num_lidar_pts"] >= min_points]
        return Counter(self.names[n] for n in numbers)

    def _pack(self, info: dict) -> dict:
        packed = {key: info[key] for key in KEPT if key in info}
        sweeps = info["sweeps"]
        matrices = [sweep["transform_matrix"] for sweep in sweeps]
        packed["sweeps"] = (
            [sweep["lidar_path"] for sweep in sweeps],
            [matrix is not None for matrix in matrices],
            np.array([np.eye(4) if m is None else m for m in matrices], dtype=np.float64).reshape(-1, 4, 4),
            [float(sweep["time_lag"]) for sweep in sweeps],
        )
        if "gt_names" in info:
            packed["gt_names"] = np.array([self._number(name) for name in info["gt_names"].tolist()], dtype=np.uint16)
        if "num_lidar_pts" in info:
            packed["num_lidar_pts"] = np.asarray(info["num_lidar_pts"], dtype=np.int32)
        return packed

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]
