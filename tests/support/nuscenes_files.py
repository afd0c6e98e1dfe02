"""A little nuScenes release with clouds, so that tests know what must come out.

The vehicle drives and turns through a world with three objects. Key frames come every half second, with two sweeps
between; the LiDAR looks to the vehicle's right, as nuScenes' does. Tokens say what they stand for.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

VERSION, SWEEPS = "v1.0-mini", 5  # clouds in a sample of the prepared release
SCENES = {"scene-0061": 3, "scene-0103": 2}  # of mini_train and mini_val; key frames in each
STEPS_A_SAMPLE = 3  # clouds from one key frame to the next
STEP = 0.5 / STEPS_A_SAMPLE  # seconds
SIZE = (2.0, 4.0, 1.5)  # width, length, height
SENSOR_PLACE, SENSOR_YAW = (1.0, 0.0, 1.8), -math.pi / 2
# Name -> category, place at time 0, velocity, yaw; global frame. The bicycle was seen by nothing.
OBJECTS = {
    "parked": ("vehicle.car", (20.0, 6.0, 0.75), (0.0, 0.0, 0.0), 0.5),
    "moving": ("vehicle.truck", (12.0, -6.0, 0.75), (4.0, 3.0, 0.0), math.atan2(3, 4)),
    "ambulance": ("vehicle.emergency.ambulance", (-15.0, 2.0, 0.75), (0.0, 0.0, 0.0), 0.0),
    "unseen": ("vehicle.bicycle", (0.0, 30.0, 0.75), (0.0, 0.0, 0.0), 0.0),
}
POINTS_OF_AN_OBJECT = 27
EGO_POINT = (0.4, -0.6, -1.0)


def turn(yaw: float) -> np.ndarray:
    """(3, 3) about z."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def quaternion(yaw: float) -> list[float]:
    return [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]


def car_pose(time: float) -> tuple[np.ndarray, float]:
    """Place and yaw of the vehicle."""
    return np.array([5.0 * time, 0.5 * time, 0.0]), 0.2 * time


def to_lidar(points: np.ndarray, time: float) -> np.ndarray:
    """Global (N, 3) as the LiDAR sees it."""
    place, yaw = car_pose(time)
    in_car = (points - place) @ turn(yaw)
    return (in_car - np.array(SENSOR_PLACE)) @ turn(SENSOR_YAW)


def place_of(name: str, time: float) -> np.ndarray:
    _, place, velocity, _ = OBJECTS[name]
    return np.array(place) + np.array(velocity) * time


def points_of(name: str, time: float) -> np.ndarray:
    """(27, 3) well inside an object, global frame."""
    t = np.linspace(-0.4, 0.4, 3)
    local = np.stack(np.meshgrid(t, t, t, indexing="ij"), -1).reshape(-1, 3) * np.array([SIZE[1], SIZE[0], SIZE[2]])
    return local @ turn(OBJECTS[name][3]).T + place_of(name, time)


def cloud_at(time: float, seed: int) -> np.ndarray:
    """(N, 5) float32: the objects' points, one on the vehicle, and some far away."""
    seen = [to_lidar(points_of(name, time), time) for name in OBJECTS if name != "unseen"]
    far = np.random.default_rng(seed).uniform([-50, -50, 3], [50, 50, 5], (20, 3))
    points = np.concatenate([*seen, [EGO_POINT], far])
    return np.concatenate([points, np.full((len(points), 1), 7.0), np.zeros((len(points), 1))], 1).astype(np.float32)


def write_release(root: Path, version: str = VERSION, scenes: dict[str, int] = SCENES) -> Path:
    """Writes ``root/<version>/{samples,sweeps,<version>}`` and returns ``root``."""
    folder = root / version
    tables: dict[str, list[dict]] = {
        "sensor": [{"token": "lidar", "channel": "LIDAR_TOP", "modality": "lidar"}],
        "calibrated_sensor": [
            {
                "token": "lidar of the car",
                "sensor_token": "lidar",
                "translation": list(SENSOR_PLACE),
                "rotation": quaternion(SENSOR_YAW),
            }
        ],
        "category": [{"token": name, "name": category} for name, (category, *_) in OBJECTS.items()],
        "instance": [],
        **{name: [] for name in ("scene", "sample", "sample_data", "ego_pose", "sample_annotation")},
    }
    for kind in ("samples", "sweeps"):
        (folder / kind / "LIDAR_TOP").mkdir(parents=True)
    for scene, samples in scenes.items():
        _add_scene(folder, tables, scene, samples)
    (folder / version).mkdir()
    for name, rows in tables.items():
        (folder / version / f"{name}.json").write_text(json.dumps(rows))
    return root


def _add_scene(folder: Path, tables: dict[str, list[dict]], scene: str, samples: int) -> None:
    tables["scene"].append({"token": scene, "name": scene, "first_sample_token": f"{scene} 0"})
    tables["instance"] += [{"token": f"{scene} {name}", "category_token": name} for name in OBJECTS]
    clouds = (samples - 1) * STEPS_A_SAMPLE + 1
    for k in range(clouds):
        time, number, is_key = k * STEP, k // STEPS_A_SAMPLE, k % STEPS_A_SAMPLE == 0
        file = f"{'samples' if is_key else 'sweeps'}/LIDAR_TOP/{scene}_{k}.pcd.bin"
        cloud_at(time, seed=k).tofile(folder / file)
        place, yaw = car_pose(time)
        tables["ego_pose"].append(
            {"token": f"{scene} pose {k}", "translation": place.tolist(), "rotation": quaternion(yaw)}
        )
        tables["sample_data"].append(
            {
                "token": f"{scene} data {k}",
                "sample_token": f"{scene} {-(-k // STEPS_A_SAMPLE)}",
                "ego_pose_token": f"{scene} pose {k}",
                "calibrated_sensor_token": "lidar of the car",
                "timestamp": 1_000_000 + round(time * 1e6),
                "is_key_frame": is_key,
                "filename": file,
                "prev": f"{scene} data {k - 1}" if k else "",
                "next": f"{scene} data {k + 1}" if k + 1 < clouds else "",
            }
        )
        if is_key:
            _add_sample(tables, scene, number, samples, time)


def _add_sample(tables: dict[str, list[dict]], scene: str, number: int, samples: int, time: float) -> None:
    def link(name: str, other: int) -> str:
        return f"{scene} {other}{name}" if 0 <= other < samples else ""

    tables["sample"].append(
        {
            "token": link("", number),
            "scene_token": scene,
            "timestamp": 1_000_000 + round(time * 1e6),
            "prev": link("", number - 1),
            "next": link("", number + 1),
        }
    )
    tables["sample_annotation"] += [
        {
            "token": link(f" {name}", number),
            "sample_token": link("", number),
            "instance_token": f"{scene} {name}",
            "translation": place_of(name, time).tolist(),
            "size": list(SIZE),
            "rotation": quaternion(OBJECTS[name][3]),
            "prev": link(f" {name}", number - 1),
            "next": link(f" {name}", number + 1),
            "num_lidar_pts": 0 if name == "unseen" else POINTS_OF_AN_OBJECT,
            "num_radar_pts": 0,
            "attribute_tokens": [],
        }
        for name in OBJECTS
    ]


def change_table(root: Path, name: str, change, version: str = VERSION) -> None:
    """Writes a table again after ``change(rows)``."""
    file = root / version / version / f"{name}.json"
    rows = json.loads(file.read_text())
    change(rows)
    file.write_text(json.dumps(rows))
