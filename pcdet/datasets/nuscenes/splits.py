"""Which scenes belong to which split: lists that nuScenes publishes, shipped as facts in ``splits.json``."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from pcdet.datasets.errors import DataError
from pcdet.datasets.nuscenes.tables import Row, Tables

FILE = Path(__file__).with_name("splits.json")
# The splits of a release. A test split has no annotations.
OF_VERSION = {
    "v1.0-trainval": ("train", "val"),
    "v1.0-mini": ("mini_train", "mini_val"),
    "v1.0-test": ("test",),
}


@cache
def scene_names() -> dict[str, frozenset[str]]:
    """Name of a split -> the names of its scenes."""
    return {split: frozenset(names) for split, names in json.loads(FILE.read_text()).items()}


def samples_of_split(tables: Tables, split: str) -> list[Row]:
    """The samples of a split's scenes, in the order of the tables ``scene`` and, within a scene, of time.

    Raises:
        DataError: there is no such split, the tables hold none of its scenes, or samples form a circle.
    """
    if split not in scene_names():
        raise DataError(f"there is no split {split!r} of nuScenes; there are {', '.join(scene_names())}")
    scenes = [scene for scene in tables.rows("scene") if scene["name"] in scene_names()[split]]
    if not scenes:
        names = sorted(scene["name"] for scene in tables.rows("scene"))
        raise DataError(f"{tables.folder} has no scene of the split {split}; its scenes: {', '.join(names[:10])}")
    return [sample for scene in scenes for sample in _samples_of(tables, scene)]


def _samples_of(tables: Tables, scene: Row) -> list[Row]:
    found: dict[str, Row] = {}
    token = scene["first_sample_token"]
    while token:
        if token in found:
            raise DataError(
                f"{tables.folder / 'sample'}.json: following next from the row {scene['first_sample_token']!r} comes "
                f"back to the row {token!r}; copy the table again from the release"
            )
        found[token] = tables.get("sample", token)
        token = found[token]["next"]
    return list(found.values())
