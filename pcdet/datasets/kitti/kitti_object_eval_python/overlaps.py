"""Overlaps of ground truth and detections in the image, on the ground and in space, in double precision.

Only pairs that can overlap are measured. The ground area that two turned rectangles share is an integral along the
edges of one of them in the frame of the other, clamped to its sides: no list of vertices, no sorting, no tolerance,
and a small error of a corner makes a small error of the area, also for boxes that touch or coincide.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pcdet.datasets.kitti.kitti_object_eval_python.objects import Objects

CHUNK = 1 << 20  # pairs looked at together; bounds the memory that crowded frames need


class Pairs(NamedTuple):
    """P pairs with their overlap, ordered by ``row``, then ``det``."""

    row: np.ndarray  # (P,) of the ground truth
    det: np.ndarray  # (P,) of the detections
    overlap: np.ndarray  # (P,)


def pairs_above(
    metric: str, gt: Objects, rows: np.ndarray, dt: Objects, *, over: float, of_detection: bool = False
) -> Pairs:
    """All pairs within one frame whose overlap exceeds ``over``.

    Args:
        metric: ``bbox``, ``bev`` or ``3d``.
        gt: the ground truth.
        rows: its rows that matter, ascending.
        dt: the detections.
        over: lowest overlap of interest, exclusive; at least 0.
        of_detection: overlap is the shared part of the detection instead of intersection over union.
    """
    measure = {"bbox": _image_overlap, "bev": _ground_overlap, "3d": _space_overlap}[metric]
    found = [Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for row, det in _same_frame(gt.frame[rows], dt.frame_offsets()):
        row = rows[row]
        if metric == "bbox":
            near = _touching(gt.bbox, row, dt.bbox, det)
        else:
            near = _touching(_ground_hull(gt), row, _ground_hull(dt), det)
        row, det = row[near], det[near]
        overlap = measure(gt, row, dt, det, of_detection)
        keep = overlap > over
        found.append(Pairs(row[keep], det[keep], overlap[keep]))
    return Pairs(*(np.concatenate(part) for part in zip(*found, strict=True)))


def _same_frame(row_frame: np.ndarray, offsets: np.ndarray):
    """Yields index arrays (row, det) of all pairs within a frame, at most about ``CHUNK`` of them at a time."""
    counts = np.diff(offsets)[row_frame]
    ends = np.cumsum(counts)
    first = 0
    while first < len(row_frame):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + CHUNK, side="right")))
        count = counts[first:last]
        row = np.repeat(np.arange(first, last), count)
        place = np.arange(len(row)) - np.repeat(ends[first:last] - count - done, count)
        yield row, offsets[row_frame[row]] + place
        first = last


def _touching(a: np.ndarray, row: np.ndarray, b: np.ndarray, det: np.ndarray) -> np.ndarray:
    """Which upright rectangles (x1, y1, x2, y2) share area."""
    near = np.minimum(a[row, 2], b[det, 2]) > np.maximum(a[row, 0], b[det, 0])
    return near & (np.minimum(a[row, 3], b[det, 3]) > np.maximum(a[row, 1], b[det, 1]))


def _ratio(shared: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole != 0)


def _image_overlap(gt: Objects, row: np.ndarray, dt: Objects, det: np.ndarray, of_detection: bool) -> np.ndarray:
    """Overlaps (P,) of image boxes, term for term as the devkit computes them."""
    a, b = dt.bbox[det].T, gt.bbox[row].T
    shared = (np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])) * (np.minimum(a[3], b[3]) - np.maximum(a[1], b[1]))
    area_a = (a[2] - a[0]) * (a[3] - a[1])
    if of_detection:
        return _ratio(shared, area_a)
    return _ratio(shared, area_a + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def _ground_hull(objects: Objects) -> np.ndarray:
    """Upright rectangles (N, 4) x1, z1, x2, z2 around the turned ground rectangles."""
    length, width = np.abs(objects.dimensions[:, 0]) / 2, np.abs(objects.dimensions[:, 2]) / 2
    cos, sin = np.abs(np.cos(objects.rotation_y)), np.abs(np.sin(objects.rotation_y))
    half = np.stack([length * cos + width * sin, length * sin + width * cos], axis=1)
    centre = objects.location[:, [0, 2]]
    return np.concatenate([centre - half, centre + half], axis=1)


def _ground_rectangles(objects: Objects, index: np.ndarray) -> np.ndarray:
    """(P, 5) x, z, length, width, rotation_y."""
    return np.column_stack(
        [objects.location[index][:, [0, 2]], objects.dimensions[index][:, [0, 2]], objects.rotation_y[index]]
    )


def _ground_overlap(gt: Objects, row: np.ndarray, dt: Objects, det: np.ndarray, of_detection: bool) -> np.ndarray:
    """Overlaps (P,) of ground rectangles."""
    a, b = _ground_rectangles(dt, det), _ground_rectangles(gt, row)
    shared = shared_area(a, b)
    area_a = a[:, 2] * a[:, 3]
    return _ratio(shared, area_a if of_detection else area_a + b[:, 2] * b[:, 3] - shared)


def _space_overlap(gt: Objects, row: np.ndarray, dt: Objects, det: np.ndarray, of_detection: bool) -> np.ndarray:
    """Overlaps (P,) of boxes that stand on the ground plane's normal; y points down and is the bottom face's."""
    bottom_a, bottom_b = dt.location[det, 1], gt.location[row, 1]
    top = np.maximum(bottom_a - dt.dimensions[det, 1], bottom_b - gt.dimensions[row, 1])
    height = np.maximum(0.0, np.minimum(bottom_a, bottom_b) - top)
    shared = height * shared_area(_ground_rectangles(dt, det), _ground_rectangles(gt, row))
    volume_a = dt.dimensions[det].prod(axis=1)
    return _ratio(shared, volume_a if of_detection else volume_a + gt.dimensions[row].prod(axis=1) - shared)


def shared_area(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Area shared by each pair of turned rectangles.

    Args:
        a: (P, 5) x, z, length, width, rotation_y: at angle 0 the length lies along x, and positive angles turn x
            towards -z (KITTI's camera frame).
        b: (P, 5) likewise.

    Returns:
        (P,) square metres. A rectangle with exactly one negative side has no inside and shares nothing.
    """
    half_length, half_width = np.abs(a[:, 2]) / 2, np.abs(a[:, 3]) / 2
    area = np.zeros(len(a))
    corners = _corners_in_frame(b, a)
    for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
        area += _area_below_edge(start, end, half_length, half_width)
    area[(a[:, 2] * a[:, 3] < 0) | (b[:, 2] * b[:, 3] < 0)] = 0
    return np.abs(area)


def _corners_in_frame(b: np.ndarray, a: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The four corners of ``b``, in order, seen from the centre of ``a`` along its length and width."""
    cos, sin = np.cos(a[:, 4]), np.sin(a[:, 4])
    dx, dz = b[:, 0] - a[:, 0], b[:, 1] - a[:, 1]
    x, y = dx * cos - dz * sin, dx * sin + dz * cos
    turn = b[:, 4] - a[:, 4]
    cos, sin = np.cos(turn), np.sin(turn)
    half_length, half_width = np.abs(b[:, 2]) / 2, np.abs(b[:, 3]) / 2
    along = half_length * cos, -half_length * sin
    across = half_width * sin, half_width * cos
    return [
        (x + i * along[0] + j * across[0], y + i * along[1] + j * across[1])
        for i, j in ((1, 1), (1, -1), (-1, -1), (-1, 1))
    ]


def _area_below_edge(start, end, half_x: np.ndarray, half_y: np.ndarray) -> np.ndarray:
    """Signed area between an edge and the lower side of the window |x| <= half_x, |y| <= half_y, inside the window.

    Summed around a polygon it is the polygon's area within the window. The edge is cut where it crosses the window's
    two vertical sides, then where it crosses the horizontal ones; between the latter it bounds a trapezium, above them
    the full height.
    """
    (x0, y0), (x1, y1) = start, end
    dx, dy = x1 - x0, y1 - y0
    left, right = np.clip(x0, -half_x, half_x), np.clip(x1, -half_x, half_x)
    steep = dx == 0
    slope = np.divide(dy, dx, out=np.zeros_like(dx), where=~steep)  # an upright edge bounds no area
    y_left, y_right = y0 + (left - x0) * slope, y1 + (right - x1) * slope
    rise = y_right - y_left
    low, high = np.clip(y_left, -half_y, half_y), np.clip(y_right, -half_y, half_y)
    # the share of the edge's run on which it lies within the window's height, and above it
    level = rise == 0
    safe = np.where(level, 1.0, rise)
    within = np.where(level, 1.0, (high - low) / safe)
    above = np.where(level, 0.0, (np.maximum(y_right, half_y) - np.maximum(y_left, half_y)) / safe)
    return (right - left) * (within * ((low + high) / 2 + half_y) + above * 2 * half_y)
