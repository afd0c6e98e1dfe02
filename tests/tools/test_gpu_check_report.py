"""The report of `make gpu-check`, and the whole command on the CPU at small sizes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

KEYS = {
    "schema": int, "status": str, "command": str, "started": str, "seconds": float, "budget_s": float,
    "rehearsal": bool, "machine": dict, "tasks": list,
}  # fmt: skip
MACHINE_KEYS = {
    "device": str, "card": str | None, "compute_capability": str | None, "driver": str | None,
    "card_memory": str | None, "processor": str, "cores": int, "memory_gb": int, "versions": dict,
    "missing_packages": list, "commit": str | None, "sources": str,
}  # fmt: skip
TASK_KEYS = {
    "stage": str, "task": str, "status": str, "reason": str | None, "seconds": float, "limit_s": float,
    "command": str, "log": str, "from_earlier_call": bool, "finished": str | None, "details": dict,
}  # fmt: skip


def card(check, **changes):
    return {**check.machine.read_machine("cpu"), "device": "cuda", "card": "NVIDIA H200", "card_memory": "143771 MiB",
            "compute_capability": "9.0", "driver": "580", **changes}  # fmt: skip


def result(check, stage, name, status="passed", **more):
    return check.state.Result(stage, name, status, **more)


def report_of(check, tmp_path, results, machine=None, rehearsal=False, page=None):
    head = {"command": "python tools/dev/gpu_check", "started": "2026-01-01T00:00:00+00:00", "seconds": 1.0}
    head |= {"budget_s": 600.0, "rehearsal": rehearsal}
    check.report.write(tmp_path, head, machine or card(check), results, page)
    return json.loads((tmp_path / "report.json").read_text()), (tmp_path / "report.md").read_text()


def assert_schema(content):
    for keys, entries in ((KEYS, [content]), (MACHINE_KEYS, [content["machine"]]), (TASK_KEYS, content["tasks"])):
        for entry in entries:
            assert list(entry) == list(keys)
            wrong = {key: entry[key] for key, kind in keys.items() if not isinstance(entry[key], kind)}
            assert not wrong


def test_the_page_names_the_card_the_tests_that_failed_and_what_was_not_run(check, tmp_path):
    tests = {"passed": 2, "failed": ["a::b"], "skipped": {"no peer": 1}, "total": 4, "slowest": []}
    results = [
        result(check, "tests", "gpu", "failed", reason="1 tests failed", details=tests),
        result(check, "steps", "second", "left out", reason="spconv is not installed"),
        result(check, "steps", "pointrcnn", "not run", reason="the budget of 600 s is used up"),
    ]
    content, page = report_of(check, tmp_path, results, page=tmp_path / "pages/h200.md")
    assert_schema(content)
    assert page.startswith("# GPU check: NVIDIA H200, failed\n")
    assert "| card | NVIDIA H200, 143771 MiB, compute capability 9.0 |" in page and "| driver | 580 |" in page
    assert "2 passed, 1 failed, 1 skipped, of 4." in page and "- failed: `a::b`" in page
    assert "| steps/second | **left out** | 0 |  | spconv is not installed |" in page
    assert "| steps/pointrcnn | **not run** | 0 |  | the budget of 600 s is used up |" in page
    assert "rehearsal" not in page.lower()
    assert (tmp_path / "pages/h200.md").read_text() == page


def test_the_page_holds_the_benchmarks_against_the_card(check, tmp_path):
    case = "features: 6000 queries, 16000 rows, 64 channels, k 128"
    file = tmp_path / "tasks/benchmarks/bm_knn/bm_knn.json"
    file.parent.mkdir(parents=True)
    row = {"case": case, "contender": "pcdet", "ms": 0.366}
    file.write_text(json.dumps({"device": "NVIDIA H200", "skipped": {}, "rows": [row]}))
    passed = report_of(check, tmp_path, [result(check, "benchmarks", "bm_knn")])[1]
    assert "| knn in features, 6000 x 16000 x 64, k 128 | 0.366 | 0.1834 | 50% | 0.36 | **no** |" in passed
    failed = report_of(check, tmp_path, [result(check, "benchmarks", "bm_knn", "failed")])[1]
    assert "0.366" not in failed  # a file of an attempt that failed is no figure


def test_the_readme_names_every_key_of_the_report(tools):
    text = (tools / "dev/gpu_check/README.md").read_text()
    missing = [key for key in (*KEYS, *MACHINE_KEYS, *TASK_KEYS) if f"`{key}`" not in text]
    assert not missing


def rehearse(tools, folder, *, start=subprocess.run, only=("build", "steps/pointpillar")):
    command = [sys.executable, str(tools / "dev/gpu_check"), "--device", "cpu", "--small", "--jobs", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment}
    return start([*command, "--output", str(folder), "--only", *only], **options)


@pytest.mark.slow
def test_a_rehearsal_that_was_killed_goes_on_where_it_was(tools, tmp_path):
    """From the library to a training step, on the CPU at small sizes."""
    first = rehearse(tools, tmp_path, start=subprocess.Popen)
    outcome = tmp_path / "tasks/build/first_op/outcome.json"
    deadline = time.monotonic() + 120
    while not outcome.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not (tmp_path / "tasks/steps/pointpillar/outcome.json").exists()

    second = rehearse(tools, tmp_path)
    assert second.returncode == 0, second.stdout
    content, page = json.loads((tmp_path / "report.json").read_text()), (tmp_path / "report.md").read_text()
    assert_schema(content)
    found = {f"{entry['stage']}/{entry['task']}": entry for entry in content["tasks"]}
    assert content["status"] == "passed" and content["rehearsal"]
    assert found["build/library"]["status"] == "left out"
    assert found["build/first_op"]["from_earlier_call"] and not found["steps/pointpillar"]["from_earlier_call"]
    assert_step(found["steps/pointpillar"]["details"])
    assert "**A rehearsal: no figure here is of a GPU at full size.**" in page and "### pointpillar" in page
    assert "steps/pointpillar" in second.stdout and "to go" in second.stdout


def assert_step(details):
    """Every part has a time, and together they are the step."""
    medians = {name: part["median_ms"] for name, part in details["parts"].items()}
    assert all(ms > 0 for ms in medians.values())
    assert {"data upload", "teacher forward", "student forward", "KD graphs", "backward", "optimizer"} <= set(medians)
    assert details["steps"] == 2  # of two, the median is the mean, and means can be added
    assert sum(medians.values()) == pytest.approx(details["step"]["median_ms"], rel=1e-6)
    assert "voxels and augmentation" in details["host"] and len(details["losses"]) == details["steps"]


def test_ctrl_c_ends_the_task_and_leaves_a_report(tools, tmp_path):
    command = rehearse(tools, tmp_path, start=subprocess.Popen, only=("build",))
    deadline = time.monotonic() + 120
    while not (tmp_path / "tasks/build/first_op/log.txt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    command.send_signal(signal.SIGINT)
    text = command.communicate()[0]
    assert command.returncode == 130 and "the same command goes on" in text
    tasks = json.loads((tmp_path / "report.json").read_text())["tasks"]
    assert [(entry["task"], entry["status"]) for entry in tasks] == [("library", "left out"), ("first_op", "not run")]


def test_an_unknown_task_is_refused_with_those_there_are(tools, tmp_path):
    done = rehearse(tools, tmp_path, only=("steps/centerpoint",))
    assert done.returncode == 1 and "steps/centerpoint is no stage and no task" in done.stdout
    assert "steps/pointrcnn" in done.stdout
