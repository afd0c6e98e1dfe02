"""The files of one KITTI frame: where they lie, what is wrong with them, and the info made from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcdet.datasets.kitti.kitti_utils import (
    LARGEST_IMAGE,
    image_shape_of_calibration,
    lidar_fov_flag,
    read_png_size,
)
from pcdet.datasets.point_files import read_points
from pcdet.utils.box_utils import boxes3d_kitti_camera_to_lidar, points_in_boxes_mask
from pcdet.utils.calibration_kitti import Calibration, CalibrationError
from pcdet.utils.object3d_kitti import LabelError, Object3d, get_objects_from_label

DATABASE = "gt_database"


def _file(kind: str, suffix: str, doc: str) -> property:
    """The frame's file of a kind, in the folder of that name."""
    return property(lambda self: self.folder / kind / f"{self.frame}{suffix}", doc=doc)


@dataclass(frozen=True)
class FrameFiles:
    """Paths of one frame.

    Attributes:
        folder: ``training`` or ``testing``.
        frame: its number, as written in ImageSets.
        labelled: whether it has a label file.
        num_features: columns of its cloud.
    """

    folder: Path
    frame: str
    labelled: bool
    num_features: int = 4

    velodyne = _file("velodyne", ".bin", "Point cloud.")
    calib = _file("calib", ".txt", "Calibration.")
    label = _file("label_2", ".txt", "Labels.")
    image = _file("image_2", ".png", "Image, which may be missing.")

    def signature(self) -> list[tuple[int, int]]:
        """Size and time of change of every file that is there; changes when the frame changes."""
        files = [self.velodyne, self.calib, self.image, *([self.label] if self.labelled else [])]
        stats = [file.stat() for file in files if file.is_file()]
        return [(stat.st_size, stat.st_mtime_ns) for stat in stats]

    def problems(self) -> list[str]:
        """What is missing or malformed, a sentence each, without reading the cloud."""
        found = []
        if not self.velodyne.is_file():
            found.append(f"frame {self.frame}: {self.velodyne} does not exist")
        found += self._problems_of(self.calib, Calibration)
        if self.labelled:
            if_missing = " (a frame without objects has an empty file)"
            found += self._problems_of(self.label, get_objects_from_label, if_missing)
        if self.image.is_file():
            try:
                read_png_size(self.image)
            except (ValueError, OSError) as error:
                found.append(f"frame {self.frame}: {error}")
        return found

    def cloud_problem(self) -> str | None:
        """What the size of the cloud's file tells, without reading it."""
        row = 4 * self.num_features
        size = self.velodyne.stat().st_size if self.velodyne.is_file() else 0
        if size % row:
            return (
                f"frame {self.frame}: {self.velodyne} has {size} bytes, which is no multiple of {row}: it is cut short"
            )
        return None

    def _problems_of(self, file: Path, read: Callable[[Path], object], if_missing: str = "") -> list[str]:
        """What reading a file complains about, a sentence each."""
        if not file.is_file():
            return [f"frame {self.frame}: {file} does not exist{if_missing}"]
        try:
            read(file)
        except (CalibrationError, LabelError) as error:
            return [f"frame {self.frame}: {problem}" for problem in getattr(error, "problems", [error])]
        return []


def measure_image(files: FrameFiles, calib: Calibration) -> tuple[tuple[int, int], str]:
    """(rows, columns) of a frame's image, and where they come from: ``image``, ``calibration`` or ``default``."""
    if files.image.is_file():
        return read_png_size(files.image), "image"
    shape, known = image_shape_of_calibration(calib)
    return shape, "calibration" if known else "default"


def build_frame(files: FrameFiles, database: Path | None = None) -> tuple[dict, list[dict]]:
    """The info of a frame and, for the database, the entries of its objects.

    Args:
        files: of the frame.
        database: folder for the objects' points, which are written there; None writes and returns no entries. Entries
            name it ``gt_database``, which it will be.

    Returns:
        The info in OpenPCDet's form, and one entry an object.

    Raises:
        BadFrameError: the cloud is damaged.
    """
    calib = Calibration(files.calib)
    shape, source = measure_image(files, calib)
    info = {
        "point_cloud": {"num_features": files.num_features, "lidar_idx": files.frame},
        "image": {
            "image_idx": files.frame,
            "image_shape": np.array(shape, dtype=np.int32),
            "image_shape_source": source,
        },
        "calib": {
            "P2": _square(calib.P2),
            "R0_rect": _square(calib.R0),
            "Tr_velo_to_cam": _square(calib.V2C),
        },
    }
    points = read_points(files.velodyne, files.num_features)  # read in any case: damage is found now, not in training
    if not files.labelled:
        return info, []
    annos = annotations(get_objects_from_label(files.label), calib)
    info["annos"] = annos
    crop = shape if source == "image" else LARGEST_IMAGE
    seen = points[lidar_fov_flag(points, crop, calib)]
    inside = points_in_boxes_mask(seen, annos["gt_boxes_lidar"], margin=0.0)
    annos["num_points_in_gt"][: len(inside)] = inside.sum(axis=1)
    return info, [] if database is None else write_objects(points, annos, files.frame, database)


def _square(matrix: np.ndarray) -> np.ndarray:
    """(4, 4) with ``matrix`` in its corner."""
    square = np.eye(4)
    square[: matrix.shape[0], : matrix.shape[1]] = matrix
    return square


def annotations(objects: list[Object3d], calib: Calibration) -> dict[str, np.ndarray]:
    """The objects of a frame as arrays, DontCare last, in OpenPCDet's form; ``num_points_in_gt`` still to be counted.

    ``dimensions`` (N, 3) are [l, h, w]; ``gt_boxes_lidar`` (M, 7) holds the M objects that are not DontCare.
    """
    objects = sorted(objects, key=lambda item: item.cls_type == "DontCare")  # stable
    number = sum(item.cls_type != "DontCare" for item in objects)
    annos = {
        "name": np.array([item.cls_type for item in objects], dtype=None if objects else "<U1"),
        "truncated": np.array([item.truncation for item in objects], dtype=np.float64),
        "occluded": np.array([item.occlusion for item in objects], dtype=np.float64),
        "alpha": np.array([item.alpha for item in objects], dtype=np.float64),
        "bbox": np.array([item.box2d for item in objects], dtype=np.float32).reshape(-1, 4),
        "dimensions": np.array([[item.l, item.h, item.w] for item in objects], dtype=np.float64).reshape(-1, 3),
        "location": np.array([item.loc for item in objects], dtype=np.float32).reshape(-1, 3),
        "rotation_y": np.array([item.ry for item in objects], dtype=np.float64),
        "score": np.array([item.score for item in objects], dtype=np.float64),
        "difficulty": np.array([item.level for item in objects], dtype=np.int32),
        "index": np.array([*range(number), *[-1] * (len(objects) - number)], dtype=np.int32),
        "num_points_in_gt": np.full(len(objects), -1, dtype=np.int32),
    }
    camera = np.concatenate([annos["location"], annos["dimensions"], annos["rotation_y"][:, None]], axis=1)[:number]
    annos["gt_boxes_lidar"] = boxes3d_kitti_camera_to_lidar(camera, calib)
    return annos


def write_objects(points: np.ndarray, annos: dict, frame: str, database: Path) -> list[dict]:
    """Writes each object's points, relative to its centre, and returns the database's entries.

    The points come from the whole cloud, not only from the camera's view.
    """
    boxes = annos["gt_boxes_lidar"]
    entries = []
    for i, inside in enumerate(points_in_boxes_mask(points, boxes)):
        name = str(annos["name"][i])
        path = database / f"{frame}_{name}_{i}.bin"
        own = points[inside]
        own[:, :3] -= boxes[i, :3]
        own.tofile(path)
        entries.append(
            {
                "name": name,
                "path": f"{DATABASE}/{path.name}",
                "image_idx": frame,
                "gt_idx": i,
                "box3d_lidar": boxes[i],
                "num_points_in_gt": len(own),
                "difficulty": annos["difficulty"][i],
                "bbox": annos["bbox"][i],
                "score": annos["score"][i],
            }
        )
    return entries
