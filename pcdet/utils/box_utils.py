"""Geometry of 3D boxes: corners, frames, ranges and axis-aligned overlaps, for numpy arrays and torch tensors.

A LiDAR box is [x, y, z, dx, dy, dz, heading] in metres and radians: x forward, y left, z up, (x, y, z) the geometric
centre, dx along the heading, heading 0 along +x and counter-clockwise. A KITTI camera box is [x, y, z, l, h, w, ry] in
the rectified camera frame: x right, y down, z forward, (x, y, z) the centre of the bottom face. Trailing columns (such
as velocities and class ids) are carried along where a function says so. Function names are OpenPCDet's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import torch

Array = TypeVar("Array", np.ndarray, torch.Tensor)

# Signs of the eight corners along dx, dy, dz: the bottom face first, then the top face in the same order.
CORNER_SIGNS = np.array(
    [[1, 1, -1], [1, -1, -1], [-1, -1, -1], [-1, 1, -1], [1, 1, 1], [1, -1, 1], [-1, -1, 1], [-1, 1, 1]],
    dtype=np.float64,
)
POINT_MARGIN = 1e-2  # metres in x and y; what OpenPCDet's CPU test of points in boxes allows
# A map of the ground tells which points are near boxes, where there are enough of both to be worth it.
CELL, MAX_CELLS = 0.5, 1 << 22  # metres, and cells of a map
FEW_BOXES, FEW_POINTS = 4, 10_000
FAR_AWAY = 1e5  # metres, from where a cell is no longer large beside the steps of float32


def _to_tensor(values: Array) -> tuple[torch.Tensor, bool]:
    """Returns the values as a tensor of the same precision, and whether they came as numpy."""
    if isinstance(values, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(values)), True
    return values, False


def _check_boxes(boxes: Array, columns: int, layout: str) -> None:
    if boxes.ndim != 2 or boxes.shape[1] < columns:
        raise ValueError(f"boxes must have shape (N, {columns}+) {layout}, got {list(boxes.shape)}")


def _check_lidar_boxes(boxes: Array) -> None:
    _check_boxes(boxes, 7, "[x, y, z, dx, dy, dz, heading]")


def in_hull(points: np.ndarray, hull: np.ndarray) -> np.ndarray:
    """Mask of the points inside the convex hull of a set of points.

    Args:
        points: (N, 3).
        hull: (M, 3) points that span the hull, for instance the corners of a box. A flat set contains nothing.

    Returns:
        (N,) bool.
    """
    from scipy.spatial import Delaunay, QhullError

    try:
        return Delaunay(hull).find_simplex(points) >= 0
    except QhullError:
        return np.zeros(points.shape[0], dtype=bool)


def boxes_to_corners_3d(boxes3d: Array) -> Array:
    """Eight corners of every box.

    ::

            7 -------- 4
           /|         /|
          6 -------- 5 .
          | |        | |
          . 3 -------- 0
          |/         |/
          2 -------- 1

    Args:
        boxes3d: (M, 7+) LiDAR boxes; further columns are ignored.

    Returns:
        (M, 8, 3), the signs of (dx, dy, dz) in the order of ``CORNER_SIGNS``.
    """
    _check_lidar_boxes(boxes3d)
    boxes, is_numpy = _to_tensor(boxes3d)
    signs = boxes.new_tensor(CORNER_SIGNS / 2)
    local = boxes[:, None, 3:6] * signs[None]
    cos, sin = torch.cos(boxes[:, 6:7]), torch.sin(boxes[:, 6:7])
    x = local[..., 0] * cos - local[..., 1] * sin
    y = local[..., 0] * sin + local[..., 1] * cos
    corners = torch.stack((x, y, local[..., 2]), dim=-1) + boxes[:, None, :3]
    return corners.numpy() if is_numpy else corners


def mask_boxes_outside_range_numpy(
    boxes: np.ndarray, limit_range: np.ndarray, min_num_corners: int = 1, use_center_to_filter: bool = True
) -> np.ndarray:
    """Mask of the boxes to keep: True where the box lies in the range.

    Args:
        boxes: (M, 7+) LiDAR boxes.
        limit_range: (6,) [x_min, y_min, z_min, x_max, y_max, z_max], both ends included.
        min_num_corners: how many of the eight corners must lie in the range in x and y (without the centre rule).
        use_center_to_filter: keep a box if its centre lies in the range in x, y and z.

    Returns:
        (M,) bool.
    """
    _check_lidar_boxes(boxes)
    limit_range = np.asarray(limit_range)
    if use_center_to_filter:
        return np.all((boxes[:, :3] >= limit_range[:3]) & (boxes[:, :3] <= limit_range[3:6]), axis=1)
    corners = boxes_to_corners_3d(boxes[:, :7])[:, :, :2]
    inside = np.all((corners >= limit_range[:2]) & (corners <= limit_range[3:5]), axis=2)
    return inside.sum(axis=1) >= min_num_corners


def points_in_boxes_mask(points: np.ndarray, boxes3d: np.ndarray, margin: float = POINT_MARGIN) -> np.ndarray:
    """Mask of the points that lie in each box; the vectorised form of the CPU op for few boxes.

    Args:
        points: (N, 3+).
        boxes3d: (M, 7+) LiDAR boxes.
        margin: metres by which the sides are moved out in x and y (strict there); z is inclusive, without a margin.

    Returns:
        (M, N) bool.
    """
    masks = np.zeros((len(boxes3d), len(points)), dtype=bool)
    for mask, inside in zip(masks, _rows_in_boxes(points, boxes3d, margin), strict=True):
        mask[inside] = True
    return masks


def points_in_any_box(points: np.ndarray, boxes3d: np.ndarray, margin: float = POINT_MARGIN) -> np.ndarray:
    """(N,) bool: which points (N, 3+) lie in one of the boxes (M, 7+), as ``points_in_boxes_mask`` counts them."""
    found = np.zeros(len(points), dtype=bool)
    for inside in _rows_in_boxes(points, boxes3d, margin):
        found[inside] = True
    return found


def _rows_in_boxes(points: np.ndarray, boxes3d: np.ndarray, margin: float) -> Iterator[np.ndarray]:
    """For each box the rows of the points in it."""
    _check_lidar_boxes(boxes3d)
    boxes = np.asarray(boxes3d, dtype=np.float64)[:, :7]
    reaches = np.hypot(boxes[:, 3], boxes[:, 4]) / 2 + 2 * margin
    close = _rows_close_to_boxes(points, boxes, reaches)
    x, y = points[close, 0], points[close, 1]
    for box, reach in zip(boxes, reaches, strict=True):
        near = close[(np.abs(x - box[0]) <= reach) & (np.abs(y - box[1]) <= reach)]  # only these few are rotated
        offset = points[near, :3].astype(np.float64) - box[:3]
        cos, sin = np.cos(box[6]), np.sin(box[6])
        along = offset[:, 0] * cos + offset[:, 1] * sin
        across = offset[:, 1] * cos - offset[:, 0] * sin
        yield near[
            (np.abs(along) < box[3] / 2 + margin)
            & (np.abs(across) < box[4] / 2 + margin)
            & (np.abs(offset[:, 2]) <= box[5] / 2)
        ]


def _rows_close_to_boxes(points: np.ndarray, boxes: np.ndarray, reaches: np.ndarray) -> np.ndarray:
    """Rows of the points in the squares about the boxes, and of some more, in their order.

    One look into a map of the ground, whatever the number of boxes: of ten sweeps, most points are near none.

    Args:
        points: (N, 3+).
        boxes: (M, 7).
        reaches: (M,) half the side of each box's square, metres.
    """
    if len(boxes) < FEW_BOXES or len(points) < FEW_POINTS:
        return np.arange(len(points))
    reaches = reaches + CELL  # more than rounding can move a point
    low, high = boxes[:, :2] - reaches[:, None], boxes[:, :2] + reaches[:, None]
    origin, extent = low.min(axis=0), high.max(axis=0) - low.min(axis=0)
    if not np.abs(np.append(origin, extent)).max() < FAR_AWAY or np.prod(extent / CELL + 3) > MAX_CELLS:
        return np.arange(len(points))
    is_close = np.zeros((extent / CELL + 3).astype(int), dtype=bool)  # with a rim for what lies outside
    squares = zip(((low - origin) / CELL).astype(int), ((high - origin) / CELL).astype(int), strict=True)
    for (left, bottom), (right, top) in squares:
        is_close[left + 1 : right + 2, bottom + 1 : top + 2] = True
    row, column = (_cells(points[:, axis], float(origin[axis]), is_close.shape[axis]) for axis in (0, 1))
    return np.flatnonzero(is_close.ravel().take(row * is_close.shape[1] + column))


def _cells(values: np.ndarray, origin: float, number: int) -> np.ndarray:
    """Cells of a map's axis, the first and the last of which are its rim; a value that is not finite is on the rim."""
    cells = np.clip((values - origin) * (1 / CELL) + 1, 0, number - 1)
    return np.nan_to_num(cells, copy=False).astype(np.int32)


def remove_points_in_boxes3d(points: Array, boxes3d: Array) -> Array:
    """The points that lie in none of the boxes, in their order.

    Args:
        points: (N, 3+).
        boxes3d: (M, 7+) LiDAR boxes.

    Returns:
        (K, 3+), of the type of ``points``.
    """
    _check_lidar_boxes(boxes3d)
    if isinstance(points, np.ndarray):
        boxes = boxes3d if isinstance(boxes3d, np.ndarray) else boxes3d.detach().cpu().numpy()
        return points[~points_in_any_box(points, boxes)]
    boxes = boxes3d if isinstance(boxes3d, np.ndarray) else boxes3d.detach().cpu().numpy()
    inside = points_in_any_box(points.detach().cpu().numpy(), boxes)
    return points[torch.from_numpy(~inside).to(points.device)]


def boxes3d_kitti_camera_to_lidar(boxes3d_camera: np.ndarray, calib) -> np.ndarray:
    """LiDAR boxes of KITTI camera boxes.

    Args:
        boxes3d_camera: (N, 7) [x, y, z, l, h, w, ry], rectified camera frame, bottom centre.
        calib: ``Calibration`` of the frame.

    Returns:
        (N, 7) [x, y, z, dx, dy, dz, heading], heading not wrapped.
    """
    _check_boxes(boxes3d_camera, 7, "[x, y, z, l, h, w, ry]")
    length, height, width, ry = (boxes3d_camera[:, i : i + 1] for i in range(3, 7))
    centre = calib.rect_to_lidar(boxes3d_camera[:, :3])
    centre[:, 2] += height[:, 0] / 2
    return np.concatenate([centre, length, width, height, -(ry + np.pi / 2)], axis=-1)


def boxes3d_lidar_to_kitti_camera(boxes3d_lidar: np.ndarray, calib) -> np.ndarray:
    """KITTI camera boxes of LiDAR boxes; the inverse of ``boxes3d_kitti_camera_to_lidar``.

    Args:
        boxes3d_lidar: (N, 7) [x, y, z, dx, dy, dz, heading].
        calib: ``Calibration`` of the frame.

    Returns:
        (N, 7) [x, y, z, l, h, w, ry], rectified camera frame, bottom centre, ry not wrapped.
    """
    _check_lidar_boxes(boxes3d_lidar)
    length, width, height, heading = (boxes3d_lidar[:, i : i + 1] for i in range(3, 7))
    bottom = boxes3d_lidar[:, :3].copy()
    bottom[:, 2] -= height[:, 0] / 2
    return np.concatenate([calib.lidar_to_rect(bottom), length, height, width, -heading - np.pi / 2], axis=-1)


def boxes3d_kitti_fakelidar_to_lidar(boxes3d_lidar: Array) -> Array:
    """LiDAR boxes of "fake LiDAR" boxes [x, y, z, w, l, h, r], z at the bottom and r as the camera's ry, (N, 7)."""
    _check_lidar_boxes(boxes3d_lidar)
    x, y, z, w, l, h, r = (boxes3d_lidar[:, i : i + 1] for i in range(7))  # noqa: E741
    return _concatenate([x, y, z + h / 2, l, w, h, -(r + np.pi / 2)])


def boxes3d_kitti_lidar_to_fakelidar(boxes3d_lidar: Array) -> Array:
    """The inverse of ``boxes3d_kitti_fakelidar_to_lidar``, (N, 7)."""
    _check_lidar_boxes(boxes3d_lidar)
    x, y, z, dx, dy, dz, heading = (boxes3d_lidar[:, i : i + 1] for i in range(7))
    return _concatenate([x, y, z - dz / 2, dy, dx, dz, -heading - np.pi / 2])


def _concatenate(columns: list[Array]) -> Array:
    if isinstance(columns[0], np.ndarray):
        return np.concatenate(columns, axis=-1)
    return torch.cat(columns, dim=-1)


def enlarge_box3d(boxes3d: Array, extra_width: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Array:
    """Copies of the boxes with their full sizes enlarged, centres kept.

    Args:
        boxes3d: (N, 7+) LiDAR boxes.
        extra_width: metres added to dx, dy and dz (half on each side).

    Returns:
        (N, 7+); a numpy array or a tensor, as given.
    """
    _check_lidar_boxes(boxes3d)
    if isinstance(boxes3d, np.ndarray):
        larger = boxes3d.copy()
        larger[:, 3:6] += np.asarray(extra_width, dtype=boxes3d.dtype)
        return larger
    larger = boxes3d.clone()
    larger[:, 3:6] += boxes3d.new_tensor(extra_width)
    return larger


def boxes3d_to_corners3d_kitti_camera(boxes3d: np.ndarray, bottom_center: bool = True) -> np.ndarray:
    """Eight corners of KITTI camera boxes.

    Args:
        boxes3d: (N, 7) [x, y, z, l, h, w, ry], rectified camera frame.
        bottom_center: whether (x, y, z) is the centre of the bottom face or of the whole box.

    Returns:
        (N, 8, 3): the bottom face first (y is down, so y is larger there), then the top face.
    """
    _check_boxes(boxes3d, 7, "[x, y, z, l, h, w, ry]")
    length, height, width, ry = (boxes3d[:, i : i + 1] for i in range(3, 7))
    x = length * np.array([1, 1, -1, -1, 1, 1, -1, -1], dtype=boxes3d.dtype) / 2
    z = width * np.array([1, -1, -1, 1, 1, -1, -1, 1], dtype=boxes3d.dtype) / 2
    y = height * np.array([0, 0, 0, 0, -1, -1, -1, -1], dtype=boxes3d.dtype)
    if not bottom_center:
        y = y + height / 2
    cos, sin = np.cos(ry), np.sin(ry)
    corners = np.stack([x * cos + z * sin, y, z * cos - x * sin], axis=-1)
    return corners + boxes3d[:, None, :3]


def boxes3d_kitti_camera_to_imageboxes(
    boxes3d: np.ndarray, calib, image_shape: tuple[int, int] | np.ndarray | None = None
) -> np.ndarray:
    """Image boxes that enclose the projected corners.

    Args:
        boxes3d: (N, 7) [x, y, z, l, h, w, ry], rectified camera frame, bottom centre.
        calib: ``Calibration`` of the frame.
        image_shape: (height, width) in pixels to clip to, or None for no clipping.

    Returns:
        (N, 4) [x1, y1, x2, y2] in pixels.
    """
    corners = boxes3d_to_corners3d_kitti_camera(boxes3d)
    pixels, _ = calib.rect_to_img(corners.reshape(-1, 3))
    pixels = pixels.reshape(-1, 8, 2)
    boxes = np.concatenate([pixels.min(axis=1), pixels.max(axis=1)], axis=1)
    if image_shape is not None:
        height, width = int(image_shape[0]), int(image_shape[1])
        boxes = np.clip(boxes, 0, np.array([width - 1, height - 1, width - 1, height - 1]))
    return boxes


def boxes_iou_normal(boxes_a: torch.Tensor, boxes_b: torch.Tensor) -> torch.Tensor:
    """Overlap (intersection over union) of axis-aligned 2D boxes.

    Args:
        boxes_a: (N, 4) [x1, y1, x2, y2].
        boxes_b: (M, 4), same dtype and device.

    Returns:
        (N, M); 0 where both boxes are empty.
    """
    for boxes in (boxes_a, boxes_b):
        _check_boxes(boxes, 4, "[x1, y1, x2, y2]")
    low = torch.maximum(boxes_a[:, None, :2], boxes_b[None, :, :2])
    high = torch.minimum(boxes_a[:, None, 2:4], boxes_b[None, :, 2:4])
    overlap = (high - low).clamp(min=0).prod(dim=-1)
    area_a = (boxes_a[:, 2] - boxes_a[:, 0]) * (boxes_a[:, 3] - boxes_a[:, 1])
    area_b = (boxes_b[:, 2] - boxes_b[:, 0]) * (boxes_b[:, 3] - boxes_b[:, 1])
    return overlap / (area_a[:, None] + area_b[None] - overlap).clamp(min=1e-6)


def boxes3d_lidar_to_aligned_bev_boxes(boxes3d: torch.Tensor) -> torch.Tensor:
    """Axis-aligned BEV boxes with the heading rounded to the nearest axis.

    Args:
        boxes3d: (N, 7+) LiDAR boxes.

    Returns:
        (N, 4) [x1, y1, x2, y2] in metres; dx and dy change places where the heading is nearer to the y axis.
    """
    _check_lidar_boxes(boxes3d)
    heading = boxes3d[:, 6]
    folded = torch.abs(heading - torch.floor(heading / np.pi + 0.5) * np.pi)
    sizes = torch.where(folded[:, None] < np.pi / 4, boxes3d[:, 3:5], boxes3d[:, 3:5].flip(1))
    return torch.cat((boxes3d[:, :2] - sizes / 2, boxes3d[:, :2] + sizes / 2), dim=1)


def boxes3d_nearest_bev_iou(boxes_a: torch.Tensor, boxes_b: torch.Tensor) -> torch.Tensor:
    """BEV overlap of boxes whose headings are rounded to the nearest axis; how anchors are matched to boxes.

    Args:
        boxes_a: (N, 7+) LiDAR boxes.
        boxes_b: (M, 7+) LiDAR boxes, same dtype and device.

    Returns:
        (N, M) in [0, 1].
    """
    return boxes_iou_normal(boxes3d_lidar_to_aligned_bev_boxes(boxes_a), boxes3d_lidar_to_aligned_bev_boxes(boxes_b))
