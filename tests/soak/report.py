"""What a soak prints and adds up: a progress line, a table, counts of many soaks in one file, a Markdown table."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support import run_counts

from pcdet.utils.tables import format_table, markdown_table
from soak.trial import Tally

COLUMNS = ("runs", "kills", "resumes", "wrong", "hangs", "seconds")
QUIET = 10  # seconds between two lines where the terminal cannot overwrite one


@dataclass
class Row:
    """A scenario's counts in this soak. ``wrong`` counts cases with a problem that is no hang."""

    tally: Tally = field(default_factory=Tally)
    wrong: int = 0
    seconds: float = 0.0

    def add(self, tally: Tally, seconds: float) -> None:
        """Counts a case."""
        self.tally.add(tally)
        self.wrong += len(tally.problems) > tally.hangs
        self.seconds += seconds

    def counts(self) -> dict[str, int | float]:
        """The columns of the table."""
        found = {name: getattr(self.tally, name) for name in ("runs", "kills", "resumes", "hangs")}
        return {name: {**found, "wrong": self.wrong, "seconds": round(self.seconds, 1)}[name] for name in COLUMNS}


class Progress:
    """One line that is overwritten; without a terminal, a line now and then."""

    def __init__(self, seconds: float):
        self.begun, self.seconds, self.last = time.monotonic(), seconds, -QUIET
        self.terminal = sys.stderr.isatty()

    def show(self, name: str, rows: Mapping[str, Row]) -> None:
        """Tells where the soak stands."""
        now = time.monotonic() - self.begun
        if not self.terminal and now - self.last < QUIET:
            return
        self.last = now
        total = {key: sum(row.counts()[key] for row in rows.values()) for key in COLUMNS}
        counts = ", ".join(f"{total[key]} {key}" for key in COLUMNS[:5])
        line = f"soak {now:.0f}/{self.seconds:.0f} s, {name}: {counts}"
        before, after = ("\r\033[K", "") if self.terminal else ("", "\n")
        print(f"{before}{line}", end=after, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the line."""
        if self.terminal:
            print(file=sys.stderr)


def table(rows: Mapping[str, Row]) -> str:
    """The scenarios and their counts, aligned."""
    return format_table(("scenario", *COLUMNS), [(name, *row.counts().values()) for name, row in rows.items()])


def append(file: Path, rows: Mapping[str, Row], seed: int) -> None:
    """Adds a soak's counts to a file."""
    run_counts.append(file, [{"scenario": name, **row.counts()} for name, row in rows.items()], seed=seed)


def summary(files: Sequence[Path]) -> str:
    """The counts of many soaks in a Markdown table, summed by scenario.

    Raises:
        ValueError: a line of a file is no count; names the file and the line.
    """
    found = run_counts.sums(run_counts.read(files, ("scenario",), COLUMNS), "scenario", COLUMNS)
    rows = [(name, *(f"{value:,.0f}" for value in counts.values())) for name, counts in found.items()]
    return markdown_table(("scenario", *COLUMNS), rows)
