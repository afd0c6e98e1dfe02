"""Which task runs, and how long it will be until the last one has ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from statistics import median

from gpu_check.tasks import Task
from pcdet.utils.tables import clock

TOO_EARLY = 0.05  # share of a task below which its own speed says little
LIVE_S = 1.0
QUIET_S = 30.0  # between two lines of progress where there is no terminal to redraw one


class Progress:
    """A line for each task; on a terminal it is redrawn while the task runs.

    The time to go is what the tasks took when they last ran. Those that never ran have a guess, which the pace of the
    others corrects; no task is given more than its limit and the budget allow.

    Args:
        tasks: those that this call will run.
        took_before: key of a task -> seconds that it took in an earlier call.
        deadline: when the budget ends, on the monotonic clock.
    """

    def __init__(self, tasks: Sequence[Task], took_before: dict[str, float], deadline: float):
        self.tasks, self.took_before, self.deadline = list(tasks), dict(took_before), deadline
        self.done: dict[str, float] = {}
        self.width = max((len(task.key) for task in tasks), default=0)
        self.live = sys.stdout.isatty()
        self.shown = self.share_before = 0.0

    def begin(self, task: Task) -> None:
        """A task starts."""
        self.shown = time.monotonic()
        self.share_before = task.share(task.folder) if task.share else 0.0
        self._line(task, 0.0)

    def tick(self, task: Task, seconds: float) -> None:
        """It still runs, since so many seconds."""
        if time.monotonic() - self.shown >= (LIVE_S if self.live else QUIET_S):
            self.shown = time.monotonic()
            self._line(task, seconds)

    def end(self, task: Task, seconds: float, verdict: str) -> None:
        """It has ended."""
        self.done[task.key] = seconds  # 0: it did not run
        text = f"{self._place(task)} {verdict}" + (f" after {seconds:.0f} s" if seconds else "")
        print(f"\r\x1b[K{text}" if self.live else text, flush=True)

    def seconds_to_go(self, task: Task, seconds: float) -> float:
        """From now, ``seconds`` into ``task``, until the last task has ended."""
        left = [other for other in self.tasks if other.key not in self.done and other is not task]
        to_go = self._rest(task, seconds) + sum(map(self._expected, left))
        return min(to_go, max(0.0, self.deadline - time.monotonic()))

    def _rest(self, task: Task, seconds: float) -> float:
        """Of the task that runs: by its own share of work done, where it tells that."""
        share = task.share(task.folder) - self.share_before if task.share else 0.0
        if share < TOO_EARLY:
            return max(0.0, self._expected(task) - seconds)
        left = 1.0 - self.share_before - share
        return min(task.limit_s - seconds, seconds * left / share)

    def _expected(self, task: Task) -> float:
        known = self.took_before.get(task.key)
        return min(task.limit_s, known if known is not None else task.guess_s * self._pace())

    def _pace(self) -> float:
        """How long tasks take against what was guessed of them."""
        paces = [self.done[task.key] / task.guess_s for task in self.tasks if self.done.get(task.key)]
        return median(paces) if paces else 1.0

    def _place(self, task: Task) -> str:
        return f"[{self.tasks.index(task) + 1}/{len(self.tasks)}] {task.key:{self.width}}"

    def _line(self, task: Task, seconds: float) -> None:
        late = "at least " if task.share is None and seconds > self._expected(task) else ""
        text = f"{self._place(task)} {seconds:4.0f} s, {late}{clock(self.seconds_to_go(task, seconds))} to go"
        print(f"\r\x1b[K{text}" if self.live else text, end="" if self.live else "\n", flush=True)
