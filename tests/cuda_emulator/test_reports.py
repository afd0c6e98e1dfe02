"""The emulator's own test: kernels with planted faults are reported with file and line, and clean ones are not.

The planted kernels say themselves what must be reported: ``// [MODE] CASE: WORDS; WORDS`` stands above a line that the
case's report names (file:line), and the report holds the words. Cases named ``clean_...`` report nothing.
"""

import functools
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLANTED = Path(__file__).parent / "planted"
sys.path.insert(0, str(ROOT / "tools/dev/cuda_emulator"))

import build  # noqa: E402

MARK = re.compile(r"\s*// \[(both|watched)\] (\w+): (.+)$")
MODES = ("plain", "watched")


def _expected() -> dict[tuple[str, str], list[str]]:
    """(mode, case) -> what its report must hold."""
    found = defaultdict(list)
    for path in sorted(PLANTED.glob("*.cu")):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            if mark := MARK.match(line):
                marked = next(i for i in range(number, len(lines)) if not lines[i].lstrip().startswith("//")) + 1
                for mode in MODES if mark[1] == "both" else ("watched",):
                    found[mode, mark[2]] += [f"{path.name}:{marked}", *mark[3].split("; ")]
    return found


def _cases() -> set[str]:
    return {name for path in PLANTED.glob("*.cu") for name in re.findall(r"^PLANTED\((\w+)\)", path.read_text(), re.M)}


EXPECTED = _expected()
CLEAN = sorted(name for name in _cases() if name.startswith("clean_"))


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """Mode -> the planted kernels and the emulator's runtime as a program, compiled once. Needs no torch."""
    if shutil.which("g++") is None:
        pytest.skip("the emulator is compiled with g++, which was not found")

    @functools.cache
    def compiled(mode: str) -> Path:
        return build.compile_program(mode, PLANTED, tmp_path_factory.mktemp(mode))

    return compiled


def _run(program: Path, case: str) -> subprocess.CompletedProcess:
    return subprocess.run([program, case], capture_output=True, text=True, timeout=60)


def test_every_case_says_what_it_expects():
    assert {case for _, case in EXPECTED} == _cases() - set(CLEAN)


@pytest.mark.parametrize(("mode", "case"), sorted(EXPECTED))
def test_a_planted_fault_is_reported_with_file_and_line(program, mode, case):
    done = _run(program(mode), case)
    report = done.stdout + done.stderr
    assert done.returncode != 0 and report.startswith("cuda_emulator: ")
    for words in EXPECTED[mode, case]:
        assert words in report


@pytest.mark.parametrize("case", CLEAN)
@pytest.mark.parametrize("mode", MODES)
def test_a_clean_kernel_is_not_reported_in_any_order_of_threads(program, mode, case, monkeypatch):
    for seed in (0, -1, 5):
        monkeypatch.setenv("CUDA_EMULATOR_SEED", str(seed))
        done = _run(program(mode), case)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("value", ["ten", "1,2", "64k", ""])
def test_a_setting_that_is_no_number_is_an_error_and_not_zero(program, value, monkeypatch):
    monkeypatch.setenv("CUDA_EMULATOR_SEED", value)
    done = _run(program("plain"), "clean_launch")
    assert done.returncode == 1
    assert f"CUDA_EMULATOR_SEED must be a whole number, got '{value}'" in done.stdout
