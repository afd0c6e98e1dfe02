"""What is kept of a task between two calls: its outcome, and the inputs that it is an outcome of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gpu_check.tasks import Task
from pcdet.utils import safe_files

PASSED, FAILED, TIMED_OUT, NOT_RUN, LEFT_OUT = "passed", "failed", "timed out", "not run", "left out"
FILE = "outcome.json"
INPUTS = "inputs.json"


@dataclass(frozen=True)
class Result:
    """The outcome of one task, as the report has it.

    Attributes:
        stage: of the task.
        task: its name in the stage.
        status: passed, failed, timed out, not run or left out.
        reason: why it is not passed; None where it is.
        seconds: that it took; 0 where it did not run.
        limit_s: that it was given.
        command: what was run.
        log: the file with what it printed.
        from_earlier_call: it was not repeated.
        finished: when, UTC; None where it did not run.
        details: figures, by kind of task.
    """

    stage: str
    task: str
    status: str
    reason: str | None = None
    seconds: float = 0.0
    limit_s: float = 0.0
    command: str = ""
    log: str = ""
    from_earlier_call: bool = False
    finished: str | None = None
    details: dict = field(default_factory=dict)


def inputs_of(task: Task, machine: Mapping, small: bool) -> dict:
    """Everything that a task's outcome depends on."""
    names = ("device", "card", "compute_capability", "driver", "versions", "sources")
    return {**{name: machine[name] for name in names}, "small": small, "command": task.command}


def prepare(task: Task, inputs: dict, again: bool) -> None:
    """Makes the task's folder; empties it where what lies there is of other inputs, or is not wanted."""
    kept = task.folder / INPUTS
    if again or not kept.is_file() or json.loads(kept.read_text()) != inputs:
        shutil.rmtree(task.folder, ignore_errors=True)
        task.folder.mkdir(parents=True)
        write_json(kept, inputs)


def forget_results(task: Task) -> None:
    """Removes what an earlier attempt has written, so that nobody takes it for this one's; records of tests stay."""
    for file in task.folder.glob("*.json"):
        if file.name != INPUTS:
            file.unlink()


def find(task: Task) -> Result | None:
    """The outcome that lies in a prepared folder, if there is one."""
    file = task.folder / FILE
    return Result(**json.loads(file.read_text())) if file.is_file() else None


def seconds_before(task: Task) -> float | None:
    """How long the task took when it last passed, with whatever inputs; None where it has not."""
    file = task.folder / FILE
    if not file.is_file():
        return None
    last = json.loads(file.read_text())
    return last["seconds"] if last["status"] == PASSED else None


def keep(task: Task, result: Result) -> None:
    """Writes a task's outcome."""
    write_json(task.folder / FILE, asdict(result))


def write_json(path: Path, content: dict) -> None:
    """A file that is whole or not there."""
    with safe_files.replacing(path) as stream:
        stream.write((json.dumps(content, indent=2) + "\n").encode())
