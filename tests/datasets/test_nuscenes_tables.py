"""Tables and splits of nuScenes: rows by token, samples in order, and what is said of a release that is not whole."""

import json
import math
from pathlib import Path

import pytest
from support.nuscenes_release import labelled, write_release, write_results

from pcdet.datasets.errors import DataError
from pcdet.datasets.nuscenes.evaluate import evaluate_file
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
    tables = release(tmp_path, scene=[{"token": "s", "name": "scene-0103", "first_sample_token": "a"}])
    with pytest.raises(DataError, match=r"no split 'validation' of nuScenes; there are train, val"):
        samples_of_split(tables, "validation")
    with pytest.raises(DataError, match=r"no scene of the split test; its scenes: scene-0103"):
        samples_of_split(tables, "test")


def test_samples_that_follow_one_another_in_a_circle_are_refused(tmp_path):
    tables = release(
        tmp_path,
        scene=[{"token": "s", "name": "scene-0103", "first_sample_token": "a"}],
        sample=[
            {"token": "a", "scene_token": "s", "timestamp": 0, "next": "b"},
            {"token": "b", "scene_token": "s", "timestamp": 1, "next": "a"},
        ],
    )
    with pytest.raises(DataError, match=r"sample\.json: following next from the row 'a' comes back to the row 'a'"):
        samples_of_split(tables, "mini_val")


# ---------------------------------------------------------------------------------------------------- malformed rows


def write_rows(folder: Path, table: str, change) -> None:
    """Writes a table again after ``change(rows)``."""
    file = folder / "v1.0-mini" / f"{table}.json"
    rows = json.loads(file.read_text())
    change(rows)
    file.write_text(json.dumps(rows))


LACKING = {  # a field that each table's rows must have, as the schema of nuScenes 1.0 names it
    "category": "name", "attribute": "name", "instance": "category_token", "scene": "first_sample_token",
    "sample": "timestamp", "sample_annotation": "instance_token",
}  # fmt: skip


@pytest.mark.parametrize(("table", "field"), [*LACKING.items(), ("sample", "scene_token")])
def test_a_row_without_a_field_is_named_with_it_by_the_evaluation(tmp_path, table, field):
    write_release(tmp_path, [labelled("car", (9, 0, 1), attribute="vehicle.parked")])
    write_rows(tmp_path, table, lambda rows: rows[0].pop(field))
    token = json.loads((tmp_path / "v1.0-mini" / f"{table}.json").read_text())[0]["token"]
    with pytest.raises(DataError, match=rf"/{table}\.json: the row '{token}': {field} must be .*; copy the table"):
        evaluate_file(write_results(tmp_path / "r.json", []), tmp_path, "v1.0-mini")


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("translation", [1, 2], "three numbers within"),
        ("translation", [1, 2, None], "three numbers within"),
        ("translation", [1, 2, 1e13], "three numbers within"),
        ("translation", [1, 2, True], "three numbers within"),
        ("size", ["2", "4", "1"], "three numbers above 0"),
        ("size", [2, 4, math.nan], "three numbers above 0"),
        ("size", [2, 4, 0], "three numbers above 0"),
        ("size", [2, 4, 1e-200], "three numbers above 0"),
        ("rotation", [0, 0, 0, 0], "a quaternion"),
        ("rotation", [1e-200, 0, 0, 0], "a quaternion"),
        ("num_lidar_pts", None, "a whole number"),
        ("num_lidar_pts", 1.5, "a whole number"),
        ("num_radar_pts", -1, "a whole number"),
        ("num_radar_pts", 10**400, "a whole number"),
        ("attribute_tokens", "moving", "a list of tokens"),
        ("attribute_tokens", [3], "a list of tokens"),
        ("prev", None, "a text"),
        ("token", ["a"], "a text"),
    ],
)
def test_a_label_that_holds_something_else_is_named_with_what_it_must_hold(tmp_path, field, value, rule):
    write_release(tmp_path, [labelled("car", (9, 0, 1)), labelled("car", (19, 0, 1))])
    write_rows(tmp_path, "sample_annotation", lambda rows: rows[1].update({field: value}))
    with pytest.raises(DataError, match=rf"sample_annotation\.json: the row .*: {field} must be {rule}.*, got "):
        Tables(tmp_path, "v1.0-mini").rows("sample_annotation")


def test_many_rows_that_lack_a_field_are_one_problem_with_their_number(tmp_path):
    rows = [{"token": f"t{i}"} for i in range(5)]
    with pytest.raises(DataError) as caught:
        release(tmp_path, category=rows).rows("category")
    (problem,) = caught.value.problems
    assert "the row 't0': name must be a text, and is not there, nor is it in 4 more rows" in problem


@pytest.mark.parametrize("table", ["instance", "category"])
def test_the_evaluation_names_an_instance_or_category_that_is_lost(tmp_path, table):
    write_release(tmp_path, [labelled("car", (9, 0, 1), instance="beetle")])
    lost = {"instance": "beetle", "category": "car"}[table]
    write_rows(tmp_path, table, lambda rows: rows.remove(next(r for r in rows if r["token"] == lost)))
    with pytest.raises(DataError, match=rf"{table}\.json has no row with the token '{lost}'.*copy the tables again"):
        evaluate_file(write_results(tmp_path / "r.json", []), tmp_path, "v1.0-mini")


def test_a_key_frame_of_a_sensor_that_is_lost_is_named(tmp_path):
    write_release(tmp_path, [labelled("car", (9, 0, 1))])
    write_rows(tmp_path, "calibrated_sensor", lambda rows: rows.clear())
    with pytest.raises(DataError, match=r"sample_data\.json: the row 'datasample0': calibrated_sensor_token is 'cs'"):
        evaluate_file(write_results(tmp_path / "r.json", []), tmp_path, "v1.0-mini")
