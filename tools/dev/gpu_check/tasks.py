"""What a check does, in order: the stages and their tasks, each a command with a time limit."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gpu_check import outcomes
from gpu_check.machine import ROOT

STAGES = ("build", "tests", "benchmarks", "steps", "profile")
BENCHMARKS = {  # of the goals for a GPU -> seconds that one takes on an H200, guessed until one has run
    "bm_knn": 20, "bm_kd_step": 30, "bm_edge_conv": 15, "bm_kd_loss": 15, "bm_iou3d_nms": 12, "bm_points_in_boxes": 10,
    "bm_voxelize": 15, "bm_pointnet2": 20,
}  # fmt: skip
DETECTORS = {"pointpillar": 30, "second": 30, "pointrcnn": 35}
REHEARSAL_SLACK = 4  # limits are those of a machine with a card; a rehearsal has what processors there are
MOST_WORKERS = 6  # of the tests: each has its own context on the card
SMALL_TESTS = ["tests/ops/test_points_in_boxes.py", "tests/ops/test_roipoint_pool3d.py"]

Read = Callable[[Path, int], outcomes.Outcome]


@dataclass(frozen=True)
class Settings:
    """What the command line asks for.

    Attributes:
        device: cuda, emulated or cpu.
        small: a rehearsal at small sizes.
        jobs: processors to use.
        output: folder of everything that is written.
    """

    device: str
    small: bool
    jobs: int
    output: Path


@dataclass(frozen=True)
class Task:
    """One command of a stage.

    Attributes:
        stage: one of STAGES.
        name: in its stage.
        command: its arguments, run in the checkout's root.
        limit_s: seconds after which it is ended.
        guess_s: seconds that it takes, until it has run once.
        folder: what it writes; kept while the check's inputs stay the same.
        read: its folder and exit status -> details for the report, and what is wrong or None.
        env: further environment variables.
        share: its folder -> how much of it is done, from 0 to 1; None where it does not tell.
        needs: key of a task without which this one would measure something else.
        left_out: why it does not apply here.
    """

    stage: str
    name: str
    command: list[str]
    limit_s: float
    guess_s: float
    folder: Path
    read: Read
    env: dict[str, str] = field(default_factory=dict)
    needs: str | None = None
    share: Callable[[Path], float] | None = None
    left_out: str | None = None

    @property
    def key(self) -> str:
        """``stage/name``."""
        return f"{self.stage}/{self.name}"


def all_tasks(settings: Settings, machine: dict) -> list[Task]:
    """Every task of a check on this machine, in the order of running."""
    makers = (build_tasks, test_tasks, benchmark_tasks, step_tasks, profile_tasks)
    found = [task for make in makers for task in make(settings, machine)]
    slack = 1 if settings.device == "cuda" else REHEARSAL_SLACK
    return [replace(task, limit_s=task.limit_s * slack) for task in found]


def build_tasks(settings: Settings, machine: dict) -> list[Task]:
    """The library with the CUDA ops for this card alone, and one op of it."""
    on_card = settings.device == "cuda"
    library = _task(
        settings, "build", "library", [sys.executable, "setup.py", "build_ext", "--inplace"], outcomes.of_exit,
        limit_s=240, guess_s=75, needs=None,
        env={
            "FORCE_CUDA": "1",
            "MAX_JOBS": str(settings.jobs),
            "TORCH_CUDA_ARCH_LIST": machine["compute_capability"] or "",
        },
        left_out=None if on_card else f"device {settings.device}: the library that is in place is used",
    )  # fmt: skip
    command = _script(settings, "first_op", "build", "first_op")
    return [library, _task(settings, "build", "first_op", command, outcomes.of_json, limit_s=120, guess_s=15)]


def test_tasks(settings: Settings, machine: dict) -> list[Task]:
    """The tests marked gpu; on a CPU, a few of the others."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "gpu_check.record_tests", "-p", "no:cacheprovider"]
    command += ["-m", "not gpu" if settings.device == "cpu" else "gpu"]
    workers = min(settings.jobs, MOST_WORKERS)
    if workers > 1 and importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(workers)]
    if settings.small:
        command += SMALL_TESTS
    record = _folder(settings, "tests", "gpu") / "tests.jsonl"
    return [
        _task(
            settings, "tests", "gpu", command, outcomes.of_tests, limit_s=170, guess_s=100,
            env={"GPU_CHECK_RECORD": str(record)}, share=outcomes.share_of_tests,
        )
    ]  # fmt: skip


def benchmark_tasks(settings: Settings, machine: dict) -> list[Task]:
    """The scripts that measure what has a goal on a GPU."""
    found = []
    for name, guess in BENCHMARKS.items():
        result = _folder(settings, "benchmarks", name) / f"{name}.json"
        command = [sys.executable, f"tools/benchmarks/{name}.py", "--device", settings.device, "--json", str(result)]
        command += ["--small", "--repeats", "1"] if settings.small else []
        found.append(_task(settings, "benchmarks", name, command, outcomes.of_benchmark, limit_s=90, guess_s=guess))
    return found


def step_tasks(settings: Settings, machine: dict) -> list[Task]:
    """A distilled training step of each detector."""
    found = []
    for name, guess in DETECTORS.items():
        command = [*_script(settings, "training_step", "steps", name), "--detector", name]
        reason = _why_not(name, settings.device)
        found.append(
            _task(settings, "steps", name, command, outcomes.of_json, limit_s=90, guess_s=guess, left_out=reason)
        )
    return found


def profile_tasks(settings: Settings, machine: dict) -> list[Task]:
    """The kernels of the distilled steps, and the hardware's counters of the slowest of ours."""
    detectors = [name for name in DETECTORS if _why_not(name, settings.device) is None]
    command = [*_script(settings, "profile_step", "profile", "kernels"), "--detectors", *detectors]
    kernels = _task(settings, "profile", "kernels", command, outcomes.of_json, limit_s=90, guess_s=50)
    reason = None if settings.device == "cuda" else f"device {settings.device}: it has no counters"
    if reason is None and shutil.which("ncu") is None:
        reason = "ncu is not installed"
    command = [sys.executable, "-m", "gpu_check.counters", "--kernels", str(kernels.folder / outcomes.RESULT)]
    command += ["--json", str(_folder(settings, "profile", "counters") / outcomes.RESULT)]
    counters = _task(
        settings, "profile", "counters", command, outcomes.of_json, limit_s=90, guess_s=40, needs=kernels.key,
        left_out=reason,
    )  # fmt: skip
    return [kernels, counters]


def _task(settings: Settings, stage: str, name: str, command: list[str], read: Read, **options: Any) -> Task:
    """A task in its folder, which needs the library unless it is told otherwise.

    On a card, without the new library the old one would be measured, as if it were the new one.
    """
    options.setdefault("needs", "build/library" if settings.device == "cuda" else None)
    return Task(stage, name, command, folder=_folder(settings, stage, name), read=read, **options)


def _script(settings: Settings, module: str, stage: str, name: str) -> list[str]:
    """The command of a module of this package, with the flags that all of them have."""
    result = _folder(settings, stage, name) / outcomes.RESULT
    command = [sys.executable, "-m", f"gpu_check.{module}", "--device", settings.device, "--json", str(result)]
    return command + (["--small"] if settings.small else [])


def _folder(settings: Settings, stage: str, name: str) -> Path:
    return settings.output / "tasks" / stage / name


def _why_not(detector: str, device: str) -> str | None:
    if detector != "second":
        return None
    if device == "emulated":
        return "spconv reads the memory of its tensors by itself, and knows no emulated device"
    return None if importlib.util.find_spec("spconv") is not None else "spconv is not installed"


def environment(task: Task) -> dict[str, str]:
    """The variables that a task's command gets: the checkout's own packages come first."""
    places = [str(ROOT), str(ROOT / "tools/dev"), str(ROOT / "tools/benchmarks"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places)), "PYTHONUNBUFFERED": "1", **task.env}
