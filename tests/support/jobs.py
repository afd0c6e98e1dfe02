"""Jobs for tests of the pool: a line of Python that leaves a product."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

from pcdet.experiments.running.jobs import Job

STILL_RUNNING = SimpleNamespace(poll=lambda: None)


def python_job(
    folder: Path,
    name: str,
    code: str = "",
    *,
    needs: Sequence[Job] = (),
    work: float = 1.0,
    product: bool = True,
    facts: Mapping | None = None,
) -> Job:
    """A job that runs a line of Python and then, unless ``product`` is false, leaves its product."""
    path = folder / name / "product"
    if product:
        code = f"{code}\nopen({str(path)!r}, 'w').write('weights')"
    return Job(
        name=name, command=[sys.executable, "-c", code], cwd=folder, folder=folder / name, product=path,
        facts=facts or {}, work=work, needs=list(needs),
    )  # fmt: skip


class ToldJob(Job):
    """A job whose share and time are told."""

    def at(self, share: float, seconds: float) -> ToldJob:
        """Runs since so many seconds, with this share done."""
        self.told, self.process, self.began = share, STILL_RUNNING, time.monotonic() - seconds
        return self

    def share(self) -> float:
        return getattr(self, "told", 0.0)


def told_job(name: str, work: float, needs: Sequence[Job] = ()) -> ToldJob:
    """A job that has not begun and never runs."""
    return ToldJob(name=name, command=[], cwd=None, folder=Path(name), product=None, work=work, needs=list(needs))


def train_lines(*positions: tuple[int, int, int, int]) -> str:
    """Lines that a training logs at (epoch, epochs, iteration, iterations)."""
    return "\n".join(f"Train:    {e}/{n} (100%) [  {i}/{m} ( 25%)]  Loss: 1.0" for e, n, i, m in positions) + "\n"
