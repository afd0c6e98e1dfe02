"""Tests marked ``gpu`` run on the GPU, or the emulated device, and on nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
CASE = "import pytest\n\n@pytest.mark.gpu\ndef test_a({fixtures}):\n    pass\n"


def collect(folder: Path, fixtures: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs a test marked gpu that asks for these fixtures, with the fixtures of this folder."""
    (folder / "test_case.py").write_text(CASE.format(fixtures=fixtures))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-c", str(TESTS.parent / "pyproject.toml")]
    variables = {**os.environ, **environment, "PYTHONPATH": str(TESTS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [*command, "-p", "no:cacheprovider", f"--rootdir={folder}", str(folder)],
        capture_output=True, text=True, env=variables,
    )  # fmt: skip


def test_a_test_marked_gpu_that_asks_for_no_device_stops_the_run(tmp_path):
    done = collect(tmp_path, "")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "test_case.py::test_a is marked gpu: take its device from the fixture gpu or device" in done.stderr


def test_a_library_of_the_emulator_that_is_not_there_is_an_error_and_no_skip(tmp_path):
    done = collect(tmp_path, "gpu", PCDET_CUDA_EMULATOR=str(tmp_path / "none.so"))
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "none.so is no file; make cuda-emulated builds" in done.stdout
