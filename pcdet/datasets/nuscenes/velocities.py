"""The velocities of labelled objects, from where they were labelled before and after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pcdet.datasets.nuscenes.table_rows import Row, column
from pcdet.datasets.nuscenes.tables import Tables

SECONDS = 1e-6  # the tables count microseconds
MAX_SECONDS = 1.5  # between neighbouring labels from which a velocity is taken, as in nuscenes-devkit


def velocities_of(tables: Tables, rows: Sequence[Row]) -> np.ndarray:
    """(N, 3) m/s in the global frame, from the labels before and after each, or one of them and its own.

    NaN where a label has neither, or they lie more than 1.5 s apart, or 3 s where there are both.

    Args:
        tables: of the release.
        rows: N of ``sample_annotation``.

    Raises:
        DataError: a row that one of them names is not there.
    """

    def neighbour(row: Row, key: str) -> Row:
        return tables.get("sample_annotation", row[key]) if row[key] else row

    first, last = ([neighbour(row, key) for row in rows] for key in ("prev", "next"))
    moved = column(last, "translation", 3) - column(first, "translation", 3)
    seconds = _times(tables, last) - _times(tables, first)
    both = np.array([bool(row["prev"] and row["next"]) for row in rows], dtype=bool)
    known = (seconds > 0) & (seconds <= np.where(both, 2 * MAX_SECONDS, MAX_SECONDS))
    velocities = np.full((len(rows), 3), np.nan)
    velocities[known] = moved[known] / seconds[known, None]
    return velocities


def _times(tables: Tables, rows: Sequence[Row]) -> np.ndarray:
    """(N,) seconds at which labels were made."""
    stamps = [tables.get("sample", row["sample_token"])["timestamp"] for row in rows]
    return SECONDS * np.array(stamps, dtype=np.float64)
