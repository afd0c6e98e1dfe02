"""Counts of many runs: the same file and the same flags for fuzz and soak."""

import pytest
from fuzz import report as fuzz_report
from soak import report as soak_report
from support import run_counts

ENTRY = {"name": "a", "n": 2}


def test_entries_of_several_files_add_up_by_name(tmp_path):
    for name in ("first", "second"):
        run_counts.append(tmp_path / f"new/{name}.jsonl", [ENTRY, {"name": "b", "n": 0.5}], seed=name)
    entries = list(run_counts.read([tmp_path / "new/first.jsonl", tmp_path / "new/second.jsonl"], ["name"], ["n"]))
    assert [entry["seed"] for entry in entries] == ["first", "first", "second", "second"]
    assert run_counts.sums(entries, "name", ["n"]) == {"a": {"n": 4}, "b": {"n": 1}}


@pytest.mark.parametrize("line", ["{}", "[]", "x", '{"name": "a"}', '{"name": "a", "n": "2"}', '{"name": [], "n": 2}'])
def test_a_line_that_is_no_count_is_named(tmp_path, line):
    file = tmp_path / "counts.jsonl"
    run_counts.append(file, [ENTRY])
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(ValueError, match=r"counts\.jsonl, line 2: not the counts of a run \(name, n\); delete it"):
        list(run_counts.read([file], ["name"], ["n"]))


@pytest.mark.parametrize("report", [fuzz_report, soak_report])
def test_both_summaries_name_a_line_of_something_else(tmp_path, report):
    (tmp_path / "counts.jsonl").write_text('{"scenario": "kills", "target": "labels"}\n')
    with pytest.raises(ValueError, match="line 1: not the counts of a run"):
        report.summary([tmp_path / "counts.jsonl"])
