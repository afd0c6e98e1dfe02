"""Jobs side by side: which may start, on which places, and what is said about them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from tqdm import tqdm

from pcdet.experiments.running.freshness import claim
from pcdet.experiments.running.jobs import Job
from pcdet.experiments.running.progress import PlanProgress
from pcdet.utils.tables import clock

NAMED = 8  # jobs that are there already, each on a line of its own; more of them are counted


class Places(Protocol):
    """Where jobs run: cores or GPUs of this machine (``places.py``), or a cluster (``slurm.py``).

    Attributes:
        count: how many jobs run at once.
        poll_s: seconds between two looks at them.
    """

    count: int
    poll_s: float

    def adopt(self, jobs: Sequence[Job]) -> list[Job]:
        """Those of the jobs that still run or wait since an earlier call; jobs of other facts are ended first."""

    def start(self, ready: Sequence[Job], running: Sequence[Job]) -> list[Job]:
        """Starts as many of the ready jobs as there is room for, in order, and returns them."""


def run_jobs(
    jobs: Sequence[Job],
    places: Places,
    whole: PlanProgress | None = None,
    say: Callable[[str], None] = tqdm.write,
) -> None:
    """Runs what is not done yet, in order, each job after those it needs, under one progress bar.

    Args:
        jobs: of one stage.
        places: where they run.
        whole: the bar of a plan of several stages; left out, the jobs get a bar of their own.
        say: takes a line about a job that is there already, is done anew, or has ended.

    Raises:
        SystemExit: a job failed, cannot be started or can never begin; the others are told to end, and save their
            state.
    """
    bar = whole or PlanProgress()
    running = places.adopt(jobs)
    if running:
        say(f"  {len(running)} jobs go on from an earlier call")
    for job in jobs:
        reason = None if job in running else claim(job.folder, job.facts)
        if reason:
            say(f"  {job.name} is done anew: {reason}")
    waiting = [job for job in jobs if job not in running and not job.done()]
    _say_what_is_there(jobs, len(jobs) - len(running) - len(waiting), say)
    try:
        while waiting or running:
            ready = [job for job in waiting if all(need.done() for need in job.needs)]
            if not ready and not running:
                raise _can_never_begin(waiting)
            for job in places.start(ready, running):
                waiting.remove(job)
                running.append(job)
            bar.show(jobs, running, waiting, places.count)
            time.sleep(places.poll_s)
            for job in [job for job in running if job.ended()]:
                running.remove(job)
                say(f"  {job.name:<44} {clock(job.seconds):>8}")
    finally:
        for job in running:
            job.process.terminate()
        for job in running:
            job.process.wait()  # a command saves its state when it is told to end
        bar.show(jobs, running, waiting, places.count, last=True)
        if whole is None:
            bar.close()
    bar.end_stage(jobs)


def _say_what_is_there(jobs: Sequence[Job], number: int, say: Callable[[str], None]) -> None:
    if number > NAMED:
        say(f"  {number} of {len(jobs)} are there already")
        return
    for job in jobs:
        if job.done():
            say(f"  {job.name:<44} is there already")


def _can_never_begin(waiting: Sequence[Job]) -> SystemExit:
    job = waiting[0]
    need = next(need for need in job.needs if not need.done())
    return SystemExit(
        f"{job.name} can never begin: it needs {need.name}, whose product {need.product} is not there, and nothing "
        "that runs makes it; give run_jobs that job too, and let no two jobs need each other"
    )
