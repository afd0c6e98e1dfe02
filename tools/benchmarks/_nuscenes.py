"""Simulated sweeps of nuScenes' size, with infos and a database of objects, for benchmarks of loading."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pcdet.datasets.nuscenes.categories import DETECTION_CLASSES
from pcdet.datasets.nuscenes.layout import database_folder, database_name, info_name
from pcdet.utils import safe_pickle

BEAMS, STEPS = 32, 1084  # of the HDL-32E at 20 Hz: 34,688 points a sweep
SIZES = {"car": (4.6, 2.0, 1.7), "pedestrian": (0.7, 0.7, 1.8), "bus": (11.0, 2.9, 3.5)}
POINTS_OF_AN_OBJECT = 300


def cloud(rng: np.random.Generator) -> np.ndarray:
    """(34,688, 5) float32: what 32 beams see of a street between walls, x, y, z, intensity, ring."""
    azimuth = np.linspace(0, 2 * np.pi, STEPS, endpoint=False)[:, None]
    elevation = np.radians(np.linspace(-30.67, 10.67, BEAMS))[None]
    to_wall = rng.uniform(8, 70, STEPS)[:, None] * np.ones((1, BEAMS))
    to_ground = np.where(elevation < 0, 1.84 / np.maximum(np.sin(-elevation), 1e-3), np.inf)
    reach = np.minimum(to_wall, to_ground) * rng.uniform(0.995, 1.005, (STEPS, BEAMS))
    ring = np.broadcast_to(np.arange(BEAMS), (STEPS, BEAMS))
    columns = [
        reach * np.cos(elevation) * np.sin(azimuth),
        reach * np.cos(elevation) * np.cos(azimuth),
        reach * np.sin(elevation),
        rng.uniform(0, 255, (STEPS, BEAMS)).round(),
        ring,
    ]
    return np.stack(columns, axis=-1).reshape(-1, 5).astype(np.float32)


def labels(rng: np.random.Generator, number: int) -> dict[str, np.ndarray]:
    """Boxes of ``number`` objects, as an info has them."""
    names = rng.choice(list(SIZES), number)
    boxes = np.zeros((number, 9))
    boxes[:, :2] = rng.uniform(-48, 48, (number, 2))
    boxes[:, 2] = -1.0
    boxes[:, 3:6] = [SIZES[name] for name in names]
    boxes[:, 6] = rng.uniform(-np.pi, np.pi, number)
    boxes[:, 7:] = rng.normal(0, 3, (number, 2))
    tokens = np.array([rng.bytes(16).hex() for _ in range(number)], dtype="<U32")
    return {
        "gt_boxes": boxes,
        "gt_boxes_velocity": np.concatenate([boxes[:, 7:], np.zeros((number, 1))], axis=1),
        "gt_names": names.astype(str),
        "gt_boxes_token": tokens,
        "num_lidar_pts": rng.integers(1, 200, number),
        "num_radar_pts": rng.integers(0, 5, number),
    }


def pose(rng: np.random.Generator) -> np.ndarray:
    """(4, 4) a small turn and a step of a few metres."""
    angle = rng.normal(0, 0.05)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = rng.normal(0, [2, 2, 0.05])
    return matrix


def info(rng: np.random.Generator, frame: int, clouds: int, objects: int = 34) -> dict:
    """An info as ``create_nuscenes_infos`` writes it; paths as long as nuScenes' own.

    Args:
        rng: where its numbers come from.
        frame: its number.
        clouds: how many different files there are.
        objects: labelled in it; 34 is nuScenes' mean.
    """
    sweeps = [
        {
            "lidar_path": path_of("sweeps", (frame + k) % clouds),
            "sample_data_token": rng.bytes(16).hex(),
            "transform_matrix": pose(rng),
            "global_from_car": pose(rng),
            "car_from_current": pose(rng),
            "time_lag": 0.05 * k,
        }
        for k in range(1, 10)
    ]
    return {
        "lidar_path": path_of("samples", frame % clouds),
        "cam_front_path": f"samples/CAM_FRONT/n015-2018-07-24-11-22-45+0800__CAM_FRONT__{frame:016d}.jpg",
        "cam_intrinsic": np.eye(3),
        "token": f"{frame:032x}",
        "sweeps": sweeps,
        "ref_from_car": pose(rng),
        "car_from_global": pose(rng),
        "timestamp": 1.5e9 + 0.5 * frame,
        **labels(rng, objects),
    }


def path_of(kind: str, number: int) -> str:
    """Path of a cloud, relative to the release's folder."""
    return f"{kind}/LIDAR_TOP/n015-2018-07-24-11-22-45+0800__LIDAR_TOP__{number:016d}.pcd.bin"


def write_prepared(root: Path, frames: int, seed: int = 0) -> None:
    """A prepared release ``root/v1.0-trainval`` of ``frames`` samples and a database of 200 objects a class."""
    rng, folder = np.random.default_rng(seed), root / "v1.0-trainval"
    for kind in ("samples", "sweeps"):
        (folder / kind / "LIDAR_TOP").mkdir(parents=True)
        for number in range(frames):
            cloud(rng).tofile(folder / path_of(kind, number))
    infos = [info(rng, frame, frames) for frame in range(frames)]
    for split in ("train", "val"):
        safe_pickle.dump(infos, folder / info_name(split, 10))
    safe_pickle.dump(_write_objects(folder, rng), folder / database_name(10))


def _write_objects(folder: Path, rng: np.random.Generator) -> dict[str, list[dict]]:
    (folder / database_folder(10)).mkdir()
    database: dict[str, list[dict]] = {}
    for name in DETECTION_CLASSES:
        size = SIZES.get(name, SIZES["car"])
        database[name] = []
        for number in range(200):
            path = f"{database_folder(10)}/{number}_{name}_0.bin"
            points = rng.uniform(-0.5, 0.5, (POINTS_OF_AN_OBJECT, 5)) * [*size, 200, 0.4]
            points.astype(np.float32).tofile(folder / path)
            box = np.array([*rng.uniform(-48, 48, 2), -1.0, *size, rng.uniform(-3, 3), 1.0, 0.0])
            entry = {"name": name, "path": path, "image_idx": number, "gt_idx": 0, "box3d_lidar": box}
            database[name].append({**entry, "num_points_in_gt": POINTS_OF_AN_OBJECT})
    return database
