"""A Slurm of this machine alone, for tests: what they do to it, and what they ask it."""

from __future__ import annotations

import functools
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

BIN = Path(__file__).resolve().parent / "bin"


class SlurmStub:
    """The stub's folder and its history.

    Args:
        root: folder that the environment variable SLURM_STUB names.
    """

    def __init__(self, root: Path):
        self.root = root

    def history(self, what: str) -> list[str]:
        """What the lines of the history that begin with a word go on with, in order."""
        path = self.root / "history"
        lines = path.read_text().splitlines() if path.is_file() else []
        entries = [line.split(" ", 1)[1] for line in lines]
        return [entry.removeprefix(what).strip() for entry in entries if entry.split()[0] == what]

    def flag(self, task: str, name: str, text: str = "") -> None:
        """Leaves a flag for a task's controller."""
        number, _, index = task.partition("_")
        (self.root / number / f"{index or 'single'}.{name}").write_text(text)

    def signal(self, task: str, *names: str) -> None:
        """Sends signals to all processes of a task, one after the other."""
        for name in names:
            subprocess.run([BIN / "scancel", task, "--signal", name], check=True)

    def stop(self) -> None:
        """Ends all tasks and controllers."""
        (self.root / "stop").touch()
        for path in self.root.glob("*/controller"):
            wait_until(functools.partial(_has_ended, int(path.read_text())))


def _has_ended(pid: int) -> bool:
    """Whether a process is gone, or waits to be asked for its exit status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Waits for a condition; TimeoutError where it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing came within {seconds:.0f} s")
        time.sleep(0.05)
