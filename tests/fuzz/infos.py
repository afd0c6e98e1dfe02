"""Targets: info and database files as the data sets open them, with entries that are gone, odd or of another kind."""

from __future__ import annotations

import copy
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.pickles import MODULES, TOKENS, require_plain
from fuzz.target import Target
from pcdet.datasets.augmentor.database_checks import check_database
from pcdet.datasets.augmentor.database_sampler import ObjectTable
from pcdet.datasets.errors import DataError
from pcdet.datasets.kitti.info_checks import check_infos
from pcdet.datasets.kitti.kitti_utils import calibration_of
from pcdet.datasets.pickles import read_pickle
from pcdet.utils import safe_pickle

ODD = (
    *(None, True, -1, 0, 2**70, float("nan"), float("inf"), "", ".", "..", "/etc/passwd", "a/b", "\ufeff", b"\xff"),
    *([], {}, (2**40, 2**40), np.zeros((4, 4)), np.full(7, 1e300), np.full((2, 3), 1e-60)),
    *([[1], [2, 3]], {"a": 1}, np.zeros(0), np.zeros((2, 8)), np.full((2, 3), np.nan), np.float32(1), np.array("x")),
    *(np.array(["Car", None], dtype=object), np.zeros((1, 1, 1)), np.int64(-5), (1, (2, 3)), np.array([1e300, -0.0])),
)


def infos() -> list[dict]:
    """Two frames of a data set, the second without an object."""
    names = np.array(["Car", "DontCare"])
    column, triple = np.zeros(2), np.ones((2, 3))
    annos = {"name": names, "truncated": column, "occluded": column, "alpha": column, "bbox": np.ones((2, 4))}
    annos |= {"dimensions": triple, "location": triple, "rotation_y": column, "score": column, "difficulty": column}
    annos |= {"index": np.array([0, -1]), "num_points_in_gt": np.array([5, -1]), "gt_boxes_lidar": np.ones((1, 7))}
    calib = {"P2": np.eye(4), "R0_rect": np.eye(4), "Tr_velo_to_cam": np.eye(4)}
    image = {"image_idx": "000000", "image_shape": np.array([370, 1224], np.int32)}
    frame = {"point_cloud": {"num_features": 4, "lidar_idx": "000000"}, "image": image, "calib": calib}
    empty = {key: value[:0] for key, value in annos.items()}
    return [{**frame, "annos": annos}, {**frame, "point_cloud": {"num_features": 4, "lidar_idx": "1"}, "annos": empty}]


def database() -> dict[str, list[dict]]:
    """Two objects of a database."""
    entry = {"name": "Car", "path": "gt_database/000000_Car_0.bin", "image_idx": "000000", "gt_idx": 0}
    entry |= {"box3d_lidar": np.ones(7), "num_points_in_gt": 5, "difficulty": 0, "bbox": np.ones(4), "score": -1.0}
    return {"Car": [entry, dict(entry)], "Cyclist": []}


def changed(value: Any, rng: random.Random) -> bytes:
    """A pickle of the value after one to three of its entries were replaced, renamed or deleted."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        node = value
        while isinstance(node, (dict, list)) and node:
            key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
            if not isinstance(node[key], (dict, list)) or not node[key] or rng.random() < 0.2:
                how = rng.random()
                old = node.pop(key)
                if how < 0.8 and isinstance(node, dict):
                    node[key] = rng.choice(ODD)
                elif how < 0.8:
                    node.insert(key, rng.choice(ODD))
                elif how < 0.9 and isinstance(node, dict):
                    node[f"{key}x"] = old
                break
            node = node[key]
    return pickle.dumps(value, protocol=rng.choice([2, 3, 4, 5]))


def _read_infos(path: Path) -> list[dict]:
    content = read_pickle(path)
    check_infos(content, path)
    return content


def _check_infos(content: list[dict], path: Path) -> None:
    require_plain(content)
    for info in content:
        assert isinstance(info["point_cloud"]["lidar_idx"], str), "a frame's name is no text"
        np.asarray(info["image"]["image_shape"], dtype=np.int32)
        annos = info.get("annos")
        if annos is None:
            continue
        real = [name != "DontCare" for name in annos["name"]]
        for key in ("location", "dimensions"):
            assert np.isfinite(np.asarray(annos[key], dtype=np.float32)[real]).all(), f"{key} is not finite"
        assert (np.asarray(annos["dimensions"], dtype=np.float32)[real] > 0).all(), "an object has no size"
        boxes = annos.get("gt_boxes_lidar")
        assert boxes is None or np.isfinite(np.asarray(boxes, dtype=np.float64)).all(), "a box is not finite"
    if content:
        calib = calibration_of(content[0])
        assert np.isfinite([calib.tx, calib.ty]).all(), "a calibration leads nowhere"


def _read_database(path: Path) -> dict:
    content = read_pickle(path)
    check_database(content, path, ["Car", "Cyclist"])
    return content


def _check_database(content: dict, path: Path) -> None:
    require_plain(content)
    for entries in (content.get("Car", []), content.get("Cyclist", [])):
        boxes = ObjectTable.from_infos(entries).boxes
        assert np.isfinite(boxes).all() and (boxes[:, 3:6] > 0).all(), f"boxes are {boxes.tolist()}"
        for entry in entries:
            path = Path(entry["path"])
            assert path.parts and not path.is_absolute() and ".." not in path.parts, f"a path is {path}"


SHARED = {"folder": "infos", "suffix": ".pkl", "refusals": (DataError,), "tokens": TOKENS, "memory": 512}
TARGETS = [
    Target(
        name="kitti_infos",
        read=_read_infos,
        seeds=lambda: [safe_pickle.dumps(infos()), safe_pickle.dumps([])],
        draw=lambda rng: changed(infos(), rng),
        check=_check_infos,
        modules=(
            "pcdet.datasets.kitti.info_checks",
            "pcdet.datasets.kitti.kitti_utils",
            "pcdet.datasets.file_names",
            *MODULES,
        ),
        **SHARED,
    ),
    Target(
        name="kitti_dbinfos",
        read=_read_database,
        seeds=lambda: [safe_pickle.dumps(database())],
        draw=lambda rng: changed(database(), rng),
        check=_check_database,
        modules=("pcdet.datasets.augmentor.database_checks", "pcdet.datasets.file_names", *MODULES),
        **SHARED,
    ),
]
