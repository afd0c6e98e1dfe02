"""Places of this machine: one process on each, on cores or on GPUs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pcdet.experiments.running.jobs import Job


@dataclass
class LocalPlaces:
    """Places of this machine.

    Attributes:
        environments: of each place, the variables that a job gets there.
        poll_s: seconds between two looks at the jobs.
    """

    environments: Sequence[Mapping[str, str]]
    poll_s: float = 0.5
    _held: dict[int, Job] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many jobs run at once."""
        return len(self.environments)

    def adopt(self, jobs: Sequence[Job]) -> list[Job]:
        """None: a process whose caller was killed is found by the lock that it holds, not here."""
        return []

    def start(self, ready: Sequence[Job], running: Sequence[Job]) -> list[Job]:
        """Starts a ready job on each free place; returns those that were started."""
        held = {place for place, job in self._held.items() if job.process.poll() is None}
        free = [place for place in range(self.count) if place not in held]
        started = list(zip(free, ready, strict=False))
        for place, job in started:
            job.start(self.environments[place])
            self._held[place] = job
        return [job for _, job in started]


def core_places(processes: int, threads: int = 1) -> LocalPlaces:
    """Processes side by side on this machine's cores.

    Args:
        processes: how many.
        threads: of each. More processes of one thread do more work than fewer of several.

    Raises:
        ValueError: a number below 1.
    """
    if processes < 1 or threads < 1:
        raise ValueError(f"processes and their threads must be at least 1, got {processes} and {threads}")
    return LocalPlaces([{"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}] * processes)


def gpu_places(ids: Sequence[str]) -> LocalPlaces:
    """One job a GPU; each sees its own GPU alone, and a share of the cores.

    Args:
        ids: of the GPUs, as ``nvidia-smi`` lists them: numbers or UUIDs.

    Raises:
        ValueError: no GPU, or one named twice.
    """
    if not ids or not all(ids) or len(set(ids)) != len(ids):
        raise ValueError(f"GPUs must be named, each once, such as 0,1,2; got {','.join(ids)!r}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = str(max(1, cores // len(ids)))
    return LocalPlaces([{"CUDA_VISIBLE_DEVICES": name, "OMP_NUM_THREADS": threads} for name in ids])
