"""Frames to look at, with their points and everything that was detected in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from pcdet.audit.gains import Pair
from pcdet.audit.objects import differences
from pcdet.audit.report import Scene, SceneDetections
from pcdet.audit.tables import KINDS, JudgedModel, Objects
from pcdet.datasets.dataset import DatasetTemplate
from pcdet.datasets.errors import DataError

LOWEST_SCORE = 0.1  # of shown detections, where the model's threshold is not lower
FIRST_VOXEL = 0.02  # metres; what is smaller cannot be told apart on a screen
VOXEL_STEP = 1.25


def choose_frames(models: Sequence[JudgedModel], pairs: Sequence[Pair], objects: Objects, most: int) -> list[int]:
    """Numbers of frames: those with most objects won or lost by all pairs together first, then the earlier ones.

    An object that only a part of the seeds win or lose counts as that part.

    Args:
        models: judged.
        pairs: names of students and their controls.
        objects: of all frames.
        most: how many at most.
    """
    size = np.abs(differences(models, pairs, len(objects.frame))).sum(axis=0) * objects.counted
    of_frame = np.bincount(objects.frame, weights=size, minlength=len(objects.frames))
    return np.argsort(-of_frame.round(9), kind="stable")[:most].tolist()


def build_scenes(
    dataset: DatasetTemplate,
    frames: Sequence[int],
    models: Sequence[JudgedModel],
    objects: Objects,
    points_per_scene: int,
    progress: bool,
) -> list[Scene]:
    """The scenes of some frames, without importance.

    Args:
        dataset: whose frames these are.
        frames: their numbers.
        models: judged.
        objects: of all frames.
        points_per_scene: most points of each.
        progress: whether to show a bar.

    Raises:
        DataError: a frame has no points.
    """
    shown = tqdm(frames, desc="scenes", leave=False, dynamic_ncols=True, disable=None if progress else True)
    return [_scene(dataset, number, models, objects, points_per_scene) for number in shown]


def _scene(
    dataset: DatasetTemplate, number: int, models: Sequence[JudgedModel], objects: Objects, points_per_scene: int
) -> Scene:
    points = dataset.load_frame(number).get("points")
    if points is None:
        raise DataError(
            f"frame {objects.frames[number]} has no points to show; add points to DATA_CONFIG.GET_ITEM_LIST, or ask "
            "for no scenes (max_scenes 0)"
        )
    mine = slice(objects.start[number], objects.start[number + 1])
    return Scene(
        frame=objects.frames[number],
        points=thin(np.asarray(points)[:, :3], points_per_scene),
        points_in_file=len(points),
        boxes=objects.boxes[mine],
        names=objects.names[mine].tolist(),
        counted=objects.counted[mine],
        detections={model.name: _detections(model, number, objects.classes) for model in models},
    )


def _detections(model: JudgedModel, number: int, classes: Sequence[str]) -> SceneDetections:
    run = model.runs[0]
    rows = np.arange(run.start[number], run.start[number + 1])
    least = np.minimum(LOWEST_SCORE, run.thresholds)
    rows = rows[run.scores[rows] >= least[run.class_id[rows]]]
    return SceneDetections(
        boxes=run.boxes[rows],
        scores=run.scores[rows],
        names=[classes[i] for i in run.class_id[rows]],
        kinds=[KINDS[i] for i in run.kinds[rows]],
    )


def thin(points: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the points, the first of each voxel: near surfaces lose more than far ones.

    Args:
        points: (N, 3) metres.
        most: at least 1. Voxels grow until that is enough.

    Returns:
        (K, 3) float32, in the order of the points. Points that are not finite are left out.
    """
    points = points[np.isfinite(points).all(axis=1)].astype(np.float32)
    size = FIRST_VOXEL
    while len(points) > most:
        cells = np.floor(points / np.float32(size)).astype(np.int64)
        cells -= cells.min(axis=0)
        spans = cells.max(axis=0) + 1
        keys = (cells[:, 0] * spans[1] + cells[:, 1]) * spans[2] + cells[:, 2]
        points = points[np.sort(np.unique(keys, return_index=True)[1])]
        size *= VOXEL_STEP
    return points
