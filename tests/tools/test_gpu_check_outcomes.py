"""What `make gpu-check` makes of what its tasks have written: records of tests, benchmarks, results."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

TESTS = """
import os, pytest
pytestmark = pytest.mark.gpu
def test_good(): open("ran", "a").write("g")
def test_bad(): assert os.path.exists("mended")
def test_absent(): pytest.skip("no card")
def test_of_the_cpu(): pass
test_of_the_cpu.pytestmark = []
"""


@pytest.fixture
def recorded(check, tools, tmp_path):
    """A call of pytest on a few tests with the plugin; returns what the check reads of its record."""
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "test_toy.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = gpu: x\n")
    # A call of its own, also where a worker of pytest-xdist makes it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment |= {"PYTHONPATH": str(tools / "dev"), "GPU_CHECK_RECORD": str(folder / "tests.jsonl")}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # those of this environment take seconds to import

    def call(*flags):
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "gpu_check.record_tests", *flags, "."]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True)
        return check.outcomes.of_tests(folder, done.returncode)

    return SimpleNamespace(call=call, folder=folder)


@pytest.mark.parametrize("flags", [(), ("-p", "xdist", "-n", "2")], ids=["one process", "two workers"])
def test_the_record_names_each_failure_and_a_second_call_runs_what_has_not_passed(recorded, flags):
    details, problem = recorded.call(*flags)
    failed = ["test_toy.py::test_bad"]
    assert (details["passed"], details["failed"], details["skipped"]) == (2, failed, {"no card": 1})
    assert details["total"] == 4 and problem == "1 tests failed, the first is test_toy.py::test_bad"

    (recorded.folder / "mended").touch()
    with (recorded.folder / "tests.jsonl").open("a") as record:
        record.write('{"test": "test_toy.py::test_b')  # as a kill leaves a line
    details, problem = recorded.call(*flags)
    assert (details["passed"], details["failed"], details["total"], problem) == (3, [], 4, None)
    assert (recorded.folder / "ran").read_text() == "g"


def test_a_benchmark_whose_result_differs_from_another_s_says_so(check, tmp_path):
    rows = [{"case": "NMS of 9", "contender": name, "ms": 1.0, "agreement": word} for name, word in
            (("pcdet", ""), ("mmcv C++", "DIFFERENT keep list"))]  # fmt: skip
    folder = tmp_path / "bm_iou3d_nms"
    folder.mkdir()
    (folder / "bm_iou3d_nms.json").write_text(json.dumps({"rows": rows, "skipped": {"shapely": "CPU only"}}))
    details, problem = check.outcomes.of_benchmark(folder, 0)
    assert details["differ"] == ["NMS of 9, mmcv C++: DIFFERENT keep list"] and problem is None
    assert details["skipped"] == {"shapely": "CPU only"}
    assert check.outcomes.of_benchmark(folder, 1)[1] == "exit status 1"


def test_a_result_that_was_cut_off_is_no_result(check, tmp_path):
    (tmp_path / "result.json").write_text('{"seconds": 1')
    details, problem = check.outcomes.of_json(tmp_path, 0)
    assert details == {} and problem.startswith("result.json is cut off")


def test_tests_that_were_all_skipped_are_a_failure(check, tmp_path):
    line = {"test": "a", "outcome": "skipped", "seconds": 0.0, "reason": "no CUDA device"}
    (tmp_path / "tests.jsonl").write_text(json.dumps(line) + "\n")
    assert check.outcomes.of_tests(tmp_path, 0)[1] == "not one test passed (1 skipped, exit status 0)"
