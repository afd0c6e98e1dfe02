"""What `make setup` does again, and when: the Makefile with stand-ins for Python, pip and the compiler."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Stands for the interpreter on both sides of the environment: writes down what it is asked to do and does the least.
STUB = """#!/bin/sh
case "$*" in
  *"print(sys.version_info"*) echo "${MINOR:-11}" ;;
  *"import sys"*) test "${MINOR:-11}" -le 12 || { echo "Python 3.10-3.12 is needed" >&2; exit 1; } ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip list"*) cat "$CALLS.installed" ;;
  "-m fuzz --groups"*) echo "${GROUPS_OF_FUZZ:-readers ops}" ;;
  "-m fuzz "*) echo "$*" >>"$CALLS"; exit "${FUZZ_STATUS:-0}" ;;
  "-m pip install"*--target*) echo "$*" >>"$CALLS"; while [ "$1" != --target ]; do shift; done
    mkdir -p "$2/nvidia/cu13/lib" && touch "$2/nvidia/cu13/lib/libcudart.so.13" ;;
  "-m pip uninstall"*|"-m pip install"*) echo "$*" >>"$CALLS" ;;
  tools/wants_nvcc.py) echo "${WANTS_NVCC:-no}"; test "${WANTS_NVCC:-no}" != refused ;;
  "tools/dev/check_cuda_compiles.py"*) echo "$*" >>"$CALLS" ;;
  "tools/dev/cuda_emulator/"*) echo "$*" >>"$CALLS" ;;
  "-m pytest"*) echo "${PCDET_CUDA_EMULATOR##*/build/} seed ${CUDA_EMULATOR_SEED-none}: $*" >>"$CALLS"
    test "${FAILING_SEED-}" != "${CUDA_EMULATOR_SEED-none}" ;;
  tools/run_step.py*) shift 2; "$@" ;;
  "setup.py --quiet build --build-lib"*) echo "$*" >>"$CALLS"; mkdir -p "$5/pcdet/ops" ;;
  "setup.py "*) echo "${FORCE_CUDA:+FORCE_CUDA=$FORCE_CUDA }$*" >>"$CALLS"; touch pcdet/ops/_C.so ;;
  *) echo "unexpected: $*" >&2; exit 1 ;;
esac
"""
# What the caller's own environment must not choose here.
CHOICES = ("TORCH", "SPCONV", "FORCE_CUDA", "MAKEFLAGS", "MODE", "SCHEDULES", "EMULATED", "CUDA_EMULATOR_SEED")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


class Checkout:
    """The Makefile in a folder of its own; calls are what pip and setup.py were asked for."""

    def __init__(self, folder: Path):
        self.folder, self.log = folder, folder / "calls"
        source = folder / "pcdet" / "ops" / "knn" / "src" / "knn.cpp"
        source.parent.mkdir(parents=True)
        source.touch()
        shutil.copy(ROOT / "Makefile", folder / "Makefile")
        shutil.copytree(ROOT / "requirements", folder / "requirements")
        (folder / "setup.py").touch()
        (folder / "tests").mkdir()
        self.python = folder / "python"
        self.python.write_text(STUB)
        self.python.chmod(0o755)
        self.installed("")

    def installed(self, packages: str):
        Path(f"{self.log}.installed").write_text(packages)

    def touch(self, name: str):
        """Makes a file newer than all others, whatever the clock's grain."""
        newest = max(path.stat().st_mtime for path in self.folder.rglob("*") if path.is_file())
        os.utime(self.folder / name, (newest + 1, newest + 1))

    def make(self, *arguments: str) -> subprocess.CompletedProcess:
        self.log.unlink(missing_ok=True)
        environment = {key: value for key, value in os.environ.items() if key not in CHOICES}
        return subprocess.run(
            ["make", f"PYTHON={self.python}", *arguments],
            cwd=self.folder,
            env=environment | {"CALLS": str(self.log)},
            capture_output=True,
            text=True,
        )

    def calls(self, *arguments: str) -> list[str]:
        done = self.make(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    """Set up, in a path with a blank."""
    checkout = Checkout(tmp_path / "with blank")
    calls = checkout.calls("setup", "TORCH=torch==2.13.0", "SPCONV=spconv==2.3.8")
    assert [call.split()[0] for call in calls] == ["-m", "-m", "setup.py"]
    return checkout


def test_a_second_setup_does_nothing(checkout):
    assert checkout.calls("setup") == []


def test_a_library_that_is_gone_is_built_again_and_nothing_is_installed(checkout):
    assert checkout.calls("clean") == []
    assert not (checkout.folder / "pcdet/ops/_C.so").exists()
    assert checkout.calls("setup") == ["setup.py --quiet build_ext --inplace"]


def test_another_torch_is_installed_and_the_ops_are_built_against_it(checkout):
    _, install, build = checkout.calls("setup", "TORCH=torch==2.12.0")
    assert install.endswith("torch==2.12.0 spconv==2.3.8")
    assert build == "setup.py --quiet build_ext --inplace"


def test_what_was_asked_for_once_holds_in_later_calls(checkout):
    checkout.calls("setup", "TORCH=torch>=2.11,<2.13")
    assert checkout.calls("setup") == []
    checkout.touch("requirements/lock-py3.11.txt")
    assert checkout.calls("setup")[1].endswith("torch>=2.11,<2.13 spconv==2.3.8")


def test_ops_with_or_without_cuda_are_kept_as_asked_for_and_nothing_is_installed(checkout):
    with_cuda = ["FORCE_CUDA=1 setup.py --quiet build_ext --inplace"]
    assert checkout.calls("setup", "FORCE_CUDA=1") == with_cuda
    assert checkout.calls("setup") == []
    assert checkout.calls("setup", "FORCE_CUDA=0") == ["FORCE_CUDA=0 setup.py --quiet build_ext --inplace"]
    assert checkout.calls("setup", "FORCE_CUDA=") == ["setup.py --quiet build_ext --inplace"], "nobody's choice again"
    assert checkout.calls("setup") == []
    assert checkout.calls("setup", "FORCE_CUDA=1") == with_cuda
    checkout.touch("pcdet/ops/knn/src/knn.cpp")
    assert checkout.calls("setup") == with_cuda


def test_a_compiler_that_is_wanted_is_installed_by_its_sums_before_the_ops_are_built(checkout, monkeypatch):
    monkeypatch.setenv("WANTS_NVCC", "yes")
    install, build = checkout.calls("setup", "FORCE_CUDA=1")
    assert install.endswith("--no-deps --require-hashes --target .venv/nvcc -r requirements/lock-nvcc.txt")
    assert "--only-binary :all:" in install and build.endswith("setup.py --quiet build_ext --inplace")
    linked = checkout.folder / ".venv/nvcc/nvidia/cu13/lib/libcudart.so"  # the name that -lcudart looks for
    assert linked.resolve().name == "libcudart.so.13" and linked.exists()
    checkout.touch("pcdet/ops/knn/src/knn.cpp")
    assert checkout.calls("setup") == [build], "the compiler is there"
    checkout.touch("requirements/lock-nvcc.txt")
    checkout.touch("pcdet/ops/knn/src/knn.cpp")
    assert checkout.calls("setup") == [install, build], "of another version"


def test_the_ops_are_not_built_where_their_compiler_cannot_be_had(checkout, monkeypatch):
    monkeypatch.setenv("WANTS_NVCC", "refused")
    done = checkout.make("setup", "FORCE_CUDA=1")
    assert done.returncode != 0 and not checkout.log.exists()
    monkeypatch.delenv("WANTS_NVCC")
    assert checkout.calls("setup") == ["setup.py --quiet build_ext --inplace"], "what failed is not kept"


def test_the_cuda_sources_are_compiled_by_a_compiler_of_their_own_that_is_installed_once(checkout):
    install, check = checkout.calls("cuda-compiles")
    assert install.endswith("--no-deps --require-hashes --target build/nvcc -r requirements/lock-nvcc.txt")
    assert check == "tools/dev/check_cuda_compiles.py --jobs 2"
    assert checkout.calls("cuda-compiles") == [check]


TESTS = "-m pytest -n 2 --dist loadscope -m gpu and not slow"


def test_tests_marked_gpu_run_on_the_emulator_of_the_asked_mode_in_every_asked_order(checkout):
    checkout.calls("setup", ".venv/.dev")
    build, *runs = checkout.calls("cuda-emulated", "MODE=fused", "SCHEDULES=0 -1 7")
    assert build == "tools/dev/cuda_emulator/build.py --mode fused --jobs 2"
    assert runs == [f"cuda_emulator/fused/libcuda_emulator.so seed {seed}: {TESTS}" for seed in ("0", "-1", "7")]


def test_an_order_of_threads_that_fails_ends_the_run(checkout, monkeypatch):
    checkout.calls("setup", ".venv/.dev")
    monkeypatch.setenv("FAILING_SEED", "-1")
    done = checkout.make("cuda-emulated", "SCHEDULES=0 -1 7")
    assert done.returncode != 0 and "seed -1" in checkout.log.read_text().splitlines()[-1]


def test_the_watch_runs_every_barrier_and_the_tests_on_both_libraries(checkout):
    checkout.calls("setup", ".venv/.dev")
    *builds, barriers, watched, sanitized = checkout.calls("cuda-watch")
    assert [call.split()[2] for call in builds] == ["plain", "watched", "sanitized"]
    assert barriers == "tools/dev/cuda_emulator/barriers.py"
    assert watched == f"cuda_emulator/watched/libcuda_emulator.so seed none: {TESTS}"
    assert sanitized == f"cuda_emulator/sanitized/libcuda_emulator.so seed none: {TESTS}"


def test_another_build_of_spconv_takes_the_place_of_the_old_one(checkout):
    checkout.installed("cumm==0.7.11\nnumpy==2.4.6\nspconv==2.3.8\n")
    uninstall, _, install, _ = checkout.calls("setup", "SPCONV=spconv-cu120==2.3.6")
    assert uninstall == "-m pip uninstall --quiet --yes cumm spconv"
    assert "spconv-cu120==2.3.6" in install


def test_the_build_of_spconv_that_is_asked_for_stays(checkout):
    checkout.installed("cumm-cu120==0.4.11\nspconv-cu120==2.3.6\n")
    assert len(checkout.calls("setup", "SPCONV=spconv-cu120==2.3.6")) == 3  # two installs and build, no uninstall


def test_a_changed_source_builds_the_ops_only(checkout):
    checkout.touch("pcdet/ops/knn/src/knn.cpp")
    assert checkout.calls("setup") == ["setup.py --quiet build_ext --inplace"]


def test_another_environment_gets_ops_built_for_it(checkout):
    assert len(checkout.calls("setup", "VENV=other")) == 3
    assert checkout.calls("setup") == ["setup.py --quiet build_ext --inplace"]  # the first environment's turn again


def test_an_environment_whose_path_has_a_blank_is_refused(checkout):
    done = checkout.make("setup", "VENV=my env")
    assert done.returncode != 0
    assert 'VENV must be one path without blanks, got "my env"' in done.stderr


def test_the_packages_come_from_the_lock_by_their_sums_and_before_torch(tmp_path):
    locked, chosen, _ = Checkout(tmp_path).calls("setup", "TORCH=torch==2.13.0", "SPCONV=spconv==2.3.8")
    assert locked.endswith("--only-binary :all: --require-hashes -r requirements/lock-py3.11.txt")
    assert "--only-binary :all: --constraint .venv/.constraints.txt torch==2.13.0 spconv==2.3.8" in chosen


def test_torch_and_spconv_cannot_move_a_locked_version(checkout):
    lines = (checkout.folder / ".venv/.constraints.txt").read_text().splitlines()
    lock = (checkout.folder / "requirements/lock-py3.11.txt").read_text()
    assert len(lines) == lock.count("==") and "numpy==2.4.6" in lines
    assert not any("sha256" in line or line.endswith("\\") for line in lines)


def test_the_development_packages_come_from_their_lock_by_their_sums(checkout):
    (install,) = checkout.calls(".venv/.dev")
    assert install.endswith("--require-hashes -r requirements/lock-dev-py3.11.txt")


def test_another_python_takes_its_own_lock(tmp_path, monkeypatch):
    monkeypatch.setenv("MINOR", "12")
    assert Checkout(tmp_path).calls("setup")[0].endswith("requirements/lock-py3.12.txt")


def test_a_python_that_is_not_supported_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("MINOR", "13")
    done = Checkout(tmp_path).make("setup")
    assert done.returncode != 0 and "Python 3.10-3.12 is needed" in done.stderr


def test_the_tools_take_the_lock_of_the_python_that_makes_their_environment(checkout):
    """The packages' environment is of 3.11; another Python, 3.12, is named for the tools."""
    checkout.python.write_text(STUB.replace("MINOR:-11", "MINOR:-12"))
    assert checkout.calls("build/tools/.stamp")[0].endswith("-r requirements/lock-tools-py3.12.txt")
    checkout.python.write_text(STUB)
    assert checkout.calls("build/tools/.stamp") == []  # made once, they keep their Python


@pytest.mark.parametrize(
    "groups, times",
    [("readers ops", {"readers": "30", "ops": "30"}), ("readers", {"readers": "60"}), ("ops", {"ops": "60"})],
)
def test_fuzzing_divides_the_time_among_the_groups_that_have_targets(checkout, monkeypatch, groups, times):
    monkeypatch.setenv("GROUPS_OF_FUZZ", groups)
    calls = [call for call in checkout.calls("fuzz", "SECONDS=60", "SANITIZE=0") if call.startswith("-m fuzz")]
    assert {call.split()[-1]: call.split()[3] for call in calls} == times


@pytest.mark.parametrize("groups, built", [("readers", 0), ("ops", 1), ("readers ops", 1)])
def test_the_library_with_sanitizers_is_built_for_ops_alone(checkout, monkeypatch, groups, built):
    monkeypatch.setenv("GROUPS_OF_FUZZ", groups)
    assert sum("build/sanitize/lib" in call for call in checkout.calls("fuzz")) == built


def test_both_groups_are_fuzzed_though_the_first_one_fails(checkout, monkeypatch):
    monkeypatch.setenv("FUZZ_STATUS", "1")
    assert checkout.make("fuzz", "SANITIZE=0").returncode != 0
    assert [call.split()[-1] for call in checkout.log.read_text().splitlines()[-2:]] == ["readers", "ops"]
