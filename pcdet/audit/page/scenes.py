"""Scenes as a page holds them: numbers of few bits in base64, points thinned to what the page's size allows."""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from pcdet.audit.page.embedded import json_text
from pcdet.audit.page.figures import rounded
from pcdet.audit.report import Audit, Scene, SceneDetections
from pcdet.registry import nearest_name
from pcdet.utils.box_utils import points_in_boxes_mask

POINT_BYTES = 8  # three numbers of 16 bits, and a third more as base64
CELL_BYTES = 28 / 3  # the same with one byte of importance
CLOUD_BYTES = 400  # what stands beside the base64 text of a cloud, and of its script element
SHARE_OF_IMPORTANCE = 1 / 3  # at most, of the bytes for points
FEWEST_POINTS = 200  # a frame of fewer says nothing
FEWEST_STEP = 1e-5  # metres; where all points lie in a plane


def encode_scenes(audit: Audit, room: int, keep_whole: Collection[str]) -> list[dict[str, Any]]:
    """Every scene for ``scene.js``, as large as its share of the room.

    Args:
        audit: with its scenes.
        room: bytes that all of them may take.
        keep_whole: frames whose points and importances are not thinned.

    Raises:
        ValueError: a frame to keep is none of the scenes', a point is not finite, or the room does not do.
    """
    names = [scene.frame for scene in audit.scenes]
    for frame in keep_whole:
        if frame not in names:
            raise ValueError(f"keep_whole: no scene is of frame {frame!r}; {nearest_name(frame, names)}")
    whole = [scene for scene in audit.scenes if scene.frame in keep_whole]
    others = [scene for scene in audit.scenes if scene.frame not in keep_whole]
    room -= sum(len(json_text(_shell(scene))) + CLOUD_BYTES * (1 + len(scene.importance)) for scene in audit.scenes)
    room -= sum(POINT_BYTES * len(scene.points) + int(CELL_BYTES * _cells(scene)) for scene in whole)
    arrays = [len(values) for scene in others for values in scene.importance.values()]
    cells = max(allowance(arrays, int(room * SHARE_OF_IMPORTANCE / CELL_BYTES)), 0)
    room -= int(CELL_BYTES * sum(min(count, cells) for count in arrays))
    points = allowance([len(scene.points) for scene in others], room // POINT_BYTES)
    if room < 0 or (points < FEWEST_POINTS and any(len(scene.points) > points for scene in others)):
        raise ValueError(
            f"{len(names)} scenes do not fit the page: each would keep {max(points, 0)} points, {FEWEST_POINTS} are "
            "needed; show fewer scenes, keep fewer whole, or raise the limit of the page's size"
        )
    return [
        _encoded(scene, None, None) if scene.frame in keep_whole else _encoded(scene, points, cells)
        for scene in audit.scenes
    ]


def _cells(scene: Scene) -> int:
    return sum(map(len, scene.importance.values()))


def allowance(counts: Sequence[int], total: int) -> int:
    """The largest number so that ``sum(min(count, number))`` is at most ``total``; the largest count where all fit."""
    left = total
    for rank, count in enumerate(sorted(counts)):
        share = left // (len(counts) - rank)
        if count > share:
            return share
        left -= count
    return max(counts, default=0)


def thinned(points: np.ndarray, keep: int, boxes: np.ndarray) -> np.ndarray:
    """At most ``keep`` points: up to half of them in boxes, then far ones rather than the many near ones.

    Args:
        points: (N, 3) metres.
        keep: how many.
        boxes: (M, 7) whose points are kept first; half of the points are left to what surrounds them.

    Returns:
        (K, 3) in their order; the same call gives the same points.
    """
    if len(points) <= keep:
        return points
    inside = points_in_boxes_mask(points, boxes).any(axis=0) if len(boxes) else np.zeros(len(points), dtype=bool)
    rng = np.random.default_rng(0)
    first, rest = np.flatnonzero(inside), np.flatnonzero(~inside)
    most = max((keep + 1) // 2, keep - len(rest))
    if len(first) > most:
        first = rng.choice(first, most, replace=False)
    if len(rest):
        weight = 1.0 + np.hypot(points[rest, 0], points[rest, 1])
        rest = rng.choice(rest, keep - len(first), replace=False, p=weight / weight.sum())
    return points[np.sort(np.concatenate([first, rest]))]


def quantised(rows: np.ndarray, what: str) -> dict[str, Any]:
    """Points or boxes as numbers of 16 bits: ``value = centre + step * number``, at most half a step wrong.

    Args:
        rows: (N, C), metres and radians.
        what: names them in an error.

    Raises:
        ValueError: one is not finite.
    """
    rows = np.asarray(rows, dtype=np.float64)
    if not np.isfinite(rows).all():
        wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))[0]
        raise ValueError(f"{what} must be finite, number {wrong} is {rows[wrong].tolist()}; leave such ones out")
    low, high = (rows.min(axis=0), rows.max(axis=0)) if len(rows) else np.zeros((2, rows.shape[1]))
    centre, step = (low + high) / 2, np.maximum((high - low) / 65534, FEWEST_STEP)
    numbers = np.rint((rows - centre) / step).astype("<i2")
    return {"n": len(rows), "centre": centre.tolist(), "step": step.tolist(), "data": _base64(numbers)}


def _base64(numbers: np.ndarray) -> str:
    return base64.b64encode(numbers.tobytes()).decode("ascii")


def _encoded(scene: Scene, keep: int | None, cells: int | None) -> dict[str, Any]:
    """A scene with ``keep`` points and at most ``cells`` importances a model, the highest; all of them for None."""
    kept_points = scene.points if keep is None else thinned(scene.points, keep, scene.boxes)
    points = quantised(kept_points, f"points of frame {scene.frame}")
    found = []
    for name, values in scene.importance.items():
        order = np.argsort(-values[:, 3], kind="stable")[: len(values) if cells is None else cells]
        kept = values[np.sort(order)]
        entry = quantised(kept[:, :3], f"importance of {name} in frame {scene.frame}")
        amounts = np.rint(255 * np.clip(kept[:, 3], 0, 1)).astype(np.uint8)
        found.append({"model": name, "of": len(values), **entry, "importance": _base64(amounts)})
    return {**_shell(scene), "points": points, "importance": found}


def _shell(scene: Scene) -> dict[str, Any]:
    """All of a scene but its points."""
    return {
        "frame": scene.frame,
        "points_in_file": int(scene.points_in_file),
        "boxes": _boxes(scene.boxes),
        "names": list(scene.names),
        "counted": [bool(counted) for counted in scene.counted],
        "detections": [
            {"model": name, **_detections(found, f"boxes of {name} in frame {scene.frame}")}
            for name, found in scene.detections.items()
        ],
    }


def _detections(found: SceneDetections, what: str) -> dict[str, Any]:
    """Detections for ``auditPage.unpacked``. Scores keep all of their bits: thresholds are among them."""
    names, name = _numbered(found.names)
    kinds, kind = _numbered(found.kinds)
    return {
        "boxes": quantised(np.asarray(found.boxes, dtype=np.float64).reshape(-1, 7), what),
        "scores": _base64(np.asarray(found.scores, dtype="<f4")),
        "names": names,
        "name": name,
        "kinds": kinds,
        "kind": kind,
    }


def _numbered(texts: Sequence[str]) -> tuple[list[str], str]:
    """The different texts, and in base64 the number of each text among them, 16 bits each."""
    different = list(dict.fromkeys(texts))
    place = {text: number for number, text in enumerate(different)}
    return different, _base64(np.array([place[text] for text in texts], dtype="<u2"))


def _boxes(boxes: np.ndarray) -> list[list[float | None]]:
    """To a centimetre, and the heading to a thousandth."""
    return [[*rounded(box[:6], 2), *rounded(box[6:7], 3)] for box in np.asarray(boxes)]
