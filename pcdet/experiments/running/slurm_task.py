"""A job's command as submitit runs it on a node of the cluster: started, told to end, and begun again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

STOP_S = 60.0  # for a command to save its state; Slurm kills the task SIGNAL_DELAY_S after its signal
REQUEUE_S = 300.0  # how long a command that was told to end waits for Slurm to say why
LOOK_S = 0.2


@dataclass
class CommandTask:
    """What a node runs: the command of a job, logging to the job's file. submitit pickles it.

    The command resumes from its folder, so the same task begins again after a preemption or a time limit.

    Attributes:
        command: and its arguments.
        cwd: where it runs.
        log: file that its output is appended to.
    """

    command: Sequence[str]
    cwd: str
    log: str
    _child: subprocess.Popen | None = None

    def __call__(self) -> None:
        """Runs the command to its end.

        Raises:
            RuntimeError: it failed, or was told to end by something else than a preemption.
        """
        told = _notes_of_sigterm()
        with open(self.log, "a") as log:
            self._child = subprocess.Popen(
                self.command, cwd=self.cwd, stdout=log, stderr=subprocess.STDOUT, preexec_fn=_leave_signal_to_submitit
            )
        # submitit's handler may interrupt this and wait too: neither may hold a lock or take the status from the other.
        os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)
        code = self._child.wait()
        if code and told:  # a preemption sends SIGTERM first: its signal, or the end, comes next
            time.sleep(REQUEUE_S)
        if code:
            self._say(f"the command ended with exit {code}")
            raise RuntimeError(f"exit {code}; its output is in {self.log}")

    def checkpoint(self) -> Any:
        """What submitit runs when Slurm takes the task away: the same command, once this one has saved its state."""
        from submitit.helpers import DelayedSubmission

        self._end_child()
        self._say("taken away by Slurm; the same command goes on from here")
        return DelayedSubmission(CommandTask(self.command, self.cwd, self.log))

    def _end_child(self) -> None:
        if self._child is None:
            return
        with contextlib.suppress(ProcessLookupError):  # it has ended, and its status is known
            os.kill(self._child.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        while _runs(self._child.pid):
            if time.monotonic() > deadline:
                self._say(f"killed, as it had not ended {STOP_S:.0f} s after SIGTERM; its last saved state counts")
                os.kill(self._child.pid, signal.SIGKILL)
                deadline += STOP_S
            time.sleep(LOOK_S)

    def _say(self, text: str) -> None:
        with open(self.log, "a") as log:
            log.write(f"[Slurm {os.environ.get('SLURM_JOB_ID', '')}] {text}\n")


def _runs(pid: int) -> bool:
    """Whether a child still runs; its status stays for whoever waits for it."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _notes_of_sigterm() -> list[int]:
    """A list that gets each SIGTERM from now on; the handler before is called too."""
    notes: list[int] = []
    before = signal.getsignal(signal.SIGTERM)

    def note(number, frame):
        notes.append(number)
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGTERM, note)
    return notes


def _leave_signal_to_submitit() -> None:
    """Slurm's warning reaches every process of the task; it would end the command before its state is saved."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
