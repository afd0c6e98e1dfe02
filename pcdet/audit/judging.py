"""From the results of evaluations to judged detections: read, checked, and judged frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from pcdet.audit.errors import judge_frame
from pcdet.audit.report import Role
from pcdet.audit.tables import Detections, JudgedModel, Objects, Run
from pcdet.audit.thresholds import class_thresholds
from pcdet.datasets.errors import DataError
from pcdet.datasets.frame_labels import MatchingRule
from pcdet.datasets.results import in_frame_order


@dataclass(frozen=True, kw_only=True)
class AuditedModel:
    """A detector and what it detects.

    Attributes:
        name: unlike the others'.
        role: ``student`` for a distilled one.
        detections: for each seed a list of dicts as in ``result.pkl``: ``name`` (N,), ``score`` (N,), ``boxes_lidar``
            (N, 7+), ``frame_id``; one a frame of the data set, in any order.
    """

    name: str
    role: Role
    detections: Sequence[Sequence[dict]]


def table_of_results(results: Sequence[dict], frames: Sequence[str], classes: Sequence[str], what: str) -> Detections:
    """The detections of one training as a table.

    Args:
        results: as in ``result.pkl``.
        frames: names, in order.
        classes: that there are rules for.
        what: these results, for messages.

    Raises:
        DataError: frames are missing, repeated or unknown, or a frame's results cannot be judged; all named.
    """
    try:
        ordered = in_frame_order(results, frames)
    except DataError as error:
        advice = "give the detections of the audited frames, all of them and no others"
        raise DataError([f"{what}: {problem}; {advice}" for problem in error.problems]) from None
    number = {name: i for i, name in enumerate(classes)}
    parts = [_of_frame(result, number, f"{what}, frame {frame}") for result, frame in zip(ordered, frames, strict=True)]
    counts = [len(scores) for _, scores, _ in parts]
    return Detections(
        frame=np.repeat(np.arange(len(frames)), counts),
        class_id=np.concatenate([ids for ids, _, _ in parts]),
        scores=np.concatenate([scores for _, scores, _ in parts]),
        boxes=np.concatenate([boxes for _, _, boxes in parts]),
        start=np.concatenate([[0], np.cumsum(counts)]),
    )


def _of_frame(result: dict, number: dict[str, int], what: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class numbers (N,), scores (N,) and boxes (N, 7) of one frame."""
    lacking = [key for key in ("name", "score", "boxes_lidar") if key not in result]
    if lacking:
        raise DataError(f"{what}: the results have no {', '.join(lacking)}; give those of test.py (result.pkl)")
    names = [str(name) for name in result["name"]]
    scores = np.asarray(result["score"], dtype=np.float64).reshape(-1)
    boxes = np.asarray(result["boxes_lidar"], dtype=np.float64)
    boxes = boxes if boxes.size else np.zeros((0, 7))
    if boxes.ndim != 2 or boxes.shape[1] < 7 or not len(names) == len(scores) == len(boxes):
        raise DataError(
            f"{what}: the results need a name and a score for each box of (N, 7 or more), got {len(names)} names, "
            f"{len(scores)} scores and boxes of {list(boxes.shape)}; run test.py again"
        )
    unknown = sorted(set(names) - set(number))
    if unknown:
        raise DataError(
            f"{what}: the data set has no matching rule for {', '.join(unknown)}, but for {', '.join(number)}; audit "
            "it with the classes of the model (CLASS_NAMES)"
        )
    boxes = boxes[:, :7]
    wrong = ~(np.isfinite(boxes).all(axis=1) & np.isfinite(scores))
    if wrong.any():
        row = np.flatnonzero(wrong)[0]
        raise DataError(
            f"{what}: boxes and scores must be finite, but detection {row} ({names[row]}) is {boxes[row].tolist()} "
            f"with the score {scores[row]}; its training has diverged, leave it out"
        )
    return np.array([number[name] for name in names], dtype=np.int64), scores, boxes


def judge_models(
    models: Sequence[AuditedModel], objects: Objects, rules: Sequence[MatchingRule], progress: bool
) -> list[JudgedModel]:
    """Judges all detections, those of all trainings in a frame at once.

    Args:
        models: with their results.
        objects: of all frames.
        rules: one a class.
        progress: whether to show a bar.

    Raises:
        DataError: results are missing, repeated, of other frames or cannot be judged; model, seed and frame are named.
    """
    tables = [
        [
            table_of_results(
                results, objects.frames, objects.classes, f"{model.name}, seed {i + 1} of {len(model.detections)}"
            )
            for i, results in enumerate(model.detections)
        ]
        for model in models
    ]
    judged = iter(_judge([table for of_model in tables for table in of_model], objects, rules, progress))
    found = []
    for model, of_model in zip(models, tables, strict=True):
        runs = [next(judged) for _ in of_model]
        finds = np.array([run.finds(len(objects.frame)) for run in runs])
        found.append(JudgedModel(name=model.name, role=model.role, runs=runs, finds=finds))
    return found


def _judge(tables: Sequence[Detections], objects: Objects, rules: Sequence[MatchingRule], progress: bool) -> list[Run]:
    kinds = [np.empty(len(table.scores), dtype=np.int64) for table in tables]
    found = [np.empty(len(table.scores), dtype=np.int64) for table in tables]
    frames = range(len(objects.frames))
    for frame in tqdm(frames, desc="judging", leave=False, dynamic_ncols=True, disable=None if progress else True):
        parts = [slice(table.start[frame], table.start[frame + 1]) for table in tables]
        counts = [part.stop - part.start for part in parts]
        boxes, class_id, scores = (
            np.concatenate([getattr(table, key)[part] for table, part in zip(tables, parts, strict=True)])
            for key in ("boxes", "class_id", "scores")
        )
        first, end = objects.start[frame : frame + 2]
        judged = judge_frame(
            boxes,
            class_id,
            scores,
            np.repeat(np.arange(len(tables)), counts),
            objects.boxes[first:end],
            objects.class_id[first:end],
            objects.neutral[:, first:end],
            rules,
        )
        for run, (part, kind, taken) in enumerate(
            zip(parts, *(np.split(a, np.cumsum(counts)[:-1]) for a in judged), strict=True)
        ):
            kinds[run][part] = kind
            found[run][part] = np.where(taken < 0, taken, taken + first)
    num_objects = objects.per_class()
    return [
        Run(
            **vars(table),
            kinds=kind,
            found=taken,
            thresholds=class_thresholds(table.scores, table.class_id, kind, num_objects),
        )
        for table, kind, taken in zip(tables, kinds, found, strict=True)
    ]
