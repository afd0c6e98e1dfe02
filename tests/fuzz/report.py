"""The table of a run, its counts as lines of JSON, and the sum of many runs in Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from support import run_counts

from fuzz.campaign import Kept, Row, versions
from fuzz.outcome import KINDS
from pcdet.utils.tables import format_table, human_count, markdown_table

HEADER = ("target", "engine", "inputs", "ok", "refused", "wrong", "crashes", "hangs", "memory", "inputs/s")


def table(rows: Sequence[Row]) -> str:
    """All rows, and their sum."""
    lines = [
        (
            row.target,
            row.engine,
            row.inputs,
            *(row.counts[kind] for kind in KINDS),
            round(row.inputs / max(row.seconds, 1e-9)),
        )
        for row in rows
    ]
    sums = [sum(row.counts[kind] for row in rows) for kind in KINDS]
    return format_table(HEADER, [*lines, ("all", "", sum(sums), *sums, "")])


def findings(kept: Sequence[Kept]) -> str:
    """One line for each failing input."""
    return "\n".join(
        f"{entry.file}: {entry.finding.outcome.kind}: {entry.finding.outcome.reason[:300]}" for entry in kept
    )


def append(file: Path, rows: Sequence[Row], seed: str) -> None:
    """Adds a run's counts to a file."""
    entries = [
        {"target": row.target, "engine": row.engine, "inputs": row.inputs, **row.counts}
        | {"seconds": round(row.seconds, 2)}
        for row in rows
    ]
    run_counts.append(file, entries, seed=seed, versions=versions())


def summary(files: Sequence[Path]) -> str:
    """The counts of many runs in a Markdown table, summed by target.

    Raises:
        ValueError: a line of a file is no count; names the file and the line.
    """
    entries = list(run_counts.read(files, ("target", "engine"), ("inputs", *KINDS)))
    engines: dict[str, set] = defaultdict(set)
    for entry in entries:
        engines[entry["target"]].add(entry["engine"])
    rows = [
        (f"`{name}`", ", ".join(sorted(engines[name])), *map(human_count, counts.values()))
        for name, counts in run_counts.sums(entries, "target", ("inputs", *KINDS)).items()
    ]
    return markdown_table(("target", "engines", *HEADER[2:-1]), rows, text=2)
