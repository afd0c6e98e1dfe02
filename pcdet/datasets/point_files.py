"""Point clouds on disk: float32 rows without a header, or numpy's arrays."""

from __future__ import annotations

import math
import struct
import tokenize
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pcdet.datasets.errors import BadFrameError

MAX_DIMENSIONS = 32
BAD_HEADER = (  # what numpy answers to a damaged header, which is a piece of Python text
    *(ValueError, TypeError, KeyError, SyntaxError, OverflowError, struct.error, tokenize.TokenError),
    *(RecursionError, MemoryError, EOFError, UserWarning),
)


def read_points(path: str | Path, num_features: int = 4, *, skippable: bool = True) -> np.ndarray:
    """The points of a ``.bin`` file.

    Args:
        path: file of float32 rows.
        num_features: columns, of which the first three are x, y, z in metres.
        skippable: whether SKIP_BAD_FRAMES would leave the frame out, for the advice in messages.

    Returns:
        (N, num_features) float32.

    Raises:
        FileNotFoundError: there is no such file.
        BadFrameError: the size is no multiple of a row, or a value is NaN or infinite.
    """
    values = np.fromfile(path, dtype=np.uint8)
    row = 4 * num_features
    or_skip = ", or set SKIP_BAD_FRAMES: True" if skippable else ""
    if values.size % row:
        raise BadFrameError(
            f"{path} has {values.size} bytes, which is no multiple of {row} ({num_features} float32 a point): "
            f"it is cut short or not a point cloud; copy it again{or_skip}"
        )
    points = values.view(np.float32).reshape(-1, num_features)
    # One pass instead of a mask: a sum is finite unless a value is not, or (checked then) the sum itself overflows.
    if not np.isfinite(points.sum(dtype=np.float64)) and not np.isfinite(points).all():
        bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
        raise BadFrameError(
            f"{path} holds NaN or infinite values in {len(bad)} of {len(points)} points (first: point {bad[0]}); "
            f"repair it{or_skip}"
        )
    return points


def read_npy(path: str | Path) -> np.ndarray:
    """The array of numbers in a ``.npy`` file.

    Args:
        path: the file.

    Returns:
        The array, of the shape and dtype that the file says.

    Raises:
        FileNotFoundError: there is no such file.
        BadFrameError: it is no such file, holds something other than numbers, or not as many as it says.
    """
    with open(path, "rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        try:
            shape, fortran, dtype = _npy_header(stream, size)
        except BAD_HEADER as error:
            raise _bad_npy(path, f"its header cannot be read ({_first_line(error)})") from None
        if dtype.kind not in "biuf" or dtype.hasobject:
            raise _bad_npy(path, f"its values are of dtype {dtype}, a point cloud's are numbers")
        if len(shape) > MAX_DIMENSIONS or any(type(n) is not int or n < 0 for n in shape):
            raise _bad_npy(path, f"its shape is {str(shape)[:80]}")
        count = math.prod(shape)
        if count * dtype.itemsize != size - stream.tell():
            raise _bad_npy(
                path,
                f"its header announces {count * dtype.itemsize} bytes, "
                f"of shape {str(shape)[:80]} and dtype {dtype}, and {size - stream.tell()} follow it",
            )
        values = np.fromfile(stream, dtype=dtype, count=count)
    return values.reshape(shape, order="F" if fortran else "C")


def _npy_header(stream: BinaryIO, size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and dtype. The third version of the format is for fields with names, which no cloud has."""
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version[0]} of the format")
    start = stream.tell()
    length = int.from_bytes(stream.read(2 * version[0]), "little")  # two bytes, or four in the second version
    if length > size - stream.tell():  # numpy would make room for all of it
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    stream.seek(start)
    return readers[version](stream)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _bad_npy(path: str | Path, problem: str) -> BadFrameError:
    return BadFrameError(f"{path} is cut short or not a numpy file of points: {problem}; save it again with numpy.save")
