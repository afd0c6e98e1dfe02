"""The objects of an audit as a table that ``objects.js`` sorts and filters: names once, rows as lists of numbers."""

from __future__ import annotations

from typing import Any

from pcdet.audit.page.groups import pairs_of
from pcdet.audit.report import Audit


def objects_block(audit: Audit) -> dict[str, Any]:
    """The table.

    Returns:
        ``frames``, ``classes``, ``models``, ``pairs`` of (student, control) and ``attributes`` by name; each of
        ``rows`` is [index of frame, index of object, index of class, distance, points, [values of attributes],
        [fraction of seeds that find it, a model each]]; None stands for what is not known.
    """
    frames = {row.frame: None for row in audit.objects}
    classes = {row.class_name: None for row in audit.objects}
    attributes = list({name: None for row in audit.objects for name in row.attributes})
    models = [model.name for model in audit.models]
    at_frame = {name: i for i, name in enumerate(frames)}
    at_class = {name: i for i, name in enumerate(classes)}
    rows = [
        [
            at_frame[row.frame], row.index, at_class[row.class_name], round(float(row.distance), 2), row.points,
            [row.attributes.get(name) for name in attributes],
            [None if row.found.get(name) is None else round(float(row.found[name]), 4) for name in models],
        ]
        for row in audit.objects
    ]  # fmt: skip
    return {
        "kind": "objects", "frames": list(frames), "classes": list(classes), "models": models,
        "pairs": [list(pair) for pair in pairs_of(audit)], "attributes": attributes, "rows": rows,
    }  # fmt: skip
