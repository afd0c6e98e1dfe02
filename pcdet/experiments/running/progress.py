"""How far the jobs are and when all will be done: one bar over every stage of a plan."""

from __future__ import annotations

import heapq
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from pcdet.experiments.running.jobs import Job
from pcdet.utils.tables import clock

TOO_EARLY = 0.01  # share of a job below which its own speed says little
LIVE_S = 1.0  # between two drawings of the bar
QUIET_S = 60.0  # between two lines of progress where there is no terminal to draw a bar on
SHOWN = 4  # jobs that are named beside the bar


@dataclass
class PlanProgress:
    """The bar over a plan that calls ``run_jobs`` once a stage. A context manager: leaving it ends the bar.

    Attributes:
        later_work: of the stages that come after the next call, in the unit of ``Job.work``; the caller's to set.
        done_work: of the stages before it; ``run_jobs`` adds its own when it ends well.
        label: what is going on, before the percentage.
        seconds: that earlier stages spent on their jobs.
        work: that they did in those seconds.
    """

    later_work: float = 0.0
    done_work: float = 0.0
    label: str = "training"
    seconds: float = 0.0
    work: float = 0.0
    _began: float = field(default_factory=time.monotonic)
    _shown: float = float("-inf")
    _bar: tqdm | None = None

    def show(
        self, jobs: Sequence[Job], running: Sequence[Job], waiting: Sequence[Job], places: int, *, last: bool = False
    ) -> None:
        """Draws the bar; elsewhere than on a terminal a line now and then, as every drawing would stay in the log.

        Args:
            jobs: of this stage.
            running: those that run.
            waiting: those that have not begun.
            places: how many run at once.
            last: draw it however short the time since the last drawing.
        """
        live = sys.stderr.isatty()
        since = time.monotonic() - self._shown
        if not (live and last) and since < (LIVE_S if live else QUIET_S):
            return
        self._shown = time.monotonic()
        percent, to_go = self.percent(jobs), seconds_to_go(jobs, running, waiting, places, self)
        times = f"{clock(self._shown - self._began)}, {clock(to_go) if to_go is not None else '?'} to go"
        text = "  ".join([times, *_describe(running)])
        if not live:
            print(f"{self.label} {percent:3.0f}%  {text}", file=sys.stderr, flush=True)
            return
        if self._bar is None:
            self._bar = tqdm(total=100.0, dynamic_ncols=True)
        self._bar.bar_format = self.label.replace("{", "{{").replace("}", "}}") + " {percentage:3.0f}%|{bar}| {desc}"
        self._bar.n = percent
        self._bar.set_description_str(text)

    def percent(self, jobs: Sequence[Job]) -> float:
        """How much of the whole plan is done, while the stage of these jobs runs."""
        done = self.done_work + sum(job.share() * job.work for job in jobs)
        total = self.done_work + sum(job.work for job in jobs) + self.later_work
        return 100 * done / total if total else 100.0

    def end_stage(self, jobs: Sequence[Job]) -> None:
        """Counts the jobs of a stage that ended well as done, with the speed that was measured on them."""
        self.done_work += sum(job.work for job in jobs)
        for job in jobs:
            seconds, work = job.spent()
            self.seconds, self.work = self.seconds + seconds, self.work + work

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> PlanProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def seconds_to_go(
    jobs: Sequence[Job],
    running: Sequence[Job],
    waiting: Sequence[Job],
    places: int,
    whole: PlanProgress | None = None,
) -> float | None:
    """When all will be done, by the speed measured so far; None before there is any.

    A running job goes on at its own speed, and one that waits takes ``work`` at the mean speed. They are dealt out to
    the places as ``run_jobs`` would; the work of later stages fills all places evenly.
    """
    whole = whole or PlanProgress()
    spent = {job: job.spent() for job in jobs}
    seconds = whole.seconds + sum(seconds for seconds, _ in spent.values())
    work = whole.work + sum(work for _, work in spent.values())
    if not work:
        return None
    pace = seconds / work
    left = {job: (1 - job.share()) * job.work * pace for job in waiting}
    for job in running:
        own_seconds, own_work = spent[job]
        own_pace = own_seconds / own_work if own_work > TOO_EARLY * job.work else pace
        left[job] = (1 - job.share()) * job.work * own_pace
    return _makespan(left, running, waiting, places) + whole.later_work * pace / places


def _makespan(left: Mapping[Job, float], running: Sequence[Job], waiting: Sequence[Job], places: int) -> float:
    """Seconds until the last job ends, each waiting one beginning as soon as a place and what it needs are there."""
    ends = [(left[job], number) for number, job in enumerate(running)]
    heapq.heapify(ends)
    started, queue = list(running), list(waiting)
    undone = {*running, *waiting}
    now, free = 0.0, places - len(running)
    while ends or queue:
        ready = (job for job in queue if not any(need in undone for need in job.needs))
        job = next(ready, None) if free > 0 else None
        if job is not None:
            queue.remove(job)
            heapq.heappush(ends, (now + left[job], len(started)))
            started.append(job)
            free -= 1
            continue
        if not ends:  # run_jobs refuses jobs that can never begin
            break
        now, number = heapq.heappop(ends)
        undone.discard(started[number])
        free += 1
    return now


def _describe(running: Sequence[Job]) -> list[str]:
    """The jobs that run, a few by name and the rest by number."""
    begun = [job for job in running if not job.queued]
    texts = []
    for job in begun[:SHOWN]:
        done, total = job.position()
        texts.append(f"{job.name} {done}/{total}" if total else f"{job.name} begins")
    if len(begun) > SHOWN:
        texts.append(f"and {len(begun) - SHOWN} more")
    if len(begun) < len(running):
        texts.append(f"{len(running) - len(begun)} queued")
    return texts
