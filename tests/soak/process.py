"""Starts functions and tools as forks of this process, which has imported everything once, and ends them.

A fork stands for a start of the command: configuration, logging, generators and signal handlers are as after an import,
and it ends as an interpreter does, so that a thread that never ends shows as a hang.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from support.interpreter_end import run_and_end

from pcdet.utils.parent_death import die_with_parent

TOOLS = Path(__file__).resolve().parents[2] / "tools"
POLL = 0.005  # seconds between two looks
PR_SET_CHILD_SUBREAPER = 36  # of <sys/prctl.h>


class Fork:
    """A running fork.

    Attributes:
        pid: of the process; its group has the same number.
        code: its exit status, minus the signal that ended it, None while it runs.
        log: the file of what it prints.
    """

    def __init__(self, pid: int, log: Path):
        self.pid, self.log, self.code = pid, log, None
        self.started = time.monotonic()

    def ended(self) -> bool:
        """Whether it has ended; then ``code`` is known."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def wait(self, seconds: float) -> bool:
        """Whether it ends within so many seconds."""
        return wait_until(self.ended, seconds)

    def signal(self, number: int) -> None:
        """Sends a signal to this process alone, if it still runs."""
        if not self.ended():
            os.kill(self.pid, number)

    def end(self) -> None:
        """Kills it with everything in its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.signal(signal.SIGKILL)
        self.wait(10)

    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")


def fork(call: Callable[[], None], log: Path, environment: Mapping[str, str] | None = None) -> Fork:
    """Runs ``call`` in a fork, in the folder of the tools, with its output appended to ``log``."""
    sys.stdout.flush()
    sys.stderr.flush()
    log.touch()
    pid = os.fork()
    if pid == 0:
        _become(call, log, environment or {})
    with contextlib.suppress(PermissionError, ProcessLookupError):  # it has done so itself, or ended
        os.setpgid(pid, pid)
    return Fork(pid, log)


def tool_call(tool: str, argv: list[str]) -> Callable[[], None]:
    """A call that does what ``python <tool>.py <argv>`` does."""

    def call():
        sys.argv = [f"{tool}.py", *argv]
        import_commands()[tool].main()

    return call


def import_commands() -> dict:
    """The commands' modules by the names of their tools, and all that they import late."""
    import tensorboardX  # noqa: F401
    import threadpoolctl  # noqa: F401
    import torch._dynamo  # noqa: F401 (the first optimizer of a process imports it, for seconds)

    import pcdet.datasets.kitti.evaluate  # noqa: F401
    from pcdet.cli import train, train_kd

    return {"train": train, "train_kd": train_kd}


def adopt_orphans() -> None:
    """Makes processes that lose their parent children of this one, so that :func:`orphans` finds them."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed; the soak needs Linux 3.4 or newer")


def children(pid: int) -> list[int]:
    """The running children of a process; its ended ones are left out, and reaped where it is this process."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it has ended meanwhile
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) != pid:
                continue
            if state != "Z":
                found.append(int(entry.name))
            elif pid == os.getpid():
                os.waitpid(int(entry.name), os.WNOHANG)
    return found


def orphans(seconds: float) -> list[int]:
    """Processes that a killed one has left behind and that still run after so many seconds; they are killed then.

    Call it when no fork runs.
    """
    wait_until(lambda: not children(os.getpid()), seconds)
    left = children(os.getpid())
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not children(os.getpid()), 10)
    return left


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether a condition comes true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL)
    return True


def _become(call: Callable[[], None], log: Path, environment: Mapping[str, str]) -> NoReturn:
    """The life of a fork."""
    try:
        os.setpgid(0, 0)
        die_with_parent()  # a soak that dies leaves no training behind
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(environment)
        os.chdir(TOOLS)
        stream = open(log, "a", buffering=1)
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        sys.stdout = sys.stderr = stream
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    run_and_end(call)
