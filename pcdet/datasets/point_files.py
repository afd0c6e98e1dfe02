"""Point clouds on disk: float32 rows without a header."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pcdet.datasets.errors import BadFrameError


def read_points(path: str | Path, num_features: int = 4) -> np.ndarray:
    """The points of a ``.bin`` file.

    Args:
        path: file of float32 rows.
        num_features: columns, of which the first three are x, y, z in metres.

    Returns:
        (N, num_features) float32.

    Raises:
        FileNotFoundError: there is no such file.
        BadFrameError: the size is no multiple of a row, or a value is NaN or infinite.
    """
    values = np.fromfile(path, dtype=np.uint8)
    row = 4 * num_features
    if values.size % row:
        raise BadFrameError(
            f"{path} has {values.size} bytes, which is no multiple of {row} ({num_features} float32 a point): "
            "it is cut short or not a point cloud; copy it again, or set SKIP_BAD_FRAMES: True"
        )
    points = values.view(np.float32).reshape(-1, num_features)
    # One pass instead of a mask: a sum is finite unless a value is not, or (checked then) the sum itself overflows.
    if not np.isfinite(points.sum(dtype=np.float64)) and not np.isfinite(points).all():
        bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
        raise BadFrameError(
            f"{path} holds NaN or infinite values in {len(bad)} of {len(points)} points (first: point {bad[0]}); "
            "repair it, or set SKIP_BAD_FRAMES: True"
        )
    return points
