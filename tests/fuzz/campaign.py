"""Spreads a time over targets and engines, and keeps what failed."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tqdm import tqdm

from fuzz.engines import ENGINES, SEEDED, engines_of, has_atheris, warm_up
from fuzz.outcome import FAILURES, OK
from fuzz.session import SANITIZED, Finding, Session, judge_alone
from fuzz.simpler import minimise
from fuzz.target import Target

MINIMISING = 8.0  # seconds for all findings of an engine
LEAST_GUIDED = 5.0  # seconds an engine; below that atheris would spend them on its preparations
PACKAGES = ("numpy", "torch", "hypothesis", "atheris")


@dataclass
class Row:
    """What one engine found out about one target.

    Attributes:
        target: its name.
        engine: its name.
        counts: inputs by kind of outcome.
        seconds: on the clock.
        seeded: whether the engine begins with files that the target must accept.
    """

    target: str
    engine: str
    counts: dict[str, int]
    seconds: float
    seeded: bool = False

    @property
    def inputs(self) -> int:
        """All that were tried."""
        return sum(self.counts.values())

    @property
    def failures(self) -> int:
        """Those that neither passed nor were refused."""
        return sum(self.counts[kind] for kind in FAILURES)

    @property
    def blank(self) -> str:
        """Why these counts show nothing of the target; empty where they do."""
        if not self.inputs:
            return "no input was tried"
        if self.seeded and not self.counts[OK]:
            return f"none of {self.inputs} inputs was accepted, not even the seeds"
        return ""


@dataclass
class Kept:
    """A failing input as it was saved."""

    target: str
    finding: Finding
    file: Path


def run(
    targets: Sequence[Target], *, seconds: float, seed: str, jobs: int, save: Path, atheris: bool | None = None
) -> tuple[list[Row], list[Kept]]:
    """Fuzzes targets side by side, each engine of each for the same time.

    Args:
        targets: what is fuzzed.
        seconds: for all together.
        seed: the same seed, the same inputs; how many of them are reached depends on the machine.
        jobs: children at a time.
        save: the folder of regression files.
        atheris: whether coverage guides the bytes, if there is time for it; None: where it can.

    Returns:
        A row for each target and engine, and the failing inputs that were saved.
    """
    count = sum(len(engines_of(target)) for target in targets)
    guided = has_atheris() if atheris is None else atheris
    guided = guided and seconds * jobs / max(count, 1) >= LEAST_GUIDED
    waiting = [(target, name) for target in targets for name in engines_of(target, atheris=guided)]
    if any(name == "hypothesis" for _, name in waiting):
        warm_up()
    share = seconds * jobs / max(len(waiting), 1)
    waiting.reverse()
    running: list[tuple[Session, Target, str]] = []
    rows: list[Row] = []
    kept: list[Kept] = []
    with _bar(len(waiting)) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    target, name = waiting.pop()
                    session = Session(target, ENGINES[name], seed, share)
                    session.start()
                    running.append((session, target, name))
                for entry in list(running):
                    session, target, name = entry
                    if session.poll():
                        continue
                    running.remove(entry)
                    seeded = name in SEEDED and target.seeds is not None
                    rows.append(Row(target.name, name, session.counts, session.used, seeded))
                    each = MINIMISING / max(len(session.findings), 1)
                    kept += [keep(target, finding, save, each) for finding in session.findings]
                    bar.update()
                bar.set_postfix_str(_figures(rows, [s for s, *_ in running]), refresh=False)
                time.sleep(0.02)
        finally:
            for session, *_ in running:
                session.abandon()
    return rows, kept


def _bar(total: int) -> tqdm:
    """A bar that a log bears, too."""
    return tqdm(
        total=total, unit="target", desc="fuzz", dynamic_ncols=True, mininterval=0.5 if sys.stderr.isatty() else 20
    )


def _figures(rows: list[Row], running: list[Session]) -> str:
    counts = [row.counts for row in rows] + [session.total() for session in running]
    inputs = sum(sum(c.values()) for c in counts)
    return f"{inputs} inputs, {sum(c[kind] for c in counts for kind in FAILURES)} failures"


def keep(target: Target, finding: Finding, save: Path, seconds: float = MINIMISING) -> Kept:
    """Makes a failing input smaller and saves it, with its reason as a line of the folder's README.md."""
    shape = finding.outcome.shape
    if finding.outcome.kind != "hang":  # each candidate would take as long
        data = minimise(finding.data, target.simpler, lambda data: judge_alone(target, data).shape == shape, seconds)
        finding = Finding(data, finding.outcome)
    folder = save / target.folder
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / target.regression_name(finding.data)
    if not file.exists():
        file.write_bytes(finding.data)
        reason = " ".join(finding.outcome.reason.split())[:300]
        with (folder / "README.md").open("a", encoding="utf-8") as stream:
            stream.write(f"- `{file.name}`: {finding.outcome.kind}: {reason}\n")
    return Kept(target.name, finding, file)


def versions() -> dict[str, str]:
    """Of Python and the packages that matter; ``none`` for one that is not installed."""
    found = {"python": platform.python_version(), "sanitized": "yes" if SANITIZED else "no"}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found
