"""One command with a product: what it needs, how far it is, and how it ended."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

LOG_TAIL = 4096  # bytes of a log in which the newest training line is found
TRAIN_LINE = re.compile(r"Train:\s*(\d+)/(\d+) .*?\[\s*(\d+)/(\d+)")


class Run(Protocol):
    """What carries out a job: a process of this machine (``subprocess.Popen``) or a task of a cluster."""

    def poll(self) -> int | None:
        """The exit status; None as long as it has not ended."""

    def terminate(self) -> None:
        """Tells it to save its state and end."""

    def wait(self) -> int | None:
        """Comes back once it has ended."""


@dataclass(eq=False)  # two jobs are the same only if they are one object, and a job can be a key
class Job:
    """A command that logs to a file, goes on from its folder when it is started again, and leaves a product.

    Attributes:
        name: for people.
        command: and its arguments.
        cwd: where it runs.
        folder: of its outputs; ``freshness.claim`` decides whether what lies there counts.
        product: a file that exists once the job is done: a training's last checkpoint, a test's result.
        facts: everything that the result depends on.
        work: how long it takes against the other jobs, in any unit; measured speeds replace it as they come in.
        needs: jobs that must be done before.
        process: what carries it out, in this call.
        queued: whether it waits in the queue of a cluster.
    """

    name: str
    command: Sequence[str]
    cwd: Path
    folder: Path
    product: Path
    facts: Mapping = field(default_factory=dict)
    work: float = 1.0
    needs: Sequence[Job] = ()
    process: Run | None = None
    queued: bool = False
    began: float = 0.0
    begins_at: int = 0  # length of the log when it was started
    share_before: float | None = None  # where this call's first training line found it
    seconds: float | None = None  # that it took in this call

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / "output.txt"

    def begin(self) -> None:
        """Notes that the command begins now; what its log holds already counts no more."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.begins_at = self.log.stat().st_size if self.log.is_file() else 0
        self.began = time.monotonic()

    def start(self, environment: Mapping[str, str]) -> None:
        """Launches the command on this machine with more environment variables; its output is appended to the log."""
        self.begin()
        with self.log.open("a") as log:
            # Files that the caller marked as inheritable, such as a lock on the folders, stay open in the command: the
            # lock then outlives a caller that is killed.
            self.process = subprocess.Popen(
                self.command, cwd=self.cwd, stdout=log, stderr=subprocess.STDOUT, close_fds=False,
                env={**os.environ, **environment},
            )  # fmt: skip

    def done(self) -> bool:
        """Whether its product is there and nothing still writes."""
        running = self.process is not None and self.process.poll() is None
        return not running and self.product.is_file()

    def ended(self) -> bool:
        """Whether a job that was started has ended well.

        Raises:
            SystemExit: it has failed; the message has the command and the end of its log.
        """
        code = None if self.process is None else self.process.poll()
        if code is None:
            return False
        if code == 0 and self.product.is_file():
            self.seconds = time.monotonic() - self.began
            return True
        lines = self.log.read_text(errors="replace").splitlines() if self.log.is_file() else []
        why = f"exit {code}" if code else f"exit 0 without {self.product}"
        how = f"cd {shlex.quote(str(self.cwd))} && {shlex.join(map(str, self.command))}"
        tail = "\n".join(lines[-15:])
        raise SystemExit(f"{self.name} failed ({why}); its command:\n{how}\nthe end of {self.log}:\n{tail}")

    def position(self) -> tuple[int, int]:
        """(iterations done, iterations in all), as the newest training line of this call tells; (0, 0) before it."""
        if self.process is None or not self.log.is_file():
            return 0, 0
        with self.log.open("rb") as log:
            log.seek(max(self.begins_at, log.seek(0, 2) - LOG_TAIL))
            lines = TRAIN_LINE.findall(log.read().decode(errors="replace"))
        return _position(lines[-1]) if lines else (0, 0)

    def share(self) -> float:
        """How much of it is done, 0 to 1; 0 until the end for a command that logs no training lines."""
        if self.done():
            return 1.0
        done, total = self.position()
        if total and self.share_before is None:
            self.share_before = self._share_at_start()
        return done / total if total else 0.0

    def _share_at_start(self) -> float:
        """How much of it was done when this call began: just before its first training line, however long ago."""
        with self.log.open("rb") as log:
            log.seek(self.begins_at)
            first = next(filter(None, (TRAIN_LINE.search(line.decode(errors="replace")) for line in log)))
        done, total = _position(first.groups())
        return (done - 1) / total

    def spent(self) -> tuple[float, float]:
        """(seconds that this call has spent on it, how much of its work that was)."""
        if self.process is None:
            return 0.0, 0.0
        work = (self.share() - (self.share_before or 0.0)) * self.work
        if not work:  # still loading
            return 0.0, 0.0
        return (self.seconds if self.seconds is not None else time.monotonic() - self.began), work


def _position(numbers: Sequence[str]) -> tuple[int, int]:
    """(iterations done, iterations in all) of the four numbers of a training line."""
    epoch, epochs, it, its = map(int, numbers)
    return (epoch - 1) * its + it, epochs * its
