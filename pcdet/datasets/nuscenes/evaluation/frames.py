"""The frames of an info file as the evaluation needs them: tokens and poses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pcdet.datasets.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Frames:
    """F key frames.

    Attributes:
        tokens: of their samples.
        lidar_from_car: (F, 4, 4).
        car_from_global: (F, 4, 4).
        labelled: whether any of them has labels.
    """

    tokens: Sequence[str]
    lidar_from_car: np.ndarray
    car_from_global: np.ndarray
    labelled: bool

    @classmethod
    def of_infos(cls, infos: Iterable[Mapping]) -> Frames:
        """Of infos with ``token``, ``ref_from_car``, ``car_from_global`` and, with labels, ``gt_boxes``.

        Raises:
            DataError: an info has no poses, without which boxes cannot be brought into the global frame.
        """
        found = [(i["token"], i.get("ref_from_car"), i.get("car_from_global"), "gt_boxes" in i) for i in infos]
        if lacking := [token for token, lidar, car, _ in found if lidar is None or car is None]:
            raise DataError(
                f"{len(lacking)} of {len(found)} infos have no ref_from_car and car_from_global, by which boxes are "
                f"brought into the global frame, such as that of {lacking[0]}; make them again with "
                "create_nuscenes_infos"
            )
        poses = np.array([(lidar, car) for _, lidar, car, _ in found], dtype=np.float64).reshape(-1, 2, 4, 4)
        return cls(
            tokens=[token for token, *_ in found],
            lidar_from_car=poses[:, 0],
            car_from_global=poses[:, 1],
            labelled=any(labelled for *_, labelled in found),
        )

    def ego(self) -> np.ndarray:
        """(F, 3) places of the vehicle in the global frame."""
        return np.linalg.inv(self.car_from_global)[:, :3, 3]

    def global_from_lidar(self) -> np.ndarray:
        """(F, 4, 4)."""
        return np.linalg.inv(self.lidar_from_car @ self.car_from_global)
