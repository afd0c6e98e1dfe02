"""The table of a run, its counts as lines of JSON, and the sum of many runs in Markdown."""

from __future__ import annotations

import datetime
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from fuzz.campaign import Kept, Row, versions
from fuzz.outcome import KINDS
from pcdet.utils.tables import format_table, human_count

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
    """Adds a run's counts to a file, one JSON object a line."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        for row in rows:
            entry = {"target": row.target, "engine": row.engine, "inputs": row.inputs, **row.counts}
            entry |= {"seconds": round(row.seconds, 2), "seed": seed, "date": now, "versions": versions()}
            stream.write(json.dumps(entry) + "\n")


def summary(files: Sequence[Path]) -> str:
    """The counts of many runs in a Markdown table, summed by target.

    Raises:
        ValueError: a line of a file is no count; names the file and the line.
    """
    sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    engines: dict[str, set] = defaultdict(set)
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                entry = json.loads(line)
                engines[entry["target"]].add(entry["engine"])
                for key in ("inputs", "seconds", *KINDS):
                    sums[entry["target"]][key] += entry[key]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{file}, line {number}: no counts of a run ({error!r}); delete the line") from error
    header = ["target", "engines", "inputs", "accepted", "refused", "wrong", "crashes", "hangs", "memory"]
    lines = ["| " + " | ".join(header) + " |", "| --- | --- " + "| ---: " * 7 + "|"]
    for name, counts in sums.items():
        numbers = [human_count(counts["inputs"]), *(human_count(counts[kind]) for kind in KINDS)]
        lines.append(f"| `{name}` | {', '.join(sorted(engines[name]))} | " + " | ".join(numbers) + " |")
    return "\n".join(lines)
