"""KITTI's calibration: reading the files, and the way between the LiDAR, the rectified camera and the image.

Frames: LiDAR (x forward, y left, z up), rectified camera 0 (x right, y down, z forward), image of camera 2 (pixels, u
right, v down). All numbers are float64, as precise as the file.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from pcdet.utils.text_files import TextFileError, read_text

# key -> (names in the file, shape); the second names are those of KITTI's tracking data
ENTRIES = {
    "P2": (("P2",), (3, 4)),
    "P3": (("P3",), (3, 4)),
    "R0": (("R0_rect", "R_rect", "R0"), (3, 3)),
    "Tr_velo2cam": (("Tr_velo_to_cam", "Tr_velo_cam", "Tr_velo2cam"), (3, 4)),
}
OPTIONAL = frozenset({"P3"})  # not needed here


class CalibrationError(ValueError):
    """A calibration file that cannot be used; the message names the file and the entry."""


def _read_entries(path: Path) -> dict[str, list[str]]:
    entries = {}
    try:
        text = read_text(path)
    except TextFileError as error:
        raise CalibrationError(str(error)) from None
    for line in text.splitlines():
        words = line.replace(":", " ", 1).split()
        if words:
            entries[words[0]] = words[1:]
    return entries


def get_calib_from_file(calib_file: str | Path) -> dict[str, np.ndarray]:
    """The matrices of a calibration file by name: P2 (3, 4), P3 (3, 4), R0 (3, 3), Tr_velo2cam (3, 4).

    Entries are found by their names, not by line number.

    Raises:
        CalibrationError: the file is not text, or an entry is missing or malformed; all of them are named.
    """
    path = Path(calib_file)
    entries = _read_entries(path)
    matrices, problems = {}, []
    for key, (names, shape) in ENTRIES.items():
        words = next((entries[name] for name in names if name in entries), None)
        if words is None:
            if key not in OPTIONAL:
                problems.append(f"no entry {names[0]}")
            continue
        try:
            matrix = np.array(words, dtype=np.float64)
        except ValueError:
            problems.append(f"{names[0]} holds something that is not a number")
            continue
        if matrix.size != shape[0] * shape[1] or not np.isfinite(matrix).all():
            problems.append(f"{names[0]} must hold {shape[0] * shape[1]} finite numbers, got {matrix.size}")
            continue
        matrices[key] = matrix.reshape(shape)
    if problems:
        raise CalibrationError(f"{path}: " + "; ".join(problems))
    return matrices


def _transformed(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(N, 3) float64: points (N, 3+) taken through a (3+, 4) matrix that acts on homogeneous column vectors."""
    # numpy multiplies contiguous float64 by BLAS, and anything else many times slower
    return np.ascontiguousarray(points[:, :3], dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def _inverse(matrix: np.ndarray, name: str | Path) -> np.ndarray:
    """(4, 4): the way back."""
    try:
        inverse = np.linalg.inv(matrix)
    except np.linalg.LinAlgError:
        inverse = np.full_like(matrix, np.nan)
    if not np.isfinite(inverse).all():
        raise CalibrationError(
            f"{name}: R0_rect and Tr_velo_to_cam must lead from the LiDAR to the camera and back; their product has no "
            "inverse"
        )
    return inverse


class Calibration:
    """Calibration of one frame.

    Args:
        calib: path of a calibration file, or its matrices as ``get_calib_from_file`` returns them.

    Attributes:
        P2: (3, 4) projection of the rectified camera frame to the image of camera 2.
        R0: (3, 3) rectification.
        V2C: (3, 4) LiDAR to the unrectified camera.

    Raises:
        CalibrationError: as ``get_calib_from_file``, P2 projects to nowhere, or the way from the LiDAR to the camera
            has no way back.
    """

    def __init__(self, calib: str | Path | dict[str, np.ndarray]):
        matrices = calib if isinstance(calib, dict) else get_calib_from_file(calib)
        self.P2 = np.asarray(matrices["P2"], dtype=np.float64).reshape(3, 4)
        self.R0 = np.asarray(matrices["R0"], dtype=np.float64).reshape(3, 3)
        self.V2C = np.asarray(matrices["Tr_velo2cam"], dtype=np.float64).reshape(3, 4)
        self.cu, self.cv = self.P2[0, 2], self.P2[1, 2]
        self.fu, self.fv = self.P2[0, 0], self.P2[1, 1]
        name = "the calibration" if isinstance(calib, dict) else calib
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            self.tx, self.ty = self.P2[0, 3] / -self.fu, self.P2[1, 3] / -self.fv
        if not (math.isfinite(self.tx) and math.isfinite(self.ty)):
            raise CalibrationError(f"{name}: P2 must have focal lengths other than 0, got {self.fu} and {self.fv}")
        rectify, to_camera = np.eye(4), np.eye(4)
        rectify[:3, :3], to_camera[:3] = self.R0, self.V2C
        self._lidar_to_rect = rectify @ to_camera
        self._rect_to_lidar = _inverse(self._lidar_to_rect, name)

    @property
    def lidar_to_image_matrix(self) -> np.ndarray:
        """(3, 4): homogeneous LiDAR points to [u d, v d, d] with pixels u, v and depth d from camera 2."""
        return self.P2 @ self._lidar_to_rect

    @property
    def lidar_to_rect_matrix(self) -> np.ndarray:
        """(4, 4), acts on column vectors."""
        return self._lidar_to_rect.copy()

    def lidar_to_rect(self, pts_lidar: np.ndarray) -> np.ndarray:
        """Points (N, 3) of the LiDAR frame in the rectified camera frame, (N, 3) float64."""
        return _transformed(pts_lidar, self._lidar_to_rect)

    def rect_to_lidar(self, pts_rect: np.ndarray) -> np.ndarray:
        """Points (N, 3) of the rectified camera frame in the LiDAR frame, (N, 3) float64."""
        return _transformed(pts_rect, self._rect_to_lidar)

    def project_rect(self, pts_rect: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The image points, by KITTI's own projection (division by the third homogeneous coordinate).

        Args:
            pts_rect: (N, 3) rectified camera frame.

        Returns:
            (N, 2) pixels [u, v], and (N,) depth from camera 2 in metres. Points at depth 0 give inf or nan pixels,
            points behind the camera meaningless ones: look at the depth first.
        """
        projected = _transformed(pts_rect, self.P2)
        with np.errstate(divide="ignore", invalid="ignore"):
            return projected[:, :2] / projected[:, 2:], projected[:, 2]

    def rect_to_img(self, pts_rect: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image points and depths as OpenPCDet computes them: divided by z of the rectified frame.

        That leaves out the few millimetres between cameras 0 and 2 along z: under half a pixel beyond 5 m. The image
        boxes of results are made with it, to equal OpenPCDet's; cropping uses ``project_rect``.

        Args:
            pts_rect: (N, 3) rectified camera frame.

        Returns:
            (N, 2) pixels [u, v], and (N,) depth in metres.
        """
        projected = _transformed(pts_rect, self.P2)
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels = projected[:, :2] / np.asarray(pts_rect)[:, 2:3]
        return pixels, projected[:, 2] - self.P2[2, 3]

    def lidar_to_img(self, pts_lidar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``rect_to_img`` of points (N, 3) of the LiDAR frame."""
        return self.rect_to_img(self.lidar_to_rect(pts_lidar))

    def img_to_rect(self, u: np.ndarray, v: np.ndarray, depth_rect: np.ndarray) -> np.ndarray:
        """Points of the rectified camera frame behind pixels: the inverse of ``rect_to_img``.

        Args:
            u: (N,) pixels.
            v: (N,) pixels.
            depth_rect: (N,) z in the rectified camera frame, metres.

        Returns:
            (N, 3).
        """
        x = ((u - self.cu) * depth_rect) / self.fu + self.tx
        y = ((v - self.cv) * depth_rect) / self.fv + self.ty
        return np.stack((x, y, depth_rect), axis=-1)

    def corners3d_to_img_boxes(self, corners3d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image boxes around projected corners.

        Args:
            corners3d: (N, 8, 3) rectified camera frame.

        Returns:
            boxes (N, 4) [x1, y1, x2, y2] and the projected corners (N, 8, 2), pixels.
        """
        pixels, _ = self.project_rect(corners3d.reshape(-1, 3))
        pixels = pixels.reshape(-1, 8, 2)
        return np.concatenate([pixels.min(axis=1), pixels.max(axis=1)], axis=1), pixels
