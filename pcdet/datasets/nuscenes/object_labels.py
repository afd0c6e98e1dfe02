"""The labels of an info file's frame for audits: points, motion, and objects that the evaluation leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pcdet.datasets.errors import DataError
from pcdet.datasets.frame_labels import FrameLabels
from pcdet.datasets.nuscenes.evaluation.rules import CLASS_RANGE, MOVING_SPEED
from pcdet.datasets.nuscenes.poses import inverse

MOTION = ("standing", "moving", "unknown")


def frame_name(info: Mapping) -> str:
    """Name of a frame: its cloud's file without the last ending."""
    return Path(info["lidar_path"]).stem


def boxes_of_info(info: Mapping) -> np.ndarray:
    """(N, 7 or 9) boxes; (0, 9) where there is no object, for which info files have arrays of several shapes."""
    return info["gt_boxes"] if len(info["gt_names"]) else np.zeros((0, 9))


def labels_of_info(info: Mapping) -> FrameLabels | None:
    """The labels of a frame: points in the key frame, and whether each object moves. None without labels.

    Neutral are those that nuScenes' evaluation does not look for: beyond the range of their class, or without a LiDAR
    and a radar point.

    Raises:
        DataError: the info does not say where the vehicle stood.
    """
    if "gt_boxes" not in info:
        return None
    names = info["gt_names"].tolist()
    boxes = boxes_of_info(info).astype(np.float64)
    left_out = _out_of_range(info, names, boxes) | _without_points(info, len(names))
    return FrameLabels(
        frame=frame_name(info),
        boxes=boxes[:, :7],
        names=names,
        points=info["num_lidar_pts"].tolist() if "num_lidar_pts" in info else [None] * len(names),
        neutral=[(name,) if out else () for name, out in zip(names, left_out, strict=True)],
        attributes={"motion": _motion(boxes)},
    )


def _out_of_range(info: Mapping, names: list[str], boxes: np.ndarray) -> np.ndarray:
    """(N,) bool: as far from the vehicle as the range of their class or farther, over the ground of the world."""
    if missing := [key for key in ("ref_from_car", "car_from_global") if key not in info]:
        raise DataError(
            f"frame {frame_name(info)}: its info has no {', '.join(missing)}, which distances need; make "
            "the info file again with create_nuscenes_infos"
        )
    car_from_lidar, global_from_car = inverse(info["ref_from_car"]), inverse(info["car_from_global"])
    from_car = boxes[:, :3] @ car_from_lidar[:3, :3].T + car_from_lidar[:3, 3]
    away = from_car @ global_from_car[:3, :3].T
    return np.hypot(away[:, 0], away[:, 1]) >= [CLASS_RANGE.get(name, np.inf) for name in names]


def _without_points(info: Mapping, number: int) -> np.ndarray:
    """(N,) bool: those that neither a LiDAR nor a radar point has hit; none where the info does not count both."""
    if "num_lidar_pts" not in info or "num_radar_pts" not in info:
        return np.zeros(number, dtype=bool)
    return info["num_lidar_pts"] + info["num_radar_pts"] == 0


def _motion(boxes: np.ndarray) -> list[str]:
    """Whether each object moves, of ``MOTION``."""
    if boxes.shape[1] < 9:
        return ["unknown"] * len(boxes)
    speeds = np.hypot(boxes[:, 7], boxes[:, 8])
    return ["unknown" if np.isnan(speed) else MOTION[int(speed > MOVING_SPEED)] for speed in speeds]
