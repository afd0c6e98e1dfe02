"""Runs tasks one after the other, each with its limit, its log and its outcome."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from gpu_check import state
from gpu_check.machine import ROOT
from gpu_check.progress import Progress
from gpu_check.state import FAILED, LEFT_OUT, NOT_RUN, PASSED, TIMED_OUT, Result
from gpu_check.tasks import Task, environment
from pcdet.utils.parent_death import die_with_parent

POLL_S = 0.1
LEAST_S = 5.0  # a task that would be given less is not started
GRACE_S = 5.0  # between asking a task to end and ending it


class Stopped(Exception):
    """A signal asked for the end."""


class Signals:
    """Notes SIGINT and SIGTERM while it is entered.

    An exception out of a handler would be lost where it meets a callback of Python's own, as after a fork.
    """

    def __enter__(self) -> Signals:
        self.seen: list[int] = []
        self.previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.seen.append(number)

    def check(self) -> None:
        """Raises Stopped once one was seen."""
        if self.seen:
            raise Stopped(signal.Signals(self.seen[0]).name)


def run_tasks(
    tasks: Sequence[Task],
    inputs: Callable[[Task], dict],
    *,
    budget_s: float,
    again: Sequence[str] = (),
    after_each: Callable[[list[Result]], None],
    check_stop: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Runs what has no outcome of these inputs yet.

    Args:
        tasks: in the order of running.
        inputs: of a task; an outcome of others does not count.
        budget_s: seconds for all of them; what does not fit is not run.
        again: stages of which no outcome counts.
        after_each: gets all outcomes at the start and after each task; those to come are "not run".
        check_stop: called often; its exception ends the task that runs, and this call.

    Returns:
        One outcome for each task. One that failed keeps none of the others from running, but those that need it.
    """
    took_before = {task.key: seconds for task in tasks if (seconds := state.seconds_before(task)) is not None}
    results, to_run = _sort_out(tasks, inputs, again)
    after_each(list(results.values()))
    deadline = time.monotonic() + budget_s
    progress = Progress(to_run, took_before, deadline)
    for task in to_run:
        check_stop()
        left = deadline - time.monotonic()
        reason = f"the budget of {budget_s:g} s is used up" if left < LEAST_S else None
        needed = results.get(task.needs) if task.needs else None
        if needed is not None and needed.status not in (PASSED, LEFT_OUT):
            reason = f"{task.needs} is {needed.status}"
        if reason is None:
            results[task.key] = run_task(task, min(task.limit_s, left), progress, check_stop)
            state.keep(task, results[task.key])
        else:
            progress.end(task, 0.0, f"{NOT_RUN}: {reason}")
            results[task.key] = _not_run(task, reason)
        after_each(list(results.values()))
    return list(results.values())


def _sort_out(
    tasks: Sequence[Task], inputs: Callable[[Task], dict], again: Sequence[str]
) -> tuple[dict[str, Result], list[Task]]:
    """Key -> what is known of each task before anything runs; and the tasks that are to run."""
    results, to_run = {task.key: _not_run(task, "not reached") for task in tasks}, []
    for task in tasks:
        if task.left_out:
            results[task.key] = replace(_not_run(task, task.left_out), status=LEFT_OUT)
            continue
        state.prepare(task, inputs(task), again=task.stage in again)
        earlier = state.find(task)
        if earlier is not None and earlier.status == PASSED:
            results[task.key] = replace(earlier, from_earlier_call=True)
        else:
            to_run.append(task)
    return results, to_run


def run_task(task: Task, limit_s: float, progress: Progress, check_stop: Callable[[], None]) -> Result:
    """Runs one task to its end or its limit; its messages go to ``log.txt`` in its folder."""

    def tick(seconds: float) -> None:
        check_stop()
        progress.tick(task, seconds)

    progress.begin(task)
    state.forget_results(task)
    log, began = task.folder / "log.txt", time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            task.command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env=environment(task), start_new_session=True, preexec_fn=die_with_parent,
        )  # fmt: skip
        try:
            status = _wait(process, limit_s, tick)
        finally:
            _end(process)
    seconds = round(time.monotonic() - began, 1)
    details, problem = task.read(task.folder, 0 if status is None else status)
    verdict = PASSED if problem is None else FAILED
    if status is None:
        by_budget = limit_s < task.limit_s  # it had less than its own limit: no fault of the task
        verdict, ender = (NOT_RUN, "the budget") if by_budget else (TIMED_OUT, "its limit")
        problem = f"{ender} ended it after {limit_s:.0f} s" + (f"; {problem}" if problem else "")
    elif problem:
        problem = f"{problem}; the end of {_shown(log)}: {_last_line(log)}"
    progress.end(task, seconds, verdict)
    return replace(
        _not_run(task, problem), status=verdict, seconds=seconds, limit_s=round(float(limit_s), 1), details=details,
        finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )  # fmt: skip


def _wait(process: subprocess.Popen, limit_s: float, tick: Callable[[float], None]) -> int | None:
    """The exit status, or None where the limit came first."""
    began = time.monotonic()
    while (seconds := time.monotonic() - began) < limit_s:
        try:
            return process.wait(timeout=min(POLL_S, limit_s - seconds))
        except subprocess.TimeoutExpired:
            tick(seconds)
    return None


def _end(process: subprocess.Popen) -> None:
    """Ends the task and everything that it has started; what has ended is left alone."""
    for number, patience in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)  # its own group, whose number is its own
        except ProcessLookupError:
            return
        try:
            process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            continue


def _not_run(task: Task, reason: str | None) -> Result:
    return Result(
        task.stage, task.name, NOT_RUN, reason, command=shlex.join(task.command), log=_shown(task.folder / "log.txt")
    )


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "nothing"
