"""Tiny nuScenes releases, written as tables: two samples of one scene, the vehicle at the origin of the world."""

import json
import math
from pathlib import Path

VERSION, SAMPLES = "v1.0-mini", ("sample0", "sample1")  # of scene-0103, which mini_val has
CATEGORIES = {
    "car": "vehicle.car", "barrier": "movable_object.barrier", "bicycle": "vehicle.bicycle",
    "pedestrian": "human.pedestrian.adult", "traffic_cone": "movable_object.trafficcone",
    "rack": "static_object.bicycle_rack",
}  # fmt: skip


def quaternion(yaw: float) -> list[float]:
    """[w, x, y, z] of a turn about z."""
    return [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]


def labelled(name, center, sample=0, *, size=(2, 4, 1.5), yaw=0.0, points=9, attribute=None, instance=None):
    """An object to write: width, length, height; labels of one ``instance`` are one object's."""
    return {
        "name": name, "translation": list(center), "sample": sample, "size": list(size), "yaw": yaw, "points": points,
        "attribute": attribute, "instance": instance,
    }  # fmt: skip


def write_release(root: Path, objects: list[dict], seconds: float = 0.5) -> Path:
    """Writes the tables and returns ``root``."""
    folder = root / VERSION
    folder.mkdir(parents=True)
    instances = [o["instance"] or f"object{i}" for i, o in enumerate(objects)]
    annotations = [_annotation(i, o, instances[i]) for i, o in enumerate(objects)]
    for i, row in enumerate(annotations):
        others = [other for j, other in enumerate(annotations) if instances[j] == instances[i] and j != i]
        for other in others:
            row["next" if other["sample_token"] > row["sample_token"] else "prev"] = other["token"]
    attributes = sorted({o["attribute"] for o in objects if o["attribute"]})
    tables = {
        "scene": [{"token": "scene", "name": "scene-0103", "first_sample_token": SAMPLES[0]}],
        "sample": [
            {"token": SAMPLES[0], "scene_token": "scene", "next": SAMPLES[1], "prev": "", "timestamp": 0},
            {
                "token": SAMPLES[1],
                "scene_token": "scene",
                "next": "",
                "prev": SAMPLES[0],
                "timestamp": int(seconds * 1e6),
            },
        ],
        "sensor": [{"token": "lidar", "channel": "LIDAR_TOP", "modality": "lidar"}],
        "calibrated_sensor": [
            {"token": "cs", "sensor_token": "lidar", "translation": [0.0, 0.0, 0.0], "rotation": quaternion(0)}
        ],
        "ego_pose": [{"token": "pose", "translation": [0.0, 0.0, 0.0], "rotation": quaternion(0)}],
        "sample_data": [
            {"token": f"data{s}", "sample_token": s, "is_key_frame": True, "calibrated_sensor_token": "cs",
             "ego_pose_token": "pose", "timestamp": int(i * seconds * 1e6), "filename": f"{s}.pcd.bin", "prev": ""}
            for i, s in enumerate(SAMPLES)
        ],
        "category": [{"token": name, "name": category} for name, category in CATEGORIES.items()],
        "attribute": [{"token": name, "name": name} for name in attributes],
        "instance": [
            {"token": token, "category_token": name}
            for token, name in {i: o["name"] for i, o in zip(instances, objects, strict=True)}.items()
        ],
        "sample_annotation": annotations,
    }  # fmt: skip
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    return root


def _annotation(number: int, o: dict, instance: str) -> dict:
    return {
        "token": f"label{number}", "sample_token": SAMPLES[o["sample"]], "instance_token": instance,
        "translation": o["translation"], "size": o["size"], "rotation": quaternion(o["yaw"]), "prev": "", "next": "",
        "num_lidar_pts": o["points"], "num_radar_pts": 0,
        "attribute_tokens": [o["attribute"]] if o["attribute"] else [],
    }  # fmt: skip


def detected(name, center, sample=0, *, size=(2, 4, 1.5), yaw=0.0, velocity=(0, 0), score=0.5, attribute=""):
    """A box of a result file."""
    return {
        "sample_token": SAMPLES[sample], "translation": list(center), "size": list(size), "rotation": quaternion(yaw),
        "velocity": list(velocity), "detection_name": name, "detection_score": score, "attribute_name": attribute,
    }  # fmt: skip


def write_results(file: Path, boxes: list[dict], **changes) -> Path:
    """Writes a result file of these boxes, with keys of its content changed, and returns its path."""
    results = {token: [box for box in boxes if box["sample_token"] == token] for token in SAMPLES}
    file.write_text(json.dumps({"meta": {"use_lidar": True}, "results": results, **changes}))
    return file
