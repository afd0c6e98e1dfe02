"""How many detections a frame are right, and how many are wrong in which way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pcdet.audit.report import ALL, ERRORS, TRUE, ErrorCount
from pcdet.audit.tables import KINDS, JudgedModel, Objects, Run

MISSED = "missed"


def error_counts(models: Sequence[JudgedModel], objects: Objects) -> list[ErrorCount]:
    """Every kind for every model and class, and for all classes together: a mean over frames and seeds.

    Args:
        models: judged.
        objects: of all frames.
    """
    rows = []
    for model in models:
        counts = np.mean(
            [_of_run(run, finds, objects) for run, finds in zip(model.runs, model.finds, strict=True)], axis=0
        )
        counts = np.concatenate([counts.sum(axis=0, keepdims=True), counts]) / len(objects.frames)
        for class_name, of_class in zip([ALL, *objects.classes], counts.tolist(), strict=True):
            rows += [
                ErrorCount(model=model.name, class_name=class_name, kind=kind, per_frame=number)
                for kind, number in zip((TRUE, *ERRORS, MISSED), of_class, strict=True)
            ]
    return rows


def _of_run(run: Run, finds: np.ndarray, objects: Objects) -> np.ndarray:
    """(C, kinds) of all frames, ``missed`` in place of ``ignored``."""
    classes, kinds = len(objects.classes), len(KINDS)
    cell = (run.class_id * kinds + run.kinds)[run.taken_in]
    counts = np.bincount(cell, minlength=classes * kinds).reshape(classes, kinds).astype(np.float64)
    missed = objects.class_id[objects.counted & ~finds]
    counts[:, -1] = np.bincount(missed, minlength=classes)
    return counts
