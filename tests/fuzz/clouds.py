"""Targets: point clouds, .bin and .npy, and images' headers."""

from __future__ import annotations

import functools
import io
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support import kitti_files

from fuzz.target import Target
from pcdet.datasets.errors import BadFrameError
from pcdet.datasets.kitti.kitti_utils import read_png_size
from pcdet.datasets.point_files import read_points
from pcdet.datasets.point_folder import PointFolder


def cloud(rows: int = 6, columns: int = 4, dtype=np.float32) -> np.ndarray:
    """A few points in front of the sensor."""
    return np.linspace(0, 60, rows * columns).reshape(rows, columns).astype(dtype)


def npy(array: np.ndarray) -> bytes:
    """An array as a .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@functools.cache
def _folder() -> PointFolder:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "a.npy"
        file.write_bytes(npy(cloud()))
        return PointFolder(kitti_files.dataset_cfg(), ["Car"], root_path=file, ext=".npy")


def _check_cloud(points: np.ndarray, path: Path) -> None:
    assert points.dtype == np.float32, f"a cloud has dtype {points.dtype}"
    assert points.ndim == 2 and points.shape[1] == 4, f"a cloud has shape {points.shape}"
    assert np.isfinite(points).all(), "a cloud holds NaN or infinite values"


def _check_bin(points: np.ndarray, path: Path) -> None:
    _check_cloud(points, path)
    assert points.tobytes() == path.read_bytes(), "the cloud is not what the file holds"


def _check_size(shape: tuple[int, int], path: Path) -> None:
    assert min(shape) > 0, f"an image has the size {shape}"


def _seeds_npy() -> list[bytes]:
    arrays = [cloud(), cloud(dtype=np.float64), np.asfortranarray(cloud()), cloud(0), cloud(dtype=np.float16)]
    return [npy(array) for array in arrays]


def _structure_npy():
    dtypes = st.one_of(hnp.scalar_dtypes(), hnp.array_dtypes(), hnp.unicode_string_dtypes(), hnp.datetime64_dtypes())
    shapes = st.one_of(st.tuples(st.integers(0, 9), st.just(4)), hnp.array_shapes(min_dims=0, min_side=0))
    return st.builds(npy, dtypes.flatmap(lambda dtype: hnp.arrays(dtype, shapes)))


TARGETS = [
    Target(
        name="points_bin",
        folder="clouds",
        suffix=".bin",
        read=read_points,
        refusals=(BadFrameError,),
        seeds=lambda: [cloud().tobytes(), b"", cloud(1).tobytes()],
        structure=lambda: hnp.arrays(np.float32, st.tuples(st.integers(0, 9), st.just(4))).map(lambda a: a.tobytes()),
        check=_check_bin,
        tokens=(b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f"),  # NaN, infinity, the largest
        modules=("pcdet.datasets.point_files",),
    ),
    Target(
        name="points_npy",
        folder="clouds",
        suffix=".npy",
        read=lambda path: _folder().read_cloud(path),
        refusals=(BadFrameError,),
        seeds=_seeds_npy,
        structure=_structure_npy,
        check=_check_cloud,
        tokens=(
            *(b"\x93NUMPY", b"'descr': ", b"'<f4'", b"'|O'", b"'<U9'", b"'|V4'", b"[('a', '<f4')]", b"'<M8[s]'"),
            *(
                b"'fortran_order': True",
                b"'shape': ",
                b"(6, 4)",
                b"(-1, 4)",
                b"(99999999999, 4)",
                b"{",
                b"}",
                b"PK\x03\x04",
            ),
        ),
        modules=("pcdet.datasets.point_files", "pcdet.datasets.point_folder", "numpy.lib._format_impl"),
    ),
    Target(
        name="png_size",
        folder="images",
        suffix=".png",
        read=read_png_size,
        refusals=(ValueError,),
        seeds=lambda: [kitti_files.png(4, 6)],
        check=_check_size,
        tokens=(b"IHDR", b"\x89PNG\r\n\x1a\n"),
        modules=("pcdet.datasets.kitti.kitti_utils",),
    ),
]
