"""Targets: nuScenes' tables, info files and result files, as the data set and its evaluation read them."""

from __future__ import annotations

import copy
import functools
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from support import nuscenes_files, nuscenes_release

from fuzz.infos import changed
from fuzz.pickles import MODULES as PICKLE_MODULES
from fuzz.pickles import TOKENS as PICKLE_TOKENS
from fuzz.pickles import require_plain
from fuzz.target import Target
from pcdet.datasets.errors import DataError
from pcdet.datasets.file_names import is_inside
from pcdet.datasets.nuscenes.create_infos import paths_of
from pcdet.datasets.nuscenes.evaluation.boxes import Boxes
from pcdet.datasets.nuscenes.evaluation.ground_truth import GroundTruth, read_ground_truth
from pcdet.datasets.nuscenes.evaluation.results_file import read_results
from pcdet.datasets.nuscenes.info_checks import check_infos
from pcdet.datasets.nuscenes.info_store import InfoStore
from pcdet.datasets.nuscenes.infos import InfoMaker
from pcdet.datasets.nuscenes.splits import samples_of_split
from pcdet.datasets.nuscenes.tables import Tables
from pcdet.datasets.pickles import read_pickle
from pcdet.utils import safe_pickle

VERSION, SPLIT, SWEEPS = nuscenes_files.VERSION, "mini_train", 2
ODD = (
    *(None, True, -1, 0, 2**70, 1e300, -1e-300, float("nan"), float("inf"), "", "..", "/etc/passwd", "\ufeff", [], {}),
    *([1.0, 2.0], [0, 0, 0], [0, 0, 0, 0], [1e300] * 3, [1e-200] * 4, [None] * 3, ["1", "2", "3"], [[1], [2, 3]]),
    *("scene-0061 0", "scene-0061 1", "scene-0061 data 0", "lidar", "parked", 3.5, 1e13, ["a"], [3]),
)


# -------------------------------------------------------------------------------------------------------------- tables


@functools.cache
def tables() -> dict[str, list[dict]]:
    """Name -> rows of a little release, with the table of attributes that evaluations read."""
    with tempfile.TemporaryDirectory() as name:
        folder = nuscenes_files.write_release(Path(name)) / VERSION / VERSION
        found = {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}
    found["attribute"] = [{"token": "a", "name": "vehicle.parked"}]
    found["sample_annotation"][0]["attribute_tokens"] = ["a"]
    return found


def changed_tables(rng: random.Random) -> bytes:
    """A release as one file, in whose tables one to three fields were replaced or deleted, or rows lost or doubled."""
    made = copy.deepcopy(tables())
    for _ in range(rng.randint(1, 3)):
        rows = made[rng.choice(sorted(made))]
        row = rng.choice([row for row in rows if isinstance(row, dict)] or [{}])
        how, field = rng.random(), rng.choice(sorted(row) or ["token"])
        if how < 0.1 and row in rows:
            rows.remove(row)
        elif how < 0.2:
            rows.append(rng.choice((row, *ODD)))
        elif how < 0.3:
            row.pop(field, None)
        else:
            row[field] = copy.deepcopy(rng.choice((*ODD, *row.values())))
    return json.dumps(made).encode()


def _read_release(path: Path) -> tuple[list[dict], GroundTruth]:
    """The infos of a split and its labels, from tables that lie in one file."""
    try:
        made = json.loads(path.read_bytes())
        texts = {table: json.dumps(made[table]) for table in tables()}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DataError("no tables in one file, as only this target has them") from None
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        folder = Path(name) / VERSION
        folder.mkdir()
        for table, text in texts.items():
            (folder / f"{table}.json").write_text(text)
        return _infos_and_labels(Tables(name, VERSION))


def _infos_and_labels(found: Tables) -> tuple[list[dict], GroundTruth]:
    samples = samples_of_split(found, SPLIT)
    maker = InfoMaker(found, SWEEPS + 1, labelled=True)
    infos = [maker.make(sample) for sample in samples]
    if not all(is_inside(file) for info in infos for file in paths_of(info)):
        raise DataError("a path leads out of the folder")  # as create_infos.with_clouds says of the file
    return infos, read_ground_truth(found, [sample["token"] for sample in samples])


def _check_release(found: tuple[list[dict], GroundTruth], path: Path) -> None:
    infos, truth = found
    check_infos(infos, "infos that were just made", num_sweeps=SWEEPS, velocity=True)
    assert len(InfoStore(infos)) == len(infos) == len(truth.tokens), "a sample is lost"
    _check_boxes(truth.boxes, len(infos))
    assert (truth.points >= 0).all(), "a box holds fewer points than none"
    assert np.isfinite(truth.racks.axes).all(), "a rack stands nowhere"


def _check_boxes(boxes: Boxes, samples: int) -> None:
    numbers = np.concatenate([boxes.center, boxes.size, boxes.yaw[:, None]], axis=1)
    assert np.isfinite(numbers).all() and (boxes.size > 0).all(), "a box is not finite, or has no size"
    assert not np.isinf(boxes.velocity).any(), "a velocity is infinite"
    assert ((boxes.sample >= 0) & (boxes.sample < samples)).all(), "a box belongs to no sample"


def _beside_the_other_tables(folder: Path, name: str) -> Path:
    (folder / VERSION).mkdir()
    for table, rows in tables().items():
        (folder / VERSION / f"{table}.json").write_text(json.dumps(rows))
    return folder / VERSION / "sample_annotation.json"


# --------------------------------------------------------------------------------------------------- infos and results


@functools.cache
def infos() -> list[dict]:
    """Of the little release's samples, the first without its labels."""
    with tempfile.TemporaryDirectory() as name:
        root = nuscenes_files.write_release(Path(name)) / VERSION
        found = Tables(root, VERSION)
        maker = InfoMaker(found, SWEEPS + 1, labelled=True)
        made = [maker.make(sample) for sample in samples_of_split(found, SPLIT)]
    bare = {key: value for key, value in made[0].items() if not key.startswith(("gt_", "num_"))}
    return [bare, *made[1:]]


def _read_infos(path: Path) -> list[dict]:
    content = read_pickle(path)
    check_infos(content, path, num_sweeps=SWEEPS, velocity=True)
    return content


def _check_infos(content: list[dict], path: Path) -> None:
    require_plain(content)
    for info, kept in zip(content, InfoStore(content), strict=True):
        assert kept["token"] == info["token"] and len(kept["sweeps"]) >= SWEEPS, "a frame is not what it was"
        assert all(is_inside(file) for file in paths_of(kept)), "a path leads out of the folder"
        if "gt_boxes" in info:
            boxes = kept["gt_boxes"].astype(np.float32)
            sound = not boxes.size or (np.isfinite(boxes[:, :7]).all() and (boxes[:, 3:6] > 0).all())
            assert sound and len(boxes) == len(kept["gt_names"]), f"boxes are {boxes.tolist()}"


@functools.cache
def results() -> bytes:
    """A result file of two samples."""
    boxes = [
        nuscenes_release.detected("car", (10, 5, 1), attribute="vehicle.parked"),
        nuscenes_release.detected("barrier", (1, 5, 1), 1, yaw=0.3, velocity=(0.5, -1)),
    ]
    with tempfile.TemporaryDirectory() as name:
        return nuscenes_release.write_results(Path(name) / "results.json", boxes).read_bytes()


def changed_results(rng: random.Random) -> bytes:
    """A result file with one to three other entries."""
    content = json.loads(results())
    for _ in range(rng.randint(1, 3)):
        node: Any = content
        while isinstance(node, (dict, list)) and node:
            key = rng.choice(sorted(node)) if isinstance(node, dict) else rng.randrange(len(node))
            if not isinstance(node[key], (dict, list)) or not node[key] or rng.random() < 0.2:
                node[key] = copy.deepcopy(rng.choice((*ODD, 1e308, 10**400, "sample1", "bus", "cycle.with_rider")))
                break
            node = node[key]
    return json.dumps(content).encode()


def _check_results(found: tuple[Boxes, dict], path: Path) -> None:
    boxes, meta = found
    assert isinstance(meta, dict), "meta is no mapping"
    _check_boxes(boxes, len(nuscenes_release.SAMPLES))
    assert np.isfinite(boxes.score).all() and np.isfinite(boxes.velocity).all(), "a score or velocity is not finite"


JSON_TOKENS = (
    *(
        b'"token"',
        b'"sample_token"',
        b'"scene-0061 0"',
        b'"results"',
        b'"sample0"',
        b"[]",
        b"{}",
        b"[",
        b"]",
        b"{",
        b"}",
    ),
    *(
        b",",
        b":",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e400",
        b"1" * 500,
        b"null",
        b"true",
        b'"\\ud800"',
        b"\xef\xbb\xbf",
    ),
)
NUSCENES = "pcdet.datasets.nuscenes"
TABLE_MODULES = tuple(f"{NUSCENES}.{name}" for name in ("tables", "table_rows", "infos", "velocities", "splits"))
SHARED = {"folder": "nuscenes", "refusals": (DataError,), "memory": 512}
TARGETS = [
    Target(
        name="nuscenes_tables",
        suffix=".release.json",
        read=_read_release,
        seeds=lambda: [json.dumps(tables()).encode()],
        draw=changed_tables,
        check=_check_release,
        names_file=False,  # the problem names the table, which lies in a file of its own
        tokens=JSON_TOKENS,
        modules=(*TABLE_MODULES, f"{NUSCENES}.evaluation.ground_truth"),
        text=True,
        **SHARED,
    ),
    Target(
        name="nuscenes_labels",
        suffix=".json",
        read=lambda path: _infos_and_labels(Tables(path.parents[1], VERSION)),
        place=_beside_the_other_tables,
        seeds=lambda: [json.dumps(tables()["sample_annotation"]).encode()],
        check=_check_release,
        names_file=False,  # a label that names another row is told by that row's table
        tokens=JSON_TOKENS,
        modules=(*TABLE_MODULES, f"{NUSCENES}.evaluation.ground_truth"),
        text=True,
        **SHARED,
    ),
    Target(
        name="nuscenes_infos",
        suffix=".pkl",
        read=_read_infos,
        seeds=lambda: [safe_pickle.dumps(infos()), safe_pickle.dumps([])],
        draw=lambda rng: changed(infos(), rng),
        check=_check_infos,
        tokens=PICKLE_TOKENS,
        modules=(f"{NUSCENES}.info_checks", f"{NUSCENES}.sound_infos", *PICKLE_MODULES),
        **SHARED,
    ),
    Target(
        name="nuscenes_results",
        suffix=".json",
        read=lambda path: read_results(path, nuscenes_release.SAMPLES),
        seeds=lambda: [results()],
        draw=changed_results,
        check=_check_results,
        tokens=JSON_TOKENS,
        modules=(f"{NUSCENES}.evaluation.results_file", f"{NUSCENES}.evaluation.box_reader"),
        text=True,
        **SHARED,
    ),
]
