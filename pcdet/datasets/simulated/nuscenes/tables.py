"""Rows of nuScenes' tables, in the schema of version 1.0. Tokens are made from what they name, so they never change."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pcdet.datasets.simulated.nuscenes.classes import CLASSES
from pcdet.datasets.simulated.nuscenes.sweeps import MOUNT, MOUNT_YAW

Row = dict[str, Any]
ATTRIBUTES = (
    "vehicle.moving",
    "vehicle.stopped",
    "vehicle.parked",
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.sitting_lying_down",
    "pedestrian.standing",
    "pedestrian.moving",
)
VISIBILITIES = ("v0-40", "v40-60", "v60-80", "v80-100")  # per cent of an object that can be seen
VISIBLE_SHARES = (0.4, 0.6, 0.8)  # what divides them
MAP_FILE = "maps/none.png"
CALIBRATION, LIDAR = "calibrated_sensor/LIDAR_TOP", "sensor/LIDAR_TOP"


def token(*parts: object) -> str:
    """32 hexadecimal digits that stand for what the parts name together."""
    return hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def turn(yaw: float) -> list[float]:
    """The quaternion [w, x, y, z] of a turn about the upright axis."""
    return [float(np.cos(0.5 * yaw)), 0.0, 0.0, float(np.sin(0.5 * yaw))]


def visibility(share: float) -> str:
    """Token of the level for a share 0..1 that can be seen."""
    return str(1 + int(np.searchsorted(VISIBLE_SHARES, share, side="right")))


def fixed_tables(logs: Sequence[str]) -> dict[str, list[Row]]:
    """The tables that do not depend on the scenes but for the tokens of their logs."""
    calibration = {
        "token": token(CALIBRATION),
        "sensor_token": token(LIDAR),
        "translation": list(MOUNT),
        "rotation": turn(MOUNT_YAW),
        "camera_intrinsic": [],
    }
    return {
        "category": [
            {"token": token("category", kind.category), "name": kind.category, "description": f"simulated {name}"}
            for name, kind in CLASSES.items()
        ],
        "attribute": [{"token": token("attribute", name), "name": name, "description": ""} for name in ATTRIBUTES],
        "visibility": [
            {
                "token": str(number),
                "level": level,
                "description": f"{level[1:]} % can be seen",
            }
            for number, level in enumerate(VISIBILITIES, start=1)
        ],
        "sensor": [{"token": token(LIDAR), "channel": "LIDAR_TOP", "modality": "lidar"}],
        "calibrated_sensor": [calibration],
        "map": [{"token": token("map"), "log_tokens": list(logs), "category": "semantic_prior", "filename": MAP_FILE}],
    }


def link(rows: Sequence[Row]) -> None:
    """Fills ``prev`` and ``next`` of rows that follow one another; the ends hold an empty string."""
    for index, row in enumerate(rows):
        row["prev"] = rows[index - 1]["token"] if index else ""
        row["next"] = rows[index + 1]["token"] if index + 1 < len(rows) else ""


def instances(annotations: Sequence[Row], categories: Mapping[str, str]) -> list[Row]:
    """The instances of annotations in the order of time, whose ``prev`` and ``next`` are filled on the way.

    Args:
        annotations: rows of ``sample_annotation``.
        categories: token of an instance -> token of its category.
    """
    found = []
    for name, category in categories.items():
        chain = [row for row in annotations if row["instance_token"] == name]
        link(chain)
        if chain:
            found.append(
                {
                    "token": name,
                    "category_token": category,
                    "nbr_annotations": len(chain),
                    "first_annotation_token": chain[0]["token"],
                    "last_annotation_token": chain[-1]["token"],
                }
            )
    return found
