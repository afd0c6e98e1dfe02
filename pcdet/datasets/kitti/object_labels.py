"""KITTI's labels and overlaps in the form that all data sets share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pcdet.datasets.frame_labels import FrameLabels, MatchingRule
from pcdet.datasets.kitti.kitti_object_eval_python import rules
from pcdet.datasets.kitti.kitti_utils import calibration_of
from pcdet.utils.box_utils import boxes3d_kitti_camera_to_lidar
from pcdet.utils.calibration_kitti import Calibration

OCCLUSION = ("fully visible", "partly occluded", "largely occluded", "unknown")  # by KITTI's number
DIFFICULTY = (*rules.DIFFICULTIES, "beyond hard")


def boxes_of_objects(annos: Mapping, calib: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """Which annotations are objects, not DontCare areas, and the boxes of these.

    Args:
        annos: of a frame's info.
        calib: of the frame.

    Returns:
        (N,) bool of all annotations, and (M, 7) float64 LiDAR boxes.
    """
    is_object = annos["name"] != rules.DONT_CARE
    camera = np.concatenate(
        [annos["location"][is_object], annos["dimensions"][is_object], annos["rotation_y"][is_object][:, None]], axis=1
    ).astype(np.float64)
    return is_object, boxes3d_kitti_camera_to_lidar(camera.reshape(-1, 7), calib)


def labels_of_info(info: Mapping, class_names: Sequence[str], mapping: Mapping[str, str] | None) -> FrameLabels | None:
    """The labels of a frame; None without labels.

    Points are those that the info counts: in the camera's view. A DontCare area is no object, and has no place in
    space.

    Args:
        info: of the frame.
        class_names: of the detectors; those with a neighbour class are told so.
        mapping: MAP_CLASS_TO_KITTI, by which the neighbours are found; the names stay.
    """
    annos = info.get("annos")
    if annos is None:
        return None
    is_object, boxes = boxes_of_objects(annos, calibration_of(info))
    names = annos["name"][is_object].tolist()
    points = annos.get("num_points_in_gt")
    counts = [-1] * len(names) if points is None else np.asarray(points)[is_object].tolist()
    occluded = np.asarray(annos["occluded"])[is_object]
    known = np.isin(occluded, range(len(OCCLUSION)))
    return FrameLabels(
        frame=info["point_cloud"]["lidar_idx"],
        boxes=boxes,
        names=names,
        points=[int(count) if count >= 0 else None for count in counts],
        neutral=neutral_classes(names, class_names, mapping or {}),
        attributes={
            "occlusion": [OCCLUSION[int(n)] for n in np.where(known, occluded, len(OCCLUSION) - 1)],
            "difficulty": _difficulty(annos, is_object),
        },
    )


def kitti_matching_rules(class_names: Sequence[str], mapping: Mapping[str, str] | None) -> dict[str, MatchingRule]:
    """Class -> the strict 3D overlap of KITTI's evaluation.

    Args:
        class_names: of the detectors.
        mapping: MAP_CLASS_TO_KITTI.

    Raises:
        ValueError: a class that the evaluation does not know.
    """
    metric = rules.METRICS.index("3d")
    names = zip(class_names, _kitti_names(class_names, mapping or {}), strict=True)
    return {name: MatchingRule("overlap", rules.OVERLAPS["strict"][kitti][metric]) for name, kitti in names}


def _kitti_names(class_names: Sequence[str], mapping: Mapping[str, str]) -> tuple[str, ...]:
    return rules.resolve_classes([mapping.get(name, name) for name in class_names])


def neutral_classes(
    names: Sequence[str], class_names: Sequence[str], mapping: Mapping[str, str]
) -> list[tuple[str, ...]]:
    """For each object the classes whose neighbour it is: in KITTI's evaluation their detections of it do not count.

    Args:
        names: of the objects.
        class_names: of the detectors.
        mapping: MAP_CLASS_TO_KITTI, by which the neighbours are found; empty for none.

    Raises:
        ValueError: a class that the evaluation does not know.
    """
    neighbours = [rules.NEIGHBOURS.get(kitti) for kitti in _kitti_names(class_names, mapping)]
    codes = [code if name else None for name, code in zip(neighbours, rules.label_codes(neighbours), strict=True)]
    own = rules.label_codes([mapping.get(name, name) for name in names])
    return [tuple(name for name, code in zip(class_names, codes, strict=True) if code == mine) for mine in own]


def _difficulty(annos: Mapping, is_object: np.ndarray) -> list[str]:
    """The easiest level at which the evaluation counts each object, by the limits that `ClassTask` applies."""
    bbox = np.asarray(annos["bbox"], dtype=np.float64)[is_object]
    occluded, truncated = (np.asarray(annos[key])[is_object] for key in ("occluded", "truncated"))
    height = bbox[:, 3] - bbox[:, 1]
    limits = zip(rules.MAX_OCCLUSION, rules.MAX_TRUNCATION, rules.MIN_HEIGHT, strict=True)
    counts = [(occluded <= most) & (truncated <= cut) & (height > least) for most, cut, least in limits]
    levels = np.argmax([*counts, np.ones(len(height), dtype=bool)], axis=0)
    return [DIFFICULTY[level] for level in levels]
