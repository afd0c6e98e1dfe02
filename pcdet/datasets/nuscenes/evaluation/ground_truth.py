"""What is to be found in the samples of a split: labelled boxes, bicycle racks and where the vehicle stood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pcdet.datasets.errors import DataError
from pcdet.datasets.nuscenes.categories import BICYCLE_RACK, detection_class
from pcdet.datasets.nuscenes.evaluation.boxes import Boxes
from pcdet.datasets.nuscenes.evaluation.rules import (
    ATTRIBUTE_NUMBER,
    ATTRIBUTES,
    CLASS_NUMBER,
)
from pcdet.datasets.nuscenes.poses import matrices_of, yaw_of
from pcdet.datasets.nuscenes.table_rows import Row, column
from pcdet.datasets.nuscenes.tables import Tables
from pcdet.datasets.nuscenes.velocities import velocities_of


@dataclass(frozen=True, kw_only=True)
class Racks:
    """R bicycle racks, global frame.

    Attributes:
        sample: (R,) number of the sample.
        center: (R, 3).
        size: (R, 3) width, length, height.
        axes: (R, 3, 3) rotations from the rack's frame, whose x axis lies along its length.
    """

    sample: np.ndarray
    center: np.ndarray
    size: np.ndarray
    axes: np.ndarray


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """The labels of S samples.

    Attributes:
        tokens: S of them.
        ego: (S, 2) places of the vehicle over the ground, global frame.
        boxes: of the classes that are detected, in the order of the tables.
        points: (N,) LiDAR and radar points in each box.
        racks: bicycle racks.
    """

    tokens: Sequence[str]
    ego: np.ndarray
    boxes: Boxes
    points: np.ndarray
    racks: Racks


def read_ground_truth(tables: Tables, tokens: Sequence[str], ego: np.ndarray | None = None) -> GroundTruth:
    """The labels of samples, from the tables of a release.

    Args:
        tables: with annotations.
        tokens: of the samples, each once.
        ego: (S, 2) places of the vehicle, where they are known; else they are read, from two large tables.

    Raises:
        DataError: a row is malformed, one that another names is not there, an object has several attributes, or no
            sample has a label (a test split).
    """
    number = {token: i for i, token in enumerate(tokens)}
    rows = [row for row in tables.rows("sample_annotation") if row["sample_token"] in number]
    if not rows:
        raise DataError(f"{tables.folder}/sample_annotation.json labels none of the {len(number)} samples to evaluate")
    category = [tables.category_of(row) for row in rows]
    classes = {name: detection_class(name) for name in set(category)}
    labelled = [(row, classes[name]) for row, name in zip(rows, category, strict=True)]
    objects = [(row, name) for row, name in labelled if name in CLASS_NUMBER]
    racks = [row for row, name in zip(rows, category, strict=True) if name == BICYCLE_RACK]
    return GroundTruth(
        tokens=list(tokens),
        ego=ego_places(tables, tokens) if ego is None else np.asarray(ego, dtype=np.float64),
        boxes=_boxes(tables, objects, number),
        points=np.array([row["num_lidar_pts"] + row["num_radar_pts"] for row, _ in objects], dtype=np.int64),
        racks=Racks(
            sample=np.array([number[row["sample_token"]] for row in racks], dtype=np.int64),
            center=column(racks, "translation", 3),
            size=column(racks, "size", 3),
            axes=matrices_of(column(racks, "rotation", 4)),
        ),
    )


def ego_places(tables: Tables, tokens: Sequence[str]) -> np.ndarray:
    """(S, 2) places of the vehicle at the samples' key frames of LIDAR_TOP, over the ground of the global frame."""
    frames = tables.key_frames
    if missing := [token for token in tokens if token not in frames]:
        raise DataError(f"{tables.folder}/sample_data.json has no key frame of LIDAR_TOP for the sample {missing[0]}")
    poses = [tables.get("ego_pose", frames[token]["ego_pose_token"]) for token in tokens]
    return np.array([pose["translation"][:2] for pose in poses], dtype=np.float64).reshape(-1, 2)


def _boxes(tables: Tables, objects: Sequence[tuple[Row, str]], number: Mapping[str, int]) -> Boxes:
    rows = [row for row, _ in objects]
    return Boxes(
        sample=np.array([number[row["sample_token"]] for row in rows], dtype=np.int64),
        class_id=np.array([CLASS_NUMBER[name] for _, name in objects], dtype=np.int64),
        center=column(rows, "translation", 3),
        size=column(rows, "size", 3),
        yaw=yaw_of(column(rows, "rotation", 4)),
        velocity=velocities_of(tables, rows)[:, :2],
        attribute=np.array([_attribute(tables, row) for row in rows], dtype=np.int64),
    )


def _attribute(tables: Tables, row: Row) -> int:
    found = row["attribute_tokens"]
    if len(found) > 1:
        raise DataError(f"sample_annotation {row['token']} has {len(found)} attributes; an object has at most one")
    name = tables.get("attribute", found[0])["name"] if found else ""
    if name not in ATTRIBUTE_NUMBER:
        raise DataError(
            f"sample_annotation {row['token']} has the attribute {name!r}; there are {', '.join(ATTRIBUTES)}"
        )
    return ATTRIBUTE_NUMBER[name]
