import json

import pytest

from pcdet.experiments.quickstart.comparison import Row, Spread, write_json
from pcdet.experiments.quickstart.comparison_tables import (
    accuracy_tables,
    comparison_table,
    gain_table,
    stage_table,
)

CLASSES = ["Car", "Pedestrian"]


def result(base):
    """A KITTI result dictionary whose Car AP is ``base`` and whose Pedestrian AP is ten less."""
    return {
        f"{name}_{metric}/{difficulty}_R40": base - 10 * (name == "Pedestrian") - (metric == "3d")
        for name in CLASSES
        for metric in ("3d", "bev")
        for difficulty in ("easy", "moderate", "hard")
    }


@pytest.fixture
def rows():
    rows = {"teacher": Row(params=4_834_888, macs=34_170_000_000, ms_per_frame=812.3), "student": Row(), "kd": Row()}
    rows["teacher"].add(result(80), CLASSES)
    for seed in range(2):
        rows["student"].add(result(60 + seed), CLASSES)
        rows["kd"].add(result(63 + 2 * seed), CLASSES)
    rows["student"].train_cpu_s = [10.0, 20.0]
    rows["kd"].train_cpu_s = [None, None]
    return rows


def test_map_is_the_mean_over_classes_one_number_a_seed(rows):
    assert rows["student"].ap["bev"]["moderate"] == [55.0, 56.0]
    assert rows["student"].ap["3d"]["easy"] == [54.0, 55.0]
    assert rows["student"].per_class["Car"]["bev"]["hard"] == [60.0, 61.0]


def test_json_has_metric_difficulty_and_a_list_per_seed(rows, tmp_path):
    write_json(tmp_path / "r.json", rows, frames=3)
    read = json.loads((tmp_path / "r.json").read_text())
    assert read["frames"] == 3 and list(read["rows"]) == ["teacher", "student", "kd"]
    assert read["rows"]["kd"]["3d"]["moderate"] == [57.0, 59.0]
    assert read["rows"]["student"]["train_cpu_s"] == 15.0
    assert read["rows"]["student"]["train_cpu_s_per_seed"] == [10.0, 20.0]
    assert read["rows"]["kd"]["train_cpu_s"] is None
    assert read["rows"]["teacher"]["params"] == 4_834_888


def test_what_an_evaluation_lacks_is_left_out_of_tables_and_json(rows, tmp_path):
    assert rows["kd"].mean_ap("aos", "easy") == [] and rows["kd"].mean_ap("3d", "easy", "R11", "loose") == []
    write_json(tmp_path / "r.json", rows)
    read = json.loads((tmp_path / "r.json").read_text())["rows"]["kd"]
    assert read["mean_ap"]["strict"]["R40"]["aos"]["easy"] == [] and read["recall"] == {}
    line = comparison_table(rows).splitlines()[4].split()
    assert line[:3] == ["kd", "58.0", "+-1.4"] and line[13:16] == ["-", "-", "-"]
    assert "recall" not in accuracy_tables(rows)


def test_stages_and_memory_have_a_line_for_each_batch_size(rows, tmp_path):
    stages = {
        "load": Spread(12.0, 11.0, 14.0),
        "network": Spread(30.04, 29.0, 33.0),
        "decode_nms": Spread(2.0, 2.0, 2.0),
    }
    stages["total"] = Spread(44.0, 42.0, 49.0)
    rows = {"teacher": rows["teacher"]}
    rows["teacher"].ms_by_stage, rows["teacher"].peak_memory = {1: stages, 4: stages}, {1: 14 * 2**20}
    header, _, *lines = stage_table(rows).splitlines()
    assert header.endswith("load, voxelise           network    decode, NMS         all three  peak MiB")
    times = ["12.0", "(11.0-14.0)", "30.0", "(29.0-33.0)", "2.0", "(2.0-2.0)", "44.0", "(42.0-49.0)"]
    assert [line.split() for line in lines] == [["teacher", "1", *times, "14"], ["teacher", "4", *times, "-"]]
    write_json(tmp_path / "r.json", rows)
    row = json.loads((tmp_path / "r.json").read_text())["rows"]["teacher"]
    assert row["ms_by_stage"]["4"]["network"] == {"median": 30.04, "low": 29.0, "high": 33.0}
    assert row["peak_memory"] == {"1": 14 * 2**20}


def test_recall_is_a_share_in_json_and_a_percentage_in_the_table(rows):
    for row, share in zip(rows.values(), (0.5, 0.25, 0.75), strict=True):
        for result in row.results:
            result.update({"recall/roi_0.5": 0.0, "recall/rcnn_0.5": share})
    assert rows["student"].recalls() == {"roi_0.5": [0.0, 0.0], "rcnn_0.5": [0.25, 0.25]}
    lines = accuracy_tables(rows).split("\n\n")[-1].splitlines()
    assert lines[0].split() == ["recall", "(%)", "roi_0.5", "rcnn_0.5"]
    assert lines[2].split() == ["teacher", "0.0", "50.0"]


def test_gains_are_paired_by_seed_and_skip_rows_with_other_seeds(rows):
    table = gain_table(rows, ["student"]).splitlines()
    assert [line.split() for line in table[2:]] == [
        ["kd,", "3d", "+3.5", "(+3.0", "+4.0)"],
        ["kd,", "bev", "+3.5", "(+3.0", "+4.0)"],
    ]


def test_every_control_has_a_column_and_no_line_says_the_same_twice(rows):
    table = gain_table(rows, ["student", "kd"]).splitlines()
    assert table[0].split("  ")[-1].strip() == "over kd" and "over student" in table[0]
    assert [line.split() for line in table[2:]] == [
        ["kd,", "3d", "+3.5", "(+3.0", "+4.0)", "-"],
        ["kd,", "bev", "+3.5", "(+3.0", "+4.0)", "-"],
    ]


def test_tables_line_up(rows):
    first, second = comparison_table(rows).split("\n\n")
    for table in (first, second):
        lines = table.splitlines()
        assert len({len(line) for line in lines}) == 1
    assert "4.83 M" in first and "34.17 G" in first and "sparse" not in first


def test_sparse_macs_stand_beside_the_dense_ones_where_there_are_any(rows):
    rows["teacher"].sparse_macs = 2_500_000_000
    lines = comparison_table(rows).split("\n\n")[0].splitlines()
    assert "MACs, dense + sparse" in lines[0] and "34.17 G + 2.50 G" in "".join(lines)
