"""What a soak prints and adds up: a progress line, a table, counts of many soaks in one file, a Markdown table."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pcdet.utils.tables import format_table
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


def append_counts(file: Path, rows: Mapping[str, Row], seed: int) -> None:
    """Adds one JSON line a scenario to a file."""
    with file.open("a") as stream:
        for name, row in rows.items():
            stream.write(json.dumps({"scenario": name, "seed": seed, **row.counts()}) + "\n")


def summary(file: Path) -> str:
    """A Markdown table of all counts in a file.

    Raises:
        ValueError: a line is not one that :func:`append_counts` writes.
    """
    sums: dict[str, dict[str, float]] = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            entry = json.loads(line)
            counts = sums.setdefault(entry["scenario"], dict.fromkeys(COLUMNS, 0))
            for key in COLUMNS:
                counts[key] += entry[key]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}, line {number}: not a line of `make soak JSON=...`: {error!r}") from error
    lines = ["| scenario | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    lines += [f"| {name} | " + " | ".join(f"{value:,.0f}" for value in c.values()) + " |" for name, c in sums.items()]
    return "\n".join(lines)
