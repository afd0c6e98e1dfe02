"""The objects that distillation won or lost, one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pcdet.audit.gains import Pair
from pcdet.audit.report import ObjectRow
from pcdet.audit.tables import UNKNOWN, JudgedModel, Objects

MOST_ROWS = 2000


def differences(models: Sequence[JudgedModel], pairs: Sequence[Pair], num_objects: int) -> np.ndarray:
    """(P, M) how much more often each pair's student finds each object than its control, from -1 to 1."""
    found = {model.name: model.found for model in models}
    rows = [found[student] - found[control] for student, control in pairs]
    return np.array(rows).reshape(len(pairs), num_objects)


def object_rows(
    models: Sequence[JudgedModel], pairs: Sequence[Pair], objects: Objects, most: int = MOST_ROWS
) -> list[ObjectRow]:
    """The objects that a student finds more or less often than its control.

    Those with the largest difference of any pair come first, then those with more difference in all pairs together,
    then the earlier ones.

    Args:
        models: judged.
        pairs: names of students and their controls.
        objects: of all frames.
        most: how many at most.
    """
    size = np.abs(differences(models, pairs, len(objects.frame))).round(9)  # 1 - 1/3 and 2/3 are as much
    largest, total = size.max(axis=0, initial=0.0), size.sum(axis=0)
    order = np.lexsort((-total, -largest))  # stable
    order = order[(largest[order] > 0) & objects.counted[order]][:most]
    found, distance = {model.name: model.found for model in models}, objects.distance
    return [_row(row, objects, float(distance[row]), found) for row in order.tolist()]


def _row(row: int, objects: Objects, distance: float, found: dict[str, np.ndarray]) -> ObjectRow:
    points = int(objects.points[row])
    return ObjectRow(
        frame=objects.frames[objects.frame[row]],
        index=int(objects.index[row]),
        class_name=objects.classes[objects.class_id[row]],
        distance=distance,
        points=None if points == UNKNOWN else points,
        attributes={name: str(texts[row]) for name, texts in objects.attributes.items()},
        found={name: float(fraction[row]) for name, fraction in found.items()},
    )
