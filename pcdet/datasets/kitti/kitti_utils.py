"""KITTI's files: where they lie, how images are measured, what the camera sees, and result files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from pcdet.datasets.errors import DataError
from pcdet.utils.calibration_kitti import Calibration
from pcdet.utils.text_files import TextFileError, read_text

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST_PNG_SIDE = 2**31 - 1  # ISO/IEC 15948, 11.2.2
LARGEST_IMAGE = (376, 1242)  # rows and columns that no KITTI image exceeds
DEFAULT_IMAGE = (375, 1242)  # of the most common camera set-up
# KITTI rectified each day of recording anew: the principal point of camera 2 (pixels) tells the size of its images.
IMAGE_OF_PRINCIPAL_POINT = {
    (609.5593, 172.8540): (375, 1242),  # 2011-09-26
    (604.0814, 180.5066): (370, 1224),  # 2011-09-28
    (600.3891, 181.5122): (374, 1238),  # 2011-09-29
    (601.8873, 183.1104): (370, 1226),  # 2011-09-30
    (607.1928, 185.2157): (376, 1241),  # 2011-10-03
}


def read_png_size(path: str | Path) -> tuple[int, int]:
    """(rows, columns) of a PNG file, from its header alone.

    Raises:
        ValueError: the file is not a PNG, or its image has no pixel.
    """
    with open(path, "rb") as stream:
        header = stream.read(24)
    if len(header) < 24 or not header.startswith(PNG_SIGNATURE) or header[12:16] != b"IHDR":
        raise ValueError(f"{path} is not a PNG image")
    columns, rows = struct.unpack(">II", header[16:24])
    if not 0 < rows <= LARGEST_PNG_SIDE or not 0 < columns <= LARGEST_PNG_SIDE:
        raise ValueError(f"{path} is a PNG image of {rows} rows and {columns} columns; both must lie in [1, 2^31)")
    return rows, columns


def calibration_of(info: dict) -> Calibration:
    """Calibration of a frame, from its info.

    Raises:
        CalibrationError: its matrices cannot be used; neither file nor frame is named.
    """
    calib = info["calib"]
    return Calibration(
        {"P2": calib["P2"][:3], "R0": calib["R0_rect"][:3, :3], "Tr_velo2cam": calib["Tr_velo_to_cam"][:3]}
    )


def image_shape_of_calibration(calib: Calibration) -> tuple[tuple[int, int], bool]:
    """(rows, columns) of a frame's image judged by its calibration, and whether the calibration is one of KITTI's.

    Another calibration gets ``DEFAULT_IMAGE``.
    """
    for (u, v), shape in IMAGE_OF_PRINCIPAL_POINT.items():
        if abs(calib.cu - u) < 0.01 and abs(calib.cv - v) < 0.01:
            return shape, True
    return DEFAULT_IMAGE, False


def fov_flag(pts_rect: np.ndarray, img_shape: tuple[int, int] | np.ndarray, calib: Calibration) -> np.ndarray:
    """Mask of the points that the camera sees: in front of it, and inside the image.

    The rule by which KITTI's own cropped clouds are cut: KITTI's projection (divided by the depth from camera 2, which
    OpenPCDet leaves out), 0 <= u < columns, 0 <= v < rows.

    Args:
        pts_rect: (N, 3) rectified camera frame.
        img_shape: (rows, columns).
        calib: ``Calibration`` of the frame.

    Returns:
        (N,) bool.
    """
    return _is_seen(pts_rect, img_shape, calib.P2)


def lidar_fov_flag(points: np.ndarray, img_shape: tuple[int, int] | np.ndarray, calib: Calibration) -> np.ndarray:
    """``fov_flag`` of points (N, 3+) of the LiDAR frame, in one step."""
    return _is_seen(points, img_shape, calib.lidar_to_image_matrix)


def _is_seen(points: np.ndarray, img_shape: tuple[int, int] | np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(N,) bool: which points a (3, 4) projection puts in front of the camera and inside the image."""
    x, y, z = (points[:, i].astype(np.float64) for i in range(3))  # by column: three times faster than a product
    depth = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3]
    seen = depth > 0
    front = np.flatnonzero(seen)
    x, y, z, depth = x[front], y[front], z[front], depth[front]
    for row, size in zip(matrix, (img_shape[1], img_shape[0]), strict=False):
        pixel = (row[0] * x + row[1] * y + row[2] * z + row[3]) / depth
        seen[front] &= (pixel >= 0) & (pixel < size)
    return seen


def read_road_plane(path: str | Path) -> np.ndarray:
    """(4,) float32 [a, b, c, d], ax + by + cz + d = 0 in the rectified camera frame, b <= 0, |(a, b, c)| = 1.

    Raises:
        DataError: the file is not text, its fourth line is not four numbers, or they are no plane below the camera.
    """
    try:
        lines = read_text(path).splitlines()
    except TextFileError as error:
        raise DataError(str(error)) from None
    try:
        plane = np.array(lines[3].split(), dtype=np.float64)
        if plane.shape != (4,) or not np.isfinite(plane).all():
            raise ValueError
    except (IndexError, ValueError):
        raise DataError(f"{path}: line 4 must hold the four numbers of a plane") from None
    if not plane[1]:
        raise DataError(f"{path}: line 4 must hold a plane that is not upright, got {lines[3]!r}")
    plane = -plane if plane[1] > 0 else plane
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        plane = (plane / np.linalg.norm(plane[:3])).astype(np.float32)
    if not np.isfinite(plane).all() or not 0.999 < np.linalg.norm(plane[:3].astype(np.float64)) < 1.001:
        raise DataError(f"{path}: line 4 must hold a plane in the range of float32, got {lines[3]!r}")
    return plane


def write_result_file(path: str | Path, anno: dict) -> None:
    """Writes the results of a frame in KITTI's format, one object a line; an empty file if there are none.

    Args:
        path: the file.
        anno: ``name`` (N,), ``alpha`` (N,), ``bbox`` (N, 4), ``dimensions`` (N, 3) [l, h, w], ``location`` (N, 3),
            ``rotation_y`` (N,), ``score`` (N,).
    """
    columns = np.column_stack(
        [
            anno["alpha"],
            anno["bbox"],
            anno["dimensions"][:, [1, 2, 0]],
            anno["location"],
            anno["rotation_y"],
            anno["score"],
        ]
    )
    lines = [
        f"{name} -1 -1 " + " ".join(f"{value:.4f}" for value in row) + "\n"
        for name, row in zip(anno["name"], columns.tolist(), strict=True)
    ]
    Path(path).write_text("".join(lines))
