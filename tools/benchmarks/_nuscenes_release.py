"""A nuScenes release of validation size from the tables of a small one, with detections that are made up."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random

from PIL import Image

from pcdet.datasets.nuscenes.categories import detection_class
from pcdet.datasets.nuscenes.evaluation.rules import ATTRIBUTES, CLASSES
from pcdet.datasets.nuscenes.splits import samples_of_split, scene_names
from pcdet.datasets.nuscenes.tables import TABLES, Row, Tables

VERSION = "v1.0-trainval"
COPIED = ("category", "attribute", "visibility", "sensor", "calibrated_sensor", "log", "map")
TOKENS = ("token", "prev", "next", "scene_token", "sample_token", "ego_pose_token", "instance_token")
TOKENS += ("first_sample_token", "last_sample_token", "first_annotation_token", "last_annotation_token")
MAP = "maps/none.png"
FALSE_ALARMS_WITHIN = 55.0  # metres
FOUND = 0.8  # chance of each of two detections of a labelled box


def write_release(
    source: Path, target: Path, *, scenes: int, boxes: int, detections: tuple[int, int], seed: int
) -> Path:
    """Writes copies of the scenes of ``mini_val`` under the names of scenes of ``val``, and results for them.

    Args:
        source: folder of a v1.0-mini.
        target: made.
        scenes: copies in all.
        boxes: labelled in a sample, on average: objects are left out at random.
        detections: least and most in a sample.
        seed: of what is drawn.

    Returns:
        The result file.
    """
    tables, rng = Tables(source, "v1.0-mini"), Random(seed)
    samples = samples_of_split(tables, "mini_val")
    (target / VERSION).mkdir(parents=True)
    written: dict[str, list[Row]] = {name: [] for name in TABLES}
    for name in COPIED:
        written[name] = tables.rows(name)
    originals = sorted({sample["scene_token"] for sample in samples})
    for copy, name in enumerate(sorted(scene_names()["val"])[:scenes]):
        scene = tables.get("scene", originals[copy % len(originals)])
        _copy_scene(tables, {**scene, "name": name}, f"-{copy}", written)
    _thin(written, boxes, rng)
    written["map"] = [{**row, "filename": MAP} for row in written["map"]]
    for name, rows in written.items():
        (target / VERSION / f"{name}.json").write_text(json.dumps(rows))
    (target / MAP).parent.mkdir()
    Image.new("L", (1, 1)).save(target / MAP)  # the devkit wants it to be there
    return _write_results(target / "results.json", written, detections, rng)


def _copy_scene(tables: Tables, scene: Row, ending: str, written: dict[str, list[Row]]) -> None:
    """Appends a scene's rows, with an ending at every token that is not shared by all scenes."""

    def copied(row: Row) -> Row:
        return {key: value + ending if key in TOKENS and value else value for key, value in row.items()}

    samples = {row["token"] for row in tables.rows("sample") if row["scene_token"] == scene["token"]}
    labels = [row for row in tables.rows("sample_annotation") if row["sample_token"] in samples]
    instances = {row["instance_token"] for row in labels}
    clouds = [{**tables.key_frames[token], "prev": "", "next": ""} for token in sorted(samples)]
    written["scene"].append(copied(scene))
    written["sample"] += [copied(row) for row in tables.rows("sample") if row["token"] in samples]
    written["sample_annotation"] += map(copied, labels)
    written["instance"] += [copied(row) for row in tables.rows("instance") if row["token"] in instances]
    written["sample_data"] += map(copied, clouds)
    written["ego_pose"] += [copied(tables.get("ego_pose", cloud["ego_pose_token"])) for cloud in clouds]


def _thin(written: dict[str, list[Row]], boxes: int, rng: Random) -> None:
    share = boxes * len(written["sample"]) / len(written["sample_annotation"])
    kept = {row["token"] for row in written["instance"] if rng.random() < share}
    written["instance"] = [row for row in written["instance"] if row["token"] in kept]
    written["sample_annotation"] = [row for row in written["sample_annotation"] if row["instance_token"] in kept]


def _write_results(file: Path, written: dict[str, list[Row]], detections: tuple[int, int], rng: Random) -> Path:
    category = {row["token"]: row["name"] for row in written["category"]}
    of_instance = {row["token"]: detection_class(category[row["category_token"]]) for row in written["instance"]}
    poses = {row["token"]: row["translation"] for row in written["ego_pose"]}
    ego = {row["sample_token"]: poses[row["ego_pose_token"]] for row in written["sample_data"]}
    labels: dict[str, list[Row]] = {row["token"]: [] for row in written["sample"]}
    for row in written["sample_annotation"]:
        if of_instance[row["instance_token"]] in CLASSES:
            labels[row["sample_token"]].append(row)
    results = {}
    for token, own in labels.items():
        number = rng.randint(*detections)
        found = [_near(row, of_instance[row["instance_token"]], rng) for row in 2 * own if rng.random() < FOUND]
        names = [box["detection_name"] for box in found] or CLASSES
        found += [_false_alarm(ego[token], rng.choice(names), rng) for _ in range(number - len(found))]
        results[token] = [{"sample_token": token, **box} for box in found[:number]]
    file.write_text(json.dumps({"meta": {"use_lidar": True}, "results": results}))
    return file


def _near(row: Row, name: str, rng: Random) -> dict:
    """A detection of a labelled box, some decimetres aside."""
    moved = [value + rng.gauss(0, 0.6) for value in row["translation"]]
    size = [value * rng.uniform(0.9, 1.1) for value in row["size"]]
    return _box(moved, size, row["rotation"], name, rng.betavariate(4, 2), rng)


def _false_alarm(ego: list[float], name: str, rng: Random) -> dict:
    aside = [rng.uniform(-FALSE_ALARMS_WITHIN, FALSE_ALARMS_WITHIN) for _ in range(2)]
    place = [ego[0] + aside[0], ego[1] + aside[1], ego[2] + 1]
    half = rng.uniform(0, math.pi)
    rotation = [math.cos(half), 0, 0, math.sin(half)]
    return _box(place, [rng.uniform(0.5, 4) for _ in range(3)], rotation, name, rng.betavariate(1, 4), rng)


def _box(place: list, size: list, rotation: list, name: str, score: float, rng: Random) -> dict:
    return {
        "translation": place, "size": size, "rotation": rotation, "velocity": [rng.gauss(0, 2), rng.gauss(0, 2)],
        "detection_name": name, "detection_score": score, "attribute_name": rng.choice(ATTRIBUTES),
    }  # fmt: skip
