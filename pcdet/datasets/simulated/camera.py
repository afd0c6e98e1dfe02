"""The colour camera: a calibration of KITTI's shape, its text form and projections.

The values are this simulator's own, close to those of the real car: 0.54 m stereo baseline, camera 0.27 m before and
0.08 m below the lidar, rotations of up to one degree between lidar, camera and rectified frame. All arithmetic is
written out by component: small matrix products by a threaded BLAS may differ in the last bit from run to run.
"""

from __future__ import annotations

import numpy as np

IMAGE_WIDTH, IMAGE_HEIGHT = 1242, 375  # pixels
FOCAL, CENTRE_U, CENTRE_V = 721.0, 609.5, 173.0  # pixels
BASELINES = (0.0, -0.54, 0.06, -0.48)  # metres, cameras 0..3 along the rectified x axis
NEAR_PLANE = 0.1  # metres; box corners nearer than this are projected as if on it


def _rotation(roll: float, pitch: float, yaw: float) -> np.ndarray:
    (a, b, c), (d, e, f) = np.cos([roll, pitch, yaw]), np.sin([roll, pitch, yaw])
    about_x = np.array([[1, 0, 0], [0, a, -d], [0, d, a]])
    about_y = np.array([[b, 0, e], [0, 1, 0], [-e, 0, b]])
    about_z = np.array([[c, -f, 0], [f, c, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


AXES = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])  # x forward, y left, z up -> x right, y down, z
P = [np.array([[FOCAL, 0, CENTRE_U, FOCAL * b], [0, FOCAL, CENTRE_V, 0], [0, 0, 1, 0.0]]) for b in BASELINES]
R0_RECT = _rotation(0.004, -0.008, 0.009)
TR_VELO_TO_CAM = np.column_stack([_rotation(0.011, 0.003, -0.007) @ AXES, [-0.005, -0.075, -0.27]])
TR_IMU_TO_VELO = np.column_stack([_rotation(0.014, 0.002, -0.001), [-0.81, 0.32, -0.8]])


def calibration_text() -> str:
    """A KITTI calib file: seven named rows of numbers and an empty last line."""
    rows = [(f"P{i}", matrix) for i, matrix in enumerate(P)]
    rows += [("R0_rect", R0_RECT), ("Tr_velo_to_cam", TR_VELO_TO_CAM), ("Tr_imu_to_velo", TR_IMU_TO_VELO)]
    return "".join(f"{name}: {' '.join(f'{v:.12e}' for v in matrix.ravel())}\n" for name, matrix in rows) + "\n"


def _affine(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N, 3) points times a (3, 3) or (3, 4) matrix."""
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    shift = matrix[:, 3] if matrix.shape[1] == 4 else np.zeros(3)
    return np.stack([r[0] * x + r[1] * y + r[2] * z + t for r, t in zip(matrix, shift, strict=True)], axis=1)


def lidar_to_rect(points: np.ndarray) -> np.ndarray:
    """(N, 3) points of the LiDAR frame in the rectified frame of camera 0, metres."""
    return _affine(R0_RECT, _affine(TR_VELO_TO_CAM, points))


def rect_to_lidar(points: np.ndarray) -> np.ndarray:
    """The inverse of :func:`lidar_to_rect`."""
    unrectified = _affine(R0_RECT.T, points) - TR_VELO_TO_CAM[:, 3]
    return _affine(TR_VELO_TO_CAM[:, :3].T, unrectified)


def project(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of rectified points in the left colour camera.

    Args:
        points: (N, 3) rectified frame; those nearer than ``NEAR_PLANE`` are put onto it.

    Returns:
        (N, 2) pixels [u, v], and (N,) depths before that.
    """
    depth = points[:, 2]
    image = _affine(P[2], np.column_stack([points[:, :2], np.maximum(depth, NEAR_PLANE)]))
    return image[:, :2] / image[:, 2:], depth


def in_view(points: np.ndarray) -> np.ndarray:
    """(N,) whether points of the LiDAR frame fall into the image."""
    pixels, depth = project(lidar_to_rect(points))
    u, v = pixels.T
    return (u >= 0) & (u < IMAGE_WIDTH) & (v >= 0) & (v < IMAGE_HEIGHT) & (depth >= NEAR_PLANE)
