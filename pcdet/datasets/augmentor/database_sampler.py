"""gt_sampling: pastes labelled objects of other frames into a scene (after SECOND, Yan et al. 2018)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pcdet.datasets.augmentor.database_checks import ADVICE, BOX_COLUMNS, check_database
from pcdet.datasets.errors import DataError
from pcdet.datasets.packed import PackedTexts
from pcdet.datasets.pickles import read_pickle
from pcdet.registry import AUGMENTORS, ConfigError, nearest_name
from pcdet.utils.box_utils import enlarge_box3d, points_in_any_box

FILTERS = ("filter_by_difficulty", "filter_by_min_points")


@dataclass(frozen=True)
class ObjectTable:
    """The objects of one class: where their points lie and what is known of them. Points stay on disk.

    Attributes:
        boxes: (n, 7+) float32 [x, y, z, dx, dy, dz, heading], LiDAR frame of their own scene. A velocity may follow;
            one that is not known (NaN) is 0.
        num_points: (n,) points in each.
        difficulty: (n,) 0, 1, 2 or -1.
        paths: n file names, relative to the data set's folder; packed, since nuScenes has hundreds of thousands.
    """

    boxes: np.ndarray
    num_points: np.ndarray
    difficulty: np.ndarray
    paths: Sequence[str]

    @classmethod
    def from_infos(cls, infos: list[dict]) -> ObjectTable:
        """The table of the entries of a database file."""
        boxes = np.array([info["box3d_lidar"] for info in infos], dtype=np.float32)
        boxes = boxes.reshape(len(infos), -1) if infos else np.zeros((0, BOX_COLUMNS), dtype=np.float32)
        boxes[:, BOX_COLUMNS:][np.isnan(boxes[:, BOX_COLUMNS:])] = 0.0
        return cls(
            boxes,
            np.array([info["num_points_in_gt"] for info in infos], dtype=np.int64),
            np.array([info.get("difficulty", 0) for info in infos], dtype=np.int64),
            PackedTexts(str(info["path"]) for info in infos),
        )

    def __len__(self) -> int:
        return len(self.paths)

    def keep(self, mask: np.ndarray) -> ObjectTable:
        """The objects where the mask (n,) holds."""
        paths = PackedTexts(path for path, kept in zip(self.paths, mask, strict=True) if kept)
        return ObjectTable(self.boxes[mask], self.num_points[mask], self.difficulty[mask], paths)


def parse_counts(entries: list[str], key: str) -> dict[str, int]:
    """``["Car:15"]`` -> ``{"Car": 15}``."""
    counts = {}
    for entry in entries:
        name, colon, count = entry.rpartition(":")
        if not colon or not count.strip().isdigit():
            raise ConfigError(f"{key}: expected entries like 'Car:15', got {entry!r}")
        counts[name.strip()] = int(count)
    return counts


@AUGMENTORS.register(name="gt_sampling")
class DataBaseSampler:
    """Pastes objects of a database into the scene, where they overlap nothing in bird's-eye view.

    For each class of SAMPLE_GROUPS, in order, objects are drawn without repetition; those that overlap a box of the
    scene, an object pasted before, or another object drawn with them, are left out. Scene points inside the pasted
    boxes are removed, the objects' points come first in the cloud. Point files are read when needed, nothing is kept.

    Args:
        db_info_path: database files (class -> list of entries), relative to the data set's folder.
        sample_groups: "Class:n" entries.
        num_point_features: columns of the objects' files.
        prepare: ``filter_by_min_points`` ("Class:n": fewer points are not used), ``filter_by_difficulty`` (levels that
            are not used).
        use_road_plane: set objects on the road plane of the scene, where it has one (the data set tells where not).
        remove_extra_width: metres by which boxes are enlarged (full size) before scene points are removed from them.
        limit_whole_scene: n counts the scene's own objects of the class too.
        database_with_fakelidar: must be False: boxes of that old form are not read.
        use_shared_memory: OpenPCDet's key; ignored, because no process holds the database's points.
        db_data_path: OpenPCDet's key for points of all objects in one file; ignored, the objects' own files are read.
        backup_db_info: OpenPCDet's key, what to read where shared memory is short; ignored.
        root_path: the data set's folder.
        class_names: classes that are trained; groups of others are left out.
        logger: for what was read and what is missing.
    """

    @classmethod
    def rules(cls, config: SimpleNamespace) -> Iterator[str]:
        """Filters that there are, and entries of the form "Class:number"."""
        prepare = config.prepare or {}
        for key in prepare:
            if key not in FILTERS:
                yield f"PREPARE.{key}: there is no such filter; {nearest_name(key, FILTERS)}"
        counted = {"SAMPLE_GROUPS": config.sample_groups}
        counted["PREPARE.filter_by_min_points"] = prepare.get("filter_by_min_points") or []
        for key, entries in counted.items():
            for j, entry in enumerate(entries):
                if not re.fullmatch(r"[^:]+:\s*\d+", str(entry)):
                    yield f"{key}[{j}]: expected 'Class:number', got {entry!r}"

    def __init__(
        self,
        *,
        db_info_path: list[str],
        sample_groups: list[str],
        num_point_features: int,
        root_path: Path,
        class_names: list[str],
        prepare: dict[str, list] | None = None,
        use_road_plane: bool = False,
        remove_extra_width: list[float] | None = None,
        limit_whole_scene: bool = False,
        database_with_fakelidar: bool = False,
        use_shared_memory: bool = False,
        db_data_path: list[str] | None = None,
        backup_db_info: dict | None = None,
        logger: logging.Logger | None = None,
    ):
        if database_with_fakelidar:
            raise ConfigError(
                "DATABASE_WITH_FAKELIDAR: True is not supported; set it to False, and make the database again with "
                "boxes [x, y, z, dx, dy, dz, heading]"
            )
        self.root_path = Path(root_path)
        self.logger = logger or logging.getLogger(__name__)
        self.num_point_features = num_point_features
        self.use_road_plane = use_road_plane
        self.remove_extra_width = tuple(remove_extra_width or (0.0, 0.0, 0.0))
        self.limit_whole_scene = limit_whole_scene
        groups = parse_counts(sample_groups, "SAMPLE_GROUPS")
        self.sample_groups = {name: count for name, count in groups.items() if name in class_names}
        self.tables = self._prepare(self._read(db_info_path), prepare or {})

    def _read(self, db_info_path: list[str]) -> dict[str, ObjectTable]:
        """The tables of the wanted classes from all database files."""
        infos: dict[str, list[dict]] = {name: [] for name in self.sample_groups}
        for name in db_info_path:
            path = self.root_path / name
            if not path.is_file():
                raise DataError(
                    f"{path} does not exist, but gt_sampling needs it; make it as the info files (in KITTI's layout "
                    "with `python -m pcdet.datasets.kitti.kitti_dataset create_kitti_infos CFG`, of nuScenes with "
                    "`python -m pcdet.datasets.nuscenes.nuscenes_dataset --cfg_file CFG`), or put gt_sampling "
                    "into DATA_AUGMENTOR.DISABLE_AUG_LIST"
                )
            database = read_pickle(path)
            check_database(database, path, list(infos))
            for class_name in infos:
                infos[class_name] += database.get(class_name, [])
        return {class_name: ObjectTable.from_infos(entries) for class_name, entries in infos.items()}

    def object_counts(self) -> dict[str, int]:
        """How many objects there are to paste, for each class of which some are pasted."""
        return {name: len(self.tables[name]) for name, count in self.sample_groups.items() if count > 0}

    def _prepare(self, tables: dict[str, ObjectTable], prepare: Mapping[str, list]) -> dict[str, ObjectTable]:
        """The tables after the filters, in the order of the file."""
        for name, values in prepare.items():
            if name not in FILTERS:
                raise ConfigError(f"PREPARE.{name}: no such filter; known: {', '.join(FILTERS)}")
            least = parse_counts(values, f"PREPARE.{name}") if name == "filter_by_min_points" else {}
            for class_name, table in tables.items():
                if name == "filter_by_difficulty":
                    keep = ~np.isin(table.difficulty, values)
                else:
                    keep = table.num_points >= least.get(class_name, 0)
                tables[class_name] = table.keep(keep)
                self.logger.info(f"Database {name} {class_name}: {len(table)} => {int(keep.sum())}")
        for class_name, table in tables.items():
            if len(table) == 0:
                self.logger.warning(f"gt_sampling: the database has no usable {class_name}; none will be pasted")
        return tables

    def __call__(self, sample: dict, rng: np.random.Generator) -> dict:
        """Required: ``points`` (N, C), ``gt_boxes`` (M, 7+), ``gt_names`` (M,); with a plane also ``calib``.

        Modified: the same. Removed: ``road_plane`` (4,). A sample that is ``unlabelled`` stays as it is: an object
        could be pasted into one that nobody has labelled.
        """
        plane = sample.pop("road_plane", None)
        if "gt_boxes2d" in sample:
            raise ConfigError("GET_ITEM_LIST: gt_boxes2d cannot be used with gt_sampling: pasted objects have none")
        if sample.get("unlabelled"):
            return sample
        picks = self._choose(sample["gt_boxes"], sample["gt_names"], rng)
        if not picks:
            return sample
        boxes = np.stack([self._box(name, row, sample["gt_boxes"].shape[1]) for name, row in picks])
        drops = self._heights_above_plane(boxes, plane, sample)
        clouds = [self._read_object(*pick, box) for pick, box in zip(picks, boxes, strict=True)]
        for cloud, drop in zip(clouds, drops, strict=True):
            cloud[:, 2] -= drop
        boxes[:, 2] -= drops
        enlarged = enlarge_box3d(boxes[:, :7], self.remove_extra_width)
        covered = points_in_any_box(sample["points"], enlarged)
        width, rest = sample["points"].shape[1], sample["points"].compress(~covered, axis=0)
        sample["points"] = np.concatenate([*(c[:, :width] for c in clouds), rest], axis=0)
        sample["gt_boxes"] = np.concatenate([sample["gt_boxes"], boxes.astype(sample["gt_boxes"].dtype)], axis=0)
        sample["gt_names"] = np.concatenate([sample["gt_names"], np.array([name for name, _ in picks])], axis=0)
        return sample

    def _choose(self, scene: np.ndarray, names: np.ndarray, rng: np.random.Generator) -> list[tuple[str, int]]:
        """The objects to paste, as (class, row of its table)."""
        taken, picks = scene[:, :7].astype(np.float32), []
        for class_name, count in self.sample_groups.items():
            table = self.tables[class_name]
            if self.limit_whole_scene:
                count -= int((names == class_name).sum())
            count = min(count, len(table))
            if count > 0:
                rows = rng.choice(len(table), count, replace=False)
                rows = rows[is_free(table.boxes[rows, :7], taken)]
                taken = np.concatenate([taken, table.boxes[rows, :7]], axis=0)
                picks += [(class_name, int(row)) for row in rows]
        return picks

    def _box(self, class_name: str, row: int, columns: int) -> np.ndarray:
        """An object's box with as many columns as the scene's boxes have; a velocity it lacks is zero."""
        box = np.zeros(columns, dtype=np.float32)
        known = self.tables[class_name].boxes[row, :columns]
        box[: len(known)] = known
        return box

    def _read_object(self, class_name: str, row: int, box: np.ndarray) -> np.ndarray:
        """(n, C) float32 points of an object, moved from its own frame to the box."""
        table = self.tables[class_name]
        path, count = self.root_path / table.paths[row], int(table.num_points[row])
        try:
            raw = np.fromfile(path, dtype=np.uint8)
        except FileNotFoundError:
            raise DataError(f"{path} does not exist, but the database names it; {ADVICE}") from None
        for dtype in (np.float32, np.float64):  # some databases were written in float64
            if raw.size == count * self.num_point_features * np.dtype(dtype).itemsize:
                points = raw.view(dtype).reshape(count, self.num_point_features).astype(np.float32)
                if not np.isfinite(points).all():
                    raise DataError(
                        f"{path} holds NaN or infinite values ({class_name} of the gt_sampling database); {ADVICE}"
                    )
                points[:, :3] += box[:3]
                return points
        raise DataError(
            f"{path} has {raw.size} bytes; {count} points of {self.num_point_features} float32 have "
            f"{count * self.num_point_features * 4}: NUM_POINT_FEATURES is wrong, or {ADVICE}"
        )

    def _heights_above_plane(self, boxes: np.ndarray, plane: np.ndarray | None, sample: dict) -> np.ndarray:
        """(K,) metres by which the boxes' bottoms lie above the road; zeros where there is no plane to set them on."""
        if not self.use_road_plane or plane is None:
            return np.zeros(len(boxes), dtype=np.float32)
        return heights_above_plane(boxes, plane, sample["calib"]).astype(np.float32)


def heights_above_plane(boxes: np.ndarray, plane: np.ndarray, calib) -> np.ndarray:
    """How far the bottoms of boxes lie above a plane, along the LiDAR's z axis.

    Args:
        boxes: (K, 7+) LiDAR frame.
        plane: (4,) [a, b, c, d] with ax + by + cz + d = 0 in the rectified camera frame.
        calib: ``Calibration`` of the frame.

    Returns:
        (K,) metres.
    """
    a, b, c, d = plane
    on_plane = calib.lidar_to_rect(boxes[:, :3])
    on_plane[:, 1] = (-d - a * on_plane[:, 0] - c * on_plane[:, 2]) / b
    return boxes[:, 2] - boxes[:, 5] / 2 - calib.rect_to_lidar(on_plane)[:, 2]


def is_free(boxes: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """(K,) bool: which boxes overlap, in bird's-eye view, neither a taken box nor another of their own.

    Args:
        boxes: (K, 7) candidates.
        taken: (M, 7) boxes that are there.
    """
    from pcdet.ops.iou3d_nms.iou3d_nms_utils import boxes_bev_iou_cpu

    overlaps = np.asarray(boxes_bev_iou_cpu(boxes, np.concatenate([taken, boxes], axis=0))) > 0
    own = overlaps[:, len(taken) :]
    np.fill_diagonal(own, False)
    return ~overlaps.any(axis=1)
