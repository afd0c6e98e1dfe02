"""Tables and splits of nuScenes: rows by token, samples in order, and what is said of a release that is not whole."""

import json
from pathlib import Path

import pytest

from pcdet.datasets.errors import DataError
from pcdet.datasets.nuscenes.splits import samples_of_split, scene_names
from pcdet.datasets.nuscenes.tables import Tables


def release(root: Path, **tables: object) -> Tables:
    """Tables of version v1.0-mini with the given contents."""
    (root / "v1.0-mini").mkdir(parents=True)
    for name, rows in tables.items():
        (root / "v1.0-mini" / f"{name}.json").write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return Tables(root, "v1.0-mini")


def test_the_splits_have_as_many_scenes_as_nuscenes_says():
    assert {split: len(names) for split, names in scene_names().items()} == {
        "train": 700, "val": 150, "test": 150, "mini_train": 8, "mini_val": 2,
    }  # fmt: skip


def test_the_real_tables_have_81_samples_of_mini_val_in_order_of_time(nuscenes_root):
    tables = Tables(nuscenes_root, "v1.0-mini")
    samples = samples_of_split(tables, "mini_val")
    assert len(samples) == 81
    scenes = [sample["scene_token"] for sample in samples]
    assert scenes == sorted(scenes, key=scenes.index)
    for earlier, later in zip(samples, samples[1:], strict=False):
        assert earlier["scene_token"] != later["scene_token"] or earlier["timestamp"] < later["timestamp"]
    assert {sample["token"] for sample in samples} == set(tables.key_frames)


def test_a_version_that_is_not_there_is_named_with_those_that_are(tmp_path):
    release(tmp_path)
    with pytest.raises(DataError, match=r"no tables of version v1.0-test .*it has v1.0-mini"):
        Tables(tmp_path, "v1.0-test")


@pytest.mark.parametrize(
    ("content", "said"),
    [("[{", "cannot be read"), ({"token": "a"}, "a list of rows"), ([{"name": "car"}], "a token each")],
)
def test_a_table_that_is_no_table_is_named(tmp_path, content, said):
    with pytest.raises(DataError, match=rf"category\.json .*{said}"):
        release(tmp_path, category=content).rows("category")


def test_a_missing_table_and_a_token_without_a_row_are_named(tmp_path):
    tables = release(tmp_path, category=[{"token": "a", "name": "vehicle.car"}])
    assert tables.get("category", "a")["name"] == "vehicle.car"
    with pytest.raises(DataError, match=r"category\.json has no row with the token 'b'"):
        tables.get("category", "b")
    with pytest.raises(DataError, match=r"scene\.json is not there"):
        tables.rows("scene")


def test_an_unknown_split_and_one_without_scenes_are_refused(tmp_path):
    tables = release(tmp_path, scene=[{"token": "s", "name": "scene-0103"}])
    with pytest.raises(DataError, match=r"no split 'validation' of nuScenes; there are train, val"):
        samples_of_split(tables, "validation")
    with pytest.raises(DataError, match=r"no scene of the split test; its scenes: scene-0103"):
        samples_of_split(tables, "test")
