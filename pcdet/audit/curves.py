"""Precision, recall and false positives over the score threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pcdet.audit.report import ALL, IGNORED, TRUE, Curve
from pcdet.audit.tables import KINDS, JudgedModel, Objects, Run

SCORES = np.arange(99, -1, -1) / 100  # 0.99, 0.98, ..., 0.00


def score_curves(models: Sequence[JudgedModel], objects: Objects) -> list[Curve]:
    """The curves of every model and class that has objects, and of all classes together.

    Args:
        models: judged.
        objects: of all frames.
    """
    per_class = dict(zip(objects.classes, objects.per_class().tolist(), strict=True))
    numbers = {ALL: sum(per_class.values()), **per_class}
    return [_curve(model, objects, name, count) for model in models for name, count in numbers.items() if count]


def _curve(model: JudgedModel, objects: Objects, class_name: str, num_objects: int) -> Curve:
    number = None if class_name == ALL else objects.classes.index(class_name)
    counts = np.array([_counts(run, number) for run in model.runs])  # (S, 2, thresholds)
    true, wrong = counts[:, 0], counts[:, 1]
    detecting = true + wrong > 0
    shown = detecting.any(axis=0)
    precision = np.divide(true, true + wrong, out=np.zeros(true.shape), where=detecting)
    precision = precision.sum(axis=0)[shown] / detecting.sum(axis=0)[shown]
    return Curve(
        model=model.name,
        class_name=class_name,
        scores=SCORES[shown].tolist(),
        precision=precision.tolist(),
        recall=(true.mean(axis=0)[shown] / num_objects).tolist(),
        false_positives=(wrong.mean(axis=0)[shown] / len(objects.frames)).tolist(),
    )


def _counts(run: Run, number: int | None) -> np.ndarray:
    """(2, thresholds) how many right and wrong detections there are from each threshold on."""
    mine = (run.kinds != KINDS.index(IGNORED)) & (True if number is None else run.class_id == number)
    true = run.kinds == KINDS.index(TRUE)
    rising = [np.sort(run.scores[mine & right]) for right in (true, ~true)]
    return np.array([len(scores) - np.searchsorted(scores, SCORES, side="left") for scores in rising], dtype=float)
