"""Point cloud files without labels, for detection alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pcdet.datasets.config import DataConfig
from pcdet.datasets.dataset import DatasetTemplate
from pcdet.datasets.errors import BadFrameError, DataError
from pcdet.datasets.point_files import read_npy, read_points
from pcdet.registry import known_keys

EXTENSIONS = (".bin", ".npy")
SWEEP_EXTENSION, SWEEP_COLUMNS = ".pcd.bin", ("x", "y", "z", "intensity", "ring")  # a file of nuScenes


def name_of_cloud(path: Path) -> str:
    """A file's name without its extension, of ``.pcd.bin`` without both parts."""
    return path.stem.removesuffix(".pcd")


class PointClouds(DatasetTemplate):
    """Point clouds without labels as test samples of the configured data set; ``PointFolder`` finds them on disk.

    A cloud has the columns of ``POINT_FEATURE_ENCODING.src_feature_list``, a file of nuScenes (``.pcd.bin``) its own. A
    ``timestamp`` is set to 0, and may be missing from an array: a single sweep is all "now".

    Args:
        dataset_cfg: DATA_CONFIG of the model.
        class_names: classes in the order of their numbers.
        root_path: where clouds lie, if they lie anywhere.
        logger: for what is found.
    """

    def __init__(
        self,
        dataset_cfg: dict,
        class_names: Sequence[str],
        root_path: str | Path = ".",
        logger: logging.Logger | None = None,
    ):
        known = known_keys(DataConfig)  # any data set's DATA_CONFIG will do: only its processing is used here
        shared = {key: value for key, value in dataset_cfg.items() if key.upper() in known}
        super().__init__(shared, class_names, training=False, root_path=root_path, logger=logger)
        self.source = list(self.point_feature_encoder.src_feature_list)

    def read_cloud(self, path: Path) -> np.ndarray:
        """The points of a file, (N, len(src_feature_list)) float32.

        Raises:
            BadFrameError: the file is damaged or has other columns; the message says which are wanted.
        """
        if path.suffix == ".npy":
            return self.check_cloud(read_npy(path), str(path))
        if path.name.endswith(SWEEP_EXTENSION):
            return self._read_sweep(path)
        row, size = 4 * len(self.source), path.stat().st_size
        if self.source[-1] == "timestamp" and size % row and size % (row - 4) == 0:
            raise BadFrameError(
                f"{path} has {size} bytes, no multiple of the {row} of a point with {self.source}, but one of the "
                f"{row - 4} of a point without timestamp; a .bin file does not say its columns: add one of zeros, or "
                "save the points as .npy, which may lack it"
            )
        return self._without_time(read_points(path, len(self.source)))

    def _read_sweep(self, path: Path) -> np.ndarray:
        """The points of a file of nuScenes, whose five columns stand for those of the model by name."""
        unknown = [name for name in self.source if name not in (*SWEEP_COLUMNS, "timestamp")]
        if unknown:
            raise BadFrameError(
                f"{path} is a file of nuScenes with the columns {list(SWEEP_COLUMNS)}, but the model reads "
                f"{', '.join(unknown)} too; give the configuration that the cloud fits"
            )
        points = read_points(path, len(SWEEP_COLUMNS))
        columns = dict(zip(SWEEP_COLUMNS, points.T, strict=True), timestamp=np.zeros(len(points), np.float32))
        return np.column_stack([columns[name] for name in self.source])

    def check_cloud(self, points: np.ndarray, name: str = "the point cloud") -> np.ndarray:
        """An array as a cloud, (N, len(src_feature_list)) float32; the array itself stays as it is.

        Args:
            points: (N, C) of any number type.
            name: what is complained of.

        Raises:
            BadFrameError: it has other columns, or values that are not finite; the message says what is wanted.
        """
        wanted = len(self.source)
        if points.ndim == 2 and points.shape[1] == wanted - 1 and self.source[-1] == "timestamp":
            points = np.column_stack([points, np.zeros(len(points))])
        if points.ndim != 2 or points.shape[1] != wanted:
            raise BadFrameError(
                f"{name} must hold an array of shape (N, {wanted}) {self.source}, got {list(points.shape)}; "
                "drop or add columns, or give the configuration that the cloud fits"
            )
        points = np.ascontiguousarray(points, dtype=np.float32)
        if not np.isfinite(points).all():
            raise BadFrameError(f"{name} holds NaN or infinite values; remove those points")
        return self._without_time(points)

    def _without_time(self, points: np.ndarray) -> np.ndarray:
        if "timestamp" not in self.source:
            return points
        points = points.copy()
        points[:, self.source.index("timestamp")] = 0.0
        return points


class PointFolder(PointClouds):
    """The point clouds of a folder, or one file, as test samples of the configured data set.

    Args:
        dataset_cfg: DATA_CONFIG of the model.
        class_names: classes in the order of their numbers.
        root_path: a folder, or one file.
        ext: ``.bin`` for float32 rows, ``.npy`` for an (N, C) array.
        logger: for what is found.

    Raises:
        DataError: no such file or folder, no file with this extension, or an unknown extension.
    """

    def __init__(
        self,
        dataset_cfg: dict,
        class_names: Sequence[str],
        root_path: str | Path,
        ext: str = ".bin",
        logger: logging.Logger | None = None,
    ):
        super().__init__(dataset_cfg, class_names, root_path, logger)
        self.files = _find_clouds(Path(root_path), ext)

    def num_frames(self) -> int:
        """How many clouds there are."""
        return len(self.files)

    def load_frame(self, index: int) -> dict:
        """``points`` (N, C) float32 of a file, ``frame_id`` its name without the extension."""
        path = self.files[index]
        return {"points": self.read_cloud(path), "frame_id": name_of_cloud(path)}


def _find_clouds(root: Path, ext: str) -> list[Path]:
    if ext not in EXTENSIONS:
        raise DataError(f"the extension of point clouds must be one of {', '.join(EXTENSIONS)}, got {ext!r}")
    if root.is_file():
        if root.suffix not in EXTENSIONS:
            raise DataError(f"{root} must be a {' or '.join(EXTENSIONS)} file")
        return [root]
    if not root.is_dir():
        raise DataError(f"there is no file or folder {root}")
    files = sorted(root.glob(f"*{ext}"))
    if not files:
        other = sorted({path.suffix for path in root.iterdir() if path.suffix in EXTENSIONS})
        hint = f"; it has {', '.join(other)} files: give --ext {other[0]}" if other else ""
        raise DataError(f"{root} holds no {ext} files{hint}")
    return files
