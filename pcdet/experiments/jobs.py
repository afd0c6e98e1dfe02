"""Trainings side by side: which may start, how far each one is, and when all will be done."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from pcdet.experiments.freshness import claim

LOG_TAIL = 4096  # bytes of a log in which the newest training line is found
TRAIN_LINE = re.compile(r"Train:\s*(\d+)/(\d+) .*?\[\s*(\d+)/(\d+)")
TOO_EARLY = 0.01  # share of a training below which its own speed says little
POLL_S = 0.5
QUIET_S = 60.0  # between two lines of progress where there is no terminal to draw a bar on


@dataclass
class Job:
    """One training: a command that logs to a file and leaves a checkpoint.

    Attributes:
        name: for people.
        command: and its arguments.
        cwd: where it runs.
        folder: of its outputs; ``freshness.claim`` decides whether what lies there counts.
        checkpoint: exists once the training is done.
        facts: everything that the result depends on.
        work: how long it takes against the other jobs, in any unit; measured speeds replace it as they come in.
        needs: jobs that must be done before.
    """

    name: str
    command: Sequence[str]
    cwd: Path
    folder: Path
    checkpoint: Path
    facts: Mapping = field(default_factory=dict)
    work: float = 1.0
    needs: Sequence[Job] = ()
    process: subprocess.Popen | None = None
    began: float = 0.0
    begins_at: int = 0  # length of the log when it was started
    share_before: float | None = None  # where this call's first training line found it
    seconds: float | None = None  # that the training took in this call

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / "output.txt"

    def start(self) -> None:
        """Launches the training; its output is appended to the log."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.begins_at = self.log.stat().st_size if self.log.is_file() else 0
        self.began = time.monotonic()
        with self.log.open("a") as log:
            # Files that the caller marked as inheritable, such as a lock on the folders, stay open in the training: the
            # lock then outlives a caller that is killed.
            self.process = subprocess.Popen(
                self.command, cwd=self.cwd, stdout=log, stderr=subprocess.STDOUT, close_fds=False
            )

    def done(self) -> bool:
        """Whether its checkpoint is there and nothing still writes."""
        running = self.process is not None and self.process.poll() is None
        return not running and self.checkpoint.is_file()

    def ended(self) -> bool:
        """Whether a process that was started has ended well; one that failed ends everything with the log's end."""
        code = None if self.process is None else self.process.poll()
        if code is None:
            return False
        if code == 0 and self.checkpoint.is_file():
            self.seconds = time.monotonic() - self.began
            return True
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        why = f"exit {code}" if code else f"exit 0 without {self.checkpoint}"
        raise SystemExit(f"{self.name} failed ({why}); the end of {self.log}:\n{tail}")

    def position(self) -> tuple[int, int]:
        """(iterations done, iterations in all), as the newest training line of this call tells; (0, 0) before it."""
        if self.process is None or not self.log.is_file():
            return 0, 0
        with self.log.open("rb") as log:
            log.seek(max(self.begins_at, log.seek(0, 2) - LOG_TAIL))
            lines = TRAIN_LINE.findall(log.read().decode(errors="replace"))
        if not lines:
            return 0, 0
        epoch, epochs, it, its = map(int, lines[-1])
        return (epoch - 1) * its + it, epochs * its

    def share(self) -> float:
        """How much of it is done, 0 to 1."""
        if self.done():
            return 1.0
        done, total = self.position()
        if total and self.share_before is None:
            self.share_before = (done - 1) / total
        return done / total if total else 0.0


def run_jobs(jobs: Sequence[Job], parallel: int, say: Callable[[str], None] = tqdm.write) -> None:
    """Runs what is not done yet, in order, ``parallel`` at a time, each after those it needs, under one progress bar.

    Raises:
        SystemExit: a training failed; the others are told to end, and save their state.
    """
    for job in jobs:
        if reason := claim(job.folder, job.facts):
            say(f"  {job.name} is trained anew: {reason}")
    waiting = [job for job in jobs if not job.done()]
    for job in jobs:
        if job not in waiting:
            say(f"  {job.name:<44} is there already")
    running: list[Job] = []
    bar = _Progress()
    start = time.monotonic()
    try:
        while waiting or running:
            for job in list(waiting):
                if len(running) < parallel and all(need.done() for need in job.needs):
                    waiting.remove(job)
                    job.start()
                    running.append(job)
            _show(bar, jobs, running, waiting, parallel, start)
            time.sleep(POLL_S)
            for job in [job for job in running if job.ended()]:
                running.remove(job)
                say(f"  {job.name:<44} {clock(job.seconds):>8}")
    finally:
        for job in running:
            job.process.terminate()
        for job in running:
            job.process.wait()  # a training saves its state when it is told to end
        _show(bar, jobs, running, waiting, parallel, start)
        bar.close()


def seconds_to_go(jobs: Sequence[Job], running: Sequence[Job], waiting: Sequence[Job], parallel: int) -> float | None:
    """When all will be done, by the speed measured so far; None before there is any.

    A running job goes on at its own speed, and one that waits takes ``work`` at the mean speed. They are dealt out to
    ``parallel`` places as :func:`run_jobs` would.
    """
    spent = {job.name: _seconds_and_work(job) for job in jobs}
    seconds, work = (sum(column) for column in zip(*spent.values(), strict=True))
    if not work:
        return None
    pace = seconds / work
    left = {}
    for job in running:
        own_seconds, own_work = spent[job.name]
        own_pace = own_seconds / own_work if own_work > TOO_EARLY * job.work else pace
        left[job.name] = (1 - job.share()) * job.work * own_pace
    left |= {job.name: (1 - job.share()) * job.work * pace for job in waiting}
    return _makespan(left, [job.name for job in running], waiting, parallel)


def _seconds_and_work(job: Job) -> tuple[float, float]:
    """What this call has spent on a job, and how much of its work that was."""
    if job.process is None:
        return 0.0, 0.0
    work = (job.share() - (job.share_before or 0.0)) * job.work
    if not work:  # still loading
        return 0.0, 0.0
    return (job.seconds if job.seconds is not None else time.monotonic() - job.began), work


def _makespan(left: Mapping[str, float], running: Sequence[str], waiting: Sequence[Job], parallel: int) -> float:
    """Seconds until the last job ends, each waiting one beginning as soon as a place and what it needs are there."""
    end = {name: left[name] for name in running}
    places = sorted(end.values())
    places = [0.0] * (parallel - len(places)) + places
    queue = list(waiting)
    while queue:
        ready_at = {
            job.name: max([0.0, *(end.get(need.name, 0.0) for need in job.needs)])
            for job in queue
            if not any(need in queue for need in job.needs)
        }
        free = min(places)
        job = min((j for j in queue if j.name in ready_at), key=lambda j: max(free, ready_at[j.name]))
        end[job.name] = max(free, ready_at[job.name]) + left[job.name]
        places[places.index(free)] = end[job.name]
        queue.remove(job)
    return max(end.values(), default=0.0)


def _show(bar: _Progress, jobs, running, waiting, parallel: int, start: float) -> None:
    percent = 100 * sum(job.share() * job.work for job in jobs) / sum(job.work for job in jobs)
    to_go = seconds_to_go(jobs, running, waiting, parallel)
    where = [_describe(job) for job in running]
    times = f"{clock(time.monotonic() - start)}, {clock(to_go) if to_go is not None else '?'} to go"
    bar.show(percent, "  ".join([times, *where]))


class _Progress:
    """A bar on a terminal; elsewhere a line now and then, since every redrawing would stay in the log."""

    def __init__(self):
        self.bar, self.shown = None, -QUIET_S
        if sys.stderr.isatty():
            bar_format = "training {percentage:3.0f}%|{bar}| {desc}"
            self.bar = tqdm(total=100.0, dynamic_ncols=True, bar_format=bar_format)

    def show(self, percent: float, text: str) -> None:
        if self.bar is not None:
            self.bar.n = percent
            self.bar.set_description_str(text)
        elif time.monotonic() - self.shown >= QUIET_S:
            self.shown = time.monotonic()
            print(f"training {percent:3.0f}%  {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _describe(job: Job) -> str:
    done, total = job.position()
    return f"{job.name} {done}/{total}" if total else f"{job.name} begins"


def clock(seconds: float) -> str:
    """``m:ss``, or ``h:mm:ss`` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
