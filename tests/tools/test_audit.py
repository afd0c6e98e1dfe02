"""audit.py on results alone, and compare.py's page; tests/experiments/test_plans_run.py has a plan with its runs."""

import json
import shutil

import pytest

from pcdet.audit.plan_runs import PlanRuns
from pcdet.cli import audit as command
from pcdet.experiments.results.files import read_results
from pcdet.registry import ConfigError

pytest.importorskip("plotly", reason="pages need plotly: pip install -r requirements.txt")


def audit(*args):
    command.audit(command.parse_args([str(arg) for arg in args]))


def test_committed_results_without_runs_give_a_page_that_says_so(repo_root, tmp_path, capsys):
    results, page = repo_root / "docs/benchmarks/lab_pointpillar/results.json", tmp_path / "page.html"
    audit("--results", results, "--page", page)
    printed = capsys.readouterr().out
    assert "no runs beside" in printed and "page.html" in printed
    text = page.read_text()
    assert "No audit was given." in text and not page.with_suffix(".json").exists()
    assert len(text.encode()) < 15_000_000
    (claim,) = [c for c in json.loads(results.read_text())["comparisons"] if of_the_recipe(c)]
    assert f"gains {claim['mean']:.1f} points of 3D mAP" in text


def of_the_recipe(comparison):
    wanted = {"method": "slices+unlabelled+logits", "length": 4.0, "metric": "3d", "control": "slices+self-training"}
    return wanted.items() <= comparison.items()


def test_results_of_another_form_are_refused_by_name(tmp_path):
    file = tmp_path / "results.json"
    file.write_text("{}")
    with pytest.raises(ConfigError, match=r"results\.json"):
        audit("--results", file)


def test_a_page_whose_numbers_would_overwrite_the_results_is_refused(repo_root, tmp_path):
    results = tmp_path / "results.json"
    shutil.copy(repo_root / "docs/benchmarks/lab_pointpillar/results.json", results)
    before = results.read_bytes()
    for page, message in (("results.html", r"numbers go into .*results\.json"), ("results.txt", r"must end in \.html")):
        with pytest.raises(ConfigError, match=message):
            audit("--results", results, "--page", tmp_path / page)
    assert results.read_bytes() == before and list(tmp_path.iterdir()) == [results]


def test_a_length_without_trainings_is_told_with_those_that_have_some(repo_root, tmp_path):
    results = read_results(repo_root / "docs/benchmarks/lab_pointpillar/results.json")
    runs = PlanRuns(results, tmp_path, tmp_path)
    (student, *_) = runs.reported.students()
    with pytest.raises(ConfigError, match=r"--length: .* neither controls nor finalists at length 77, .* 1, .* 4"):
        runs.chosen(student, [], 77.0)


def test_results_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        audit("--results", tmp_path / "none.json")
