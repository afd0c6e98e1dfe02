"""One target and one engine in a child process, watched from outside: crashes, hangs and memory become outcomes.

The child keeps the input it works on in memory that it shares with its parent. Whatever happens to the child, the
parent holds the culprit.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import mmap
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.engines import leave
from fuzz.mutate import MAX_SIZE
from fuzz.outcome import CRASH, HANG, KINDS, MEMORY, Outcome, judge
from fuzz.target import Target

MB = 1 << 20
GRACE = 60  # seconds beyond its own in which an engine must try its first input, and end
PATIENCE = 12  # times a target's seconds that may pass on the clock, where the machine is busy or the child sleeps
MOST_SHAPES = 8  # of failures of which an input is kept
SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")
SHARED_MEMORY = Path("/dev/shm")
PAGE = resource.getpagesize()


@dataclass
class Finding:
    """An input that failed."""

    data: bytes
    outcome: Outcome


class _Board(ctypes.Structure):
    """What child and parent share."""

    _fields_ = [
        ("counts", ctypes.c_uint64 * len(KINDS)),
        ("length", ctypes.c_uint64),
        ("busy", ctypes.c_uint8),
        ("cpu", ctypes.c_double),
        ("wall", ctypes.c_double),
        ("resident", ctypes.c_uint64),
    ]


class _Stop(BaseException):
    """Time is up, or enough inputs were tried."""


@dataclass
class Session:
    """Runs one engine on one target.

    Args:
        target: what is fuzzed.
        engine: a function of (target, tester, seed, folder) that calls ``tester(data)`` until it is stopped.
        seed: the same seed, the same inputs.
        seconds: on the clock.
        limit: most inputs, for tests.

    Attributes:
        counts: by kind of outcome.
        findings: one input for each shape of failure.
    """

    target: Target
    engine: Callable
    seed: str
    seconds: float
    limit: int | None = None
    max_deaths: int = 6
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    findings: list[Finding] = field(default_factory=list)
    used: float = 0.0

    def start(self) -> None:
        """Starts the first child."""
        self._deaths = 0
        self._began = time.monotonic()
        self._fork()

    def _fork(self) -> None:
        self._folder = Path(
            tempfile.mkdtemp(prefix="pcdet-fuzz-", dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None)
        )
        self._memory = mmap.mmap(-1, ctypes.sizeof(_Board) + 4 * MAX_SIZE)
        self._board = _Board.from_buffer(self._memory)
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            self._child()

    # ------------------------------------------------------------------------------------------------ in the child

    def _child(self) -> None:
        code = 1
        try:
            self._settle()
            self.engine(self.target, self._tester(), f"{self.seed}:{self.target.name}:{self._deaths}", self._folder)
            code = 0
        except _Stop:
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            leave(code)

    def _settle(self) -> None:
        """Puts output into a log, Python's stack at a crash too, and bounds the memory."""
        log = os.open(self._folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if not SANITIZED:
            faulthandler.enable(open(self._folder / "log", "a"))
        faulthandler.register(signal.SIGUSR1, open(self._folder / "log", "a"), all_threads=False)
        warnings.simplefilter("ignore")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        self._board.resident = _resident(os.getpid())
        if not SANITIZED:  # the sanitizers reserve terabytes
            bound = _virtual(os.getpid()) + self.target.memory * MB
            resource.setrlimit(resource.RLIMIT_AS, (bound, bound))

    def _tester(self) -> Callable[[bytes], Outcome]:
        board, target, start = self._board, self.target, ctypes.sizeof(_Board)
        path = target.place(self._folder, f"input{target.suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        end, shapes = self._began + self.seconds, set()

        def test(data: bytes) -> Outcome:
            tried = sum(board.counts)
            late = time.monotonic() > end and tried > 0  # a busy machine may need all the time to get here
            if late or (self.limit is not None and tried >= self.limit):
                if self._atheris:
                    leave(0)
                raise _Stop
            data = data[: 4 * MAX_SIZE]
            self._memory[start : start + len(data)] = data
            board.length, board.cpu, board.wall = len(data), time.process_time(), time.monotonic()
            board.busy = 1
            path.write_bytes(data)
            outcome = judge(target, path)
            board.busy = 0
            board.counts[KINDS.index(outcome.kind)] += 1
            if outcome.failed and outcome.shape not in shapes and len(shapes) < MOST_SHAPES:
                shapes.add(outcome.shape)
                self._keep(data, outcome, len(shapes))
            return outcome

        return test

    @property
    def _atheris(self) -> bool:
        return self.engine.__name__ == "run_atheris"

    def _keep(self, data: bytes, outcome: Outcome, number: int) -> None:
        (self._folder / f"found{number}.data").write_bytes(data)
        (self._folder / f"found{number}.json").write_text(json.dumps([outcome.kind, outcome.reason, outcome.place]))

    # ----------------------------------------------------------------------------------------------- in the parent

    def poll(self) -> bool:
        """Looks after the child; False once all is done."""
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if pid:
            return self._collect(self._death(status))
        verdict = self._verdict()
        if verdict is None:
            return True
        os.kill(self._pid, signal.SIGUSR1)  # writes the stack
        time.sleep(0.1)
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        if verdict.kind == HANG and not self._board.busy and not any(self.total().values()):
            return self._collect(None)  # no input is to blame; counts of 0 tell it
        return self._collect(Outcome(verdict.kind, f"{verdict.reason} {self._from_log()}"))

    def total(self) -> dict[str, int]:
        """Counts so far, the running child's included."""
        return {kind: self.counts[kind] + self._board.counts[i] for i, kind in enumerate(KINDS)}

    def abandon(self) -> None:
        """Ends the child, for a parent that is interrupted."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _verdict(self) -> Outcome | None:
        """What is wrong with the child that still runs."""
        grown = _resident(self._pid) - self._board.resident
        if self._board.resident and grown > self.target.memory * MB:
            return Outcome(MEMORY, f"grew by more than {self.target.memory} MB")
        if self._board.busy:
            allowed = self.target.seconds * (1 + self._board.length / MB)
            spent = _cpu(self._pid) - self._board.cpu
            if spent > allowed or time.monotonic() - self._board.wall > PATIENCE * allowed:
                return Outcome(HANG, f"did not end in {allowed:.0f} s of processor time")
        elif time.monotonic() > self._began + self.seconds + GRACE:  # an engine that does not end; none is known
            return Outcome(HANG, "the engine did not end in its time")
        return None

    def _death(self, status: int) -> Outcome | None:
        """What a child that has ended died of."""
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return None
        if not self._board.busy:
            raise RuntimeError(f"{self.target.name}: the engine failed between inputs:\n{self._log()[-3000:]}")
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return Outcome(CRASH, f"{name} {self._from_log()}")

    def _collect(self, death: Outcome | None) -> bool:
        """Takes over what a child has found, and starts the next one where there is time."""
        self.counts = self.total()
        for file in sorted(self._folder.glob("found*.json")):
            outcome = Outcome(*json.loads(file.read_text()))
            self._add(Finding(file.with_suffix(".data").read_bytes(), outcome))
        if death is not None:
            self._deaths += 1
            self.counts[death.kind] += 1
            start = ctypes.sizeof(_Board)
            self._add(Finding(self._memory[start : start + self._board.length], death))
        shutil.rmtree(self._folder, ignore_errors=True)
        self.used = time.monotonic() - self._began
        ended = death is None or self._deaths >= self.max_deaths or self.used >= self.seconds
        if self.limit is not None:
            ended = ended or sum(self.counts.values()) >= self.limit
        self._board.counts[:] = [0] * len(KINDS)
        if not ended:
            self._fork()
        return not ended

    def _add(self, finding: Finding) -> None:
        known = {other.outcome.shape for other in self.findings}
        if finding.outcome.shape not in known and len(known) < MOST_SHAPES:
            self.findings.append(finding)

    def _log(self) -> str:
        try:
            return (self._folder / "log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def _from_log(self) -> str:
        """The line of a sanitizer, and the innermost lines of Python."""
        log = self._log()
        lines = re.findall(r"(?:ERROR: AddressSanitizer: |runtime error: ).*", log)[:1]
        frames = re.findall(r'File "[^"]*?([^/"]+)", line (\d+) in (\S+)', log)
        return "; ".join([*lines, ", ".join(f"{file}:{line} {name}" for file, line, name in frames[:3])]).strip("; ")


def judge_alone(target: Target, data: bytes) -> Outcome:
    """What comes of one input in a process of its own."""

    def once(target, tester, seed, folder):
        tester(data)

    session = Session(target, once, "alone", seconds=10 * target.seconds, limit=1, max_deaths=1)
    session.start()
    while session.poll():
        time.sleep(0.002)
    found = session.findings
    return found[0].outcome if found else Outcome(next(kind for kind, count in session.counts.items() if count))


def _resident(pid: int) -> int:
    return _statm(pid, 1)


def _virtual(pid: int) -> int:
    return _statm(pid, 0)


def _statm(pid: int, column: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[column]) * PAGE


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
