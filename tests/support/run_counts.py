"""Counts of many runs in one file, a JSON object a line, and their sums; for fuzz and soak."""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path


def add_flags(parser: argparse.ArgumentParser) -> None:
    """``--json`` and ``--summary``, the same for both commands."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the counts to this file, one JSON object a line")
    parser.add_argument(
        "--summary", nargs="+", type=Path, metavar="FILE", help="print the sum of files of --json in Markdown and end"
    )


def append(file: Path, entries: Iterable[Mapping], **run: object) -> None:
    """Adds the entries of a run to a file, each with the date and with what holds of the whole ``run``."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps({**entry, "date": now, **run}) + "\n" for entry in entries)


def read(files: Sequence[Path], text: Sequence[str], numbers: Sequence[str]) -> Iterator[dict]:
    """Yields the entries of files.

    Args:
        files: written by :func:`append`.
        text: keys that each entry must have, of text.
        numbers: keys that each entry must have, of numbers.

    Raises:
        OSError: a file cannot be read.
        ValueError: a line is no such entry; names the file and the line.
    """
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                entry = json.loads(line)
                good = all(isinstance(entry[key], str) for key in text)
                good = good and all(isinstance(entry[key], (int, float)) for key in numbers)
            except (ValueError, KeyError, TypeError):
                good = False
            if not good:
                keys = ", ".join((*text, *numbers))
                raise ValueError(f"{file}, line {number}: not the counts of a run ({keys}); delete it")
            yield entry


def sums(entries: Iterable[Mapping], by: str, numbers: Sequence[str]) -> dict[str, dict[str, float]]:
    """Adds up the numbers of entries that have the same name under the key ``by``."""
    found: dict[str, dict[str, float]] = {}
    for entry in entries:
        row = found.setdefault(entry[by], dict.fromkeys(numbers, 0))
        for key in numbers:
            row[key] += entry[key]
    return found
