"""KITTI labels of a scene, with occlusion and truncation computed instead of guessed.

Occlusion compares the rays that met a body with those it would fill alone. Truncation is the share of its projected box
that lies outside the image. A body of which too little came back to be found (fewer than ``MIN_POINTS`` points) becomes
a ``DontCare`` region, and a body outside the view is left out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pcdet.datasets.simulated import camera
from pcdet.datasets.simulated.scene import Ground, Scene
from pcdet.datasets.simulated.sensor import Scan

VISIBLE_SHARES = (0.8, 0.45, 0.15)  # at least this share of the rays: occlusion 0, 1, 2; less: 3 ("unknown")
MIN_POINTS = 5  # as gt sampling's filter_by_min_points asks for
MAX_TRUNCATION = 0.9  # more of it outside the image: DontCare


class Label(NamedTuple):
    """One line of a label file; fields, frames and units as in the KITTI development kit.

    ``bbox`` is (4,) pixels [left, top, right, bottom], ``dimensions`` (3,) metres [h, w, l], ``location`` (3,) metres
    of the bottom centre in the rectified camera frame.
    """

    name: str
    truncated: float
    occluded: int
    alpha: float
    bbox: np.ndarray
    dimensions: np.ndarray
    location: np.ndarray
    rotation_y: float

    def line(self) -> str:
        """The text of the line, two decimals as KITTI writes them."""
        numbers = [self.alpha, *self.bbox, *self.dimensions, *self.location, self.rotation_y]
        if self.name == "DontCare":
            box = " ".join(f"{v:.2f}" for v in self.bbox)
            return f"DontCare -1 -1 -10 {box} -1 -1 -1 -1000 -1000 -1000 -10"
        return f"{self.name} {self.truncated:.2f} {self.occluded} {' '.join(f'{v:.2f}' for v in numbers)}"


def occlusion_level(seen: int, alone: int) -> int:
    """KITTI's occlusion state: 0 fully visible, 1 partly, 2 largely occluded, 3 unknown."""
    share = seen / max(alone, 1)
    return next((level for level, least in enumerate(VISIBLE_SHARES) if share >= least), 3)


def wrap(angle: float) -> float:
    """The same angle in [-pi, pi)."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def box_corners(location: np.ndarray, dimensions: np.ndarray, rotation_y: float) -> np.ndarray:
    """(8, 3) corners of a label's box in the rectified camera frame, metres."""
    h, w, length = dimensions
    along = np.array([1, 1, -1, -1, 1, 1, -1, -1]) * 0.5 * length
    across = np.array([1, -1, -1, 1, 1, -1, -1, 1]) * 0.5 * w
    up = np.array([0, 0, 0, 0, -h, -h, -h, -h])
    cos, sin = np.cos(rotation_y), np.sin(rotation_y)
    return np.stack([cos * along + sin * across, up, cos * across - sin * along], axis=1) + location


def image_box(corners: np.ndarray) -> tuple[np.ndarray, float]:
    """The projected box clipped to the image and the share of its area that was clipped away.

    Args:
        corners: (8, 3) rectified camera frame.

    Returns:
        (4,) pixels [left, top, right, bottom], and the truncation in [0, 1]; 1 when nothing is in view.
    """
    pixels, depth = camera.project(corners)
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    limit = np.array([camera.IMAGE_WIDTH - 1, camera.IMAGE_HEIGHT - 1])
    clipped_low, clipped_high = np.clip(low, 0, limit), np.clip(high, 0, limit)
    kept, whole = np.prod(clipped_high - clipped_low), np.prod(high - low)
    truncation = 1.0 - kept / whole if whole > 0 and depth.max() > camera.NEAR_PLANE else 1.0
    return np.concatenate([clipped_low, clipped_high]), float(truncation)


def make_labels(scene: Scene, scan: Scan) -> list[Label]:
    """Labels of a scene as the scan shows it; DontCare regions come last, as in KITTI.

    Args:
        scene: the truth.
        scan: its points (cut to the view) with their owners and the ray counts.

    Returns:
        The lines of the label file.
    """
    returned = np.bincount(scan.owner[scan.owner >= 0], minlength=len(scene.bodies))
    objects, ignored = [], []
    for index, body in enumerate(scene.bodies):
        if body.label is None or scan.alone[index] == 0:
            continue
        label = _label(body.label, body.box, occlusion_level(scan.seen[index], scan.alone[index]))
        if label.truncated >= 1.0:
            continue
        if returned[index] < MIN_POINTS or label.truncated > MAX_TRUNCATION:
            ignored.append(label._replace(name="DontCare"))
        else:
            objects.append(label)
    return objects + ignored


def _label(name: str, box: np.ndarray, occluded: int) -> Label:
    length, width, height = box[3:6]
    location = camera.lidar_to_rect((box[:3] - [0.0, 0.0, 0.5 * height])[None])[0]
    rotation_y = wrap(-box[6] - 0.5 * np.pi)
    dimensions = np.array([height, width, length])
    bbox, truncated = image_box(box_corners(location, dimensions, rotation_y))
    alpha = wrap(rotation_y - np.arctan2(location[0], location[2]))
    return Label(name, truncated, occluded, alpha, bbox, dimensions, location, rotation_y)


def road_plane(ground: Ground) -> np.ndarray:
    """(4,) the ground [a, b, c, d] with a*x + b*y + c*z + d = 0 in the rectified camera frame, b < 0, unit normal."""
    spots = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    corners = camera.lidar_to_rect(np.array([[x, y, ground.z(x, y)] for x, y in spots]))
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    normal *= -np.sign(normal[1]) / np.sqrt((normal**2).sum())
    return np.append(normal, -(normal * corners[0]).sum())


def plane_text(plane: np.ndarray) -> str:
    """A KITTI planes file."""
    return "# Matrix\nWIDTH 4\nHEIGHT 1\n" + " ".join(f"{v:.6e}" for v in plane) + " \n"
