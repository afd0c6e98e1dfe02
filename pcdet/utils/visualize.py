"""Pictures of point clouds and boxes as PNG files, drawn without a display.

matplotlib is an optional package and is imported inside the functions; figures are made without pyplot, so no window,
no global state and no chosen backend is involved.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcdet.utils.box_utils import (
    boxes3d_kitti_camera_to_lidar,
    boxes3d_lidar_to_kitti_camera,
    boxes3d_to_corners3d_kitti_camera,
    boxes_to_corners_3d,
)
from pcdet.utils.figures import new_figure, save_figure
from pcdet.utils.palette import CLASSES, FOUND, OTHER_CLASSES, TRUTH

NEAR_PLANE = 0.1  # metres; edges of boxes are cut there before they are projected
EDGES = [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
POINTS_DRAWN = 200_000  # a larger cloud is thinned evenly: more points than pixels show nothing


@dataclass(frozen=True)
class Boxes:
    """Boxes to draw.

    Attributes:
        boxes: (M, 7 or more) [x, y, z, dx, dy, dz, heading, vx, vy, ...], LiDAR frame, metres, radians, seconds.
        names: (M,) class names, or None.
        scores: (M,) 0..1, or None.
    """

    boxes: np.ndarray
    names: Sequence[str] | None = None
    scores: np.ndarray | None = None

    @classmethod
    def of(cls, boxes: Boxes | np.ndarray | None) -> Boxes:
        """``boxes`` as this class; None becomes no boxes.

        Raises:
            ValueError: the array is not (M, 7 or more), or names or scores have another length.
        """
        if not isinstance(boxes, Boxes):
            boxes = cls(np.zeros((0, 7)) if boxes is None else np.asarray(boxes))
        shape = list(boxes.boxes.shape)
        if len(shape) != 2 or shape[1] < 7:
            raise ValueError(f"boxes must have shape (M, 7 or more) [x, y, z, dx, dy, dz, heading], got {shape}")
        for what, values in (("names", boxes.names), ("scores", boxes.scores)):
            if values is not None and len(values) != shape[0]:
                raise ValueError(f"{what} must have one entry for each of {shape[0]} boxes, got {len(values)}")
        return boxes

    def caption(self, index: int) -> str:
        """Class and score of one box, as far as they are known."""
        parts = [] if self.names is None else [str(self.names[index])]
        parts += [] if self.scores is None else [f"{self.scores[index]:.2f}"]
        return " ".join(parts)


def boxes_of_labels(objects: Sequence, calib, class_names: Sequence[str]) -> Boxes:
    """LiDAR-frame boxes of KITTI label objects.

    Args:
        objects: ``Object3d`` of the frame.
        calib: ``Calibration`` of the frame.
        class_names: the others are left out.
    """
    kept = [o for o in objects if o.cls_type in class_names]
    in_camera = np.array([[*o.loc, o.l, o.h, o.w, o.ry] for o in kept], float).reshape(-1, 7)
    return Boxes(boxes3d_kitti_camera_to_lidar(in_camera, calib), [o.cls_type for o in kept])


def read_image(path: str | Path) -> np.ndarray:
    """(H, W, 3) picture of a PNG file, float 0..1."""
    try:
        from matplotlib.image import imread
    except ImportError as error:
        raise ImportError("reading pictures needs matplotlib: pip install matplotlib") from error
    return imread(path)[..., :3]


def draw_bev(
    points: np.ndarray,
    gt_boxes: Boxes | np.ndarray | None,
    pred_boxes: Boxes | np.ndarray | None,
    path: str | Path,
    *,
    limits: Sequence[float] | None = None,
    title: str = "",
) -> Path:
    """A bird's-eye view: points coloured by height, ground truth dashed green, predictions solid by class.

    x points up and y to the left, as seen by the driver; a line runs from each box's centre to its front. Where boxes
    have velocities (columns 7 and 8), a dotted line leads from the centre to where it will be in a second.

    Args:
        points: (N, 3 or more) x, y, z in metres, LiDAR frame.
        gt_boxes: the truth, or None.
        pred_boxes: detections, or None.
        path: PNG file to write; its folder is made if need be.
        limits: (6,) [x_min, y_min, z_min, x_max, y_max, z_max] to show; all points and boxes if None.
        title: text above the picture.

    Returns:
        ``path``.
    """
    points = _checked_points(points)
    gt, pred = Boxes.of(gt_boxes), Boxes.of(pred_boxes)
    low, high = _limits(points, gt, pred, limits)
    width, height = high[1] - low[1], high[0] - low[0]
    scale = 11.0 / max(width, height)
    figure = new_figure(max(width * scale, 3.0), max(height * scale, 3.0))
    axes = figure.add_subplot()
    points = points[:: max(1, len(points) // POINTS_DRAWN)]
    shade = np.clip(points[:, 2], -2.5, 1.5)
    axes.scatter(points[:, 1], points[:, 0], c=shade, s=0.6, cmap="Greys", vmin=-5.0, vmax=1.5, linewidths=0)
    for boxes, style in ((gt, "--"), (pred, "-")):
        _draw_ground_plan(axes, boxes, style)
    _legend(axes, gt, pred)
    axes.set_xlim(high[1], low[1])  # y grows to the left
    axes.set_ylim(low[0], high[0])
    axes.set_aspect("equal")
    axes.set_xlabel("y [m]")
    axes.set_ylabel("x [m]")
    axes.set_title(title)
    return save_figure(figure, path)


def draw_image(
    image: np.ndarray,
    calib,
    gt_boxes: Boxes | np.ndarray | None,
    pred_boxes: Boxes | np.ndarray | None,
    path: str | Path,
) -> Path:
    """A camera picture with the boxes' edges drawn into it.

    Args:
        image: (H, W, 3) uint8 or float 0..1.
        calib: ``Calibration`` of the frame.
        gt_boxes: the truth, or None.
        pred_boxes: detections, or None.
        path: PNG file to write, of the picture's size; its folder is made if need be.

    Returns:
        ``path``.
    """
    gt, pred = Boxes.of(gt_boxes), Boxes.of(pred_boxes)
    height, width = image.shape[:2]
    figure = new_figure(width / 100, height / 100)
    axes = figure.add_subplot()
    axes.set_position([0, 0, 1, 1])
    axes.imshow(image, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    for boxes, style in ((gt, "--"), (pred, "-")):
        colours = _colours(boxes, style)
        for index, corners in enumerate(_camera_corners(boxes, calib)):
            lines = [line for line in (_project_edge(corners[[a, b]], calib) for a, b in EDGES) if line is not None]
            for line in lines:
                axes.plot(line[:, 0], line[:, 1], style, color=colours[index], linewidth=1.2)
            if lines and style == "-":
                left, top = np.concatenate(lines).min(axis=0)
                place = np.clip([left, top - 3], [0, 10], [width - 1, height - 1])
                axes.text(*place, boxes.caption(index), color=colours[index], fontsize=6, clip_on=True)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.axis("off")
    return save_figure(figure, path)


def _checked_points(points: np.ndarray) -> np.ndarray:
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] < 3:
        raise ValueError(f"points must have shape (N, 3 or more) [x, y, z, ...], got {list(points.shape)}")
    return points


def _limits(points, gt: Boxes, pred: Boxes, limits) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corner [x, y] of what is shown; a square metre if there is nothing."""
    if limits is not None:
        return np.asarray(limits[:2], float), np.asarray(limits[3:5], float)
    spots = np.concatenate([points[:, :2], gt.boxes[:, :2], pred.boxes[:, :2], np.zeros((0, 2))])
    if not len(spots):
        spots = np.zeros((1, 2))
    return spots.min(axis=0) - 1.0, spots.max(axis=0) + 1.0


def _colours(boxes: Boxes, style: str) -> list[str]:
    if style == "--":
        return [TRUTH] * len(boxes.boxes)
    if boxes.names is None:
        return [FOUND] * len(boxes.boxes)
    return [CLASSES.get(n) or OTHER_CLASSES[zlib.crc32(n.encode()) % len(OTHER_CLASSES)] for n in boxes.names]


def _draw_ground_plan(axes, boxes: Boxes, style: str) -> None:
    if not len(boxes.boxes):
        return
    corners = boxes_to_corners_3d(np.asarray(boxes.boxes[:, :7], float))[:, :4, :2]
    front = corners[:, :2].mean(axis=1)
    for index, colour in enumerate(_colours(boxes, style)):
        outline = corners[index][[0, 1, 2, 3, 0]]
        axes.plot(outline[:, 1], outline[:, 0], style, color=colour, linewidth=1.2)
        centre = boxes.boxes[index, :2]
        axes.plot([centre[1], front[index, 1]], [centre[0], front[index, 0]], style, color=colour, linewidth=1.0)
        if boxes.boxes.shape[1] >= 9:
            soon = centre + boxes.boxes[index, 7:9]  # not a number, where a velocity is unknown, draws nothing
            axes.plot([centre[1], soon[1]], [centre[0], soon[0]], ":", color=colour, linewidth=1.0)
        if style == "-":
            spot = corners[index][corners[index][:, 0].argmax()]
            axes.text(spot[1], spot[0], boxes.caption(index), color=colour, fontsize=6, clip_on=True)


def _legend(axes, gt: Boxes, pred: Boxes) -> None:
    if len(gt.boxes):
        axes.plot([], [], "--", color=TRUTH, label="ground truth")
    shown = dict(zip(pred.names if pred.names is not None else [], _colours(pred, "-"), strict=False))
    for name, colour in sorted(shown.items()):
        axes.plot([], [], "-", color=colour, label=name)
    if len(gt.boxes) or shown:
        axes.legend(loc="upper right", fontsize=7)


def _camera_corners(boxes: Boxes, calib) -> np.ndarray:
    if not len(boxes.boxes):
        return np.zeros((0, 8, 3))
    in_camera = boxes3d_lidar_to_kitti_camera(np.asarray(boxes.boxes[:, :7], float), calib)
    return boxes3d_to_corners3d_kitti_camera(in_camera)


def _project_edge(ends: np.ndarray, calib) -> np.ndarray | None:
    """(2, 2) pixels of an edge, cut at the near plane; None if all of it lies behind."""
    depth = ends[:, 2]
    if depth.max() < NEAR_PLANE:
        return None
    if depth.min() < NEAR_PLANE:
        behind = int(depth.argmin())
        share = (NEAR_PLANE - depth[behind]) / (depth[1 - behind] - depth[behind])
        ends = ends.copy()
        ends[behind] += share * (ends[1 - behind] - ends[behind])
    return calib.rect_to_img(ends)[0]
