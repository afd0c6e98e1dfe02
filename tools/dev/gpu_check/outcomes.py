"""Reads what a task has written: details for the report, and what is wrong with it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

RESULT = "result.json"
Outcome = tuple[dict, str | None]
SLOWEST = 5  # tests that are named


def of_exit(folder: Path, status: int) -> Outcome:
    """A command that says all by its exit status."""
    return {}, None if status == 0 else f"exit status {status}"


def of_json(folder: Path, status: int, name: str = RESULT) -> Outcome:
    """A command that writes its details to a file; its key ``problem``, if it has one, is what is wrong."""
    file = folder / name
    if status:
        return {}, f"exit status {status}"
    if not file.is_file():
        return {}, f"it wrote no {file.name}"
    try:
        details = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        return {}, f"{file.name} is cut off ({error})"
    return details, details.get("problem")


def of_benchmark(folder: Path, status: int) -> Outcome:
    """A benchmark's rows, few columns of them; its own file has all.

    A result that differs from another contender's is told and no failure: equal distances may be taken in any order,
    and the tests judge what is right.
    """
    details, problem = of_json(folder, status, f"{folder.name}.json")
    if problem:
        return details, problem
    columns = ("case", "contender", "ms", "min_ms", "max_ms", "peak_mb", "agreement")
    rows = [{name: row[name] for name in columns if name in row} for row in details["rows"]]
    words = [f"{row['case']}, {row['contender']}: {row['agreement']}" for row in rows]
    return {
        "rows": rows,
        "skipped": details["skipped"],
        "differ": [word for word in words if "DIFFERENT" in word],
    }, None


def read_tests(folder: Path) -> tuple[dict[str, dict], int]:
    """Test -> its last outcome, of all calls since the inputs changed; and how many tests there are."""
    file = folder / "tests.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.is_file() else []  # what follows the last line's end is cut off
    entries = [json.loads(line) for line in lines]
    last = {entry["test"]: entry for entry in entries if "test" in entry}
    return last, max([entry["total"] for entry in entries if "total" in entry], default=len(last))


def share_of_tests(folder: Path) -> float:
    """How many of the tests have an outcome."""
    last, total = read_tests(folder)
    return len(last) / total if total else 0.0


def of_tests(folder: Path, status: int) -> Outcome:
    """The outcomes of the tests.

    A record without a single passed test is a failure: tests that were all skipped have checked nothing.
    """
    last, total = read_tests(folder)
    counts = Counter(line["outcome"] for line in last.values())
    failed = sorted(name for name, line in last.items() if line["outcome"] == "failed")
    slowest = sorted(last.values(), key=lambda line: -line["seconds"])[:SLOWEST]
    details = {
        "passed": counts["passed"],
        "failed": failed,
        "skipped": dict(Counter(line["reason"] for line in last.values() if line["outcome"] == "skipped")),
        "total": total,
        "slowest": [{"test": line["test"], "seconds": line["seconds"]} for line in slowest],
    }
    if failed:
        return details, f"{len(failed)} tests failed, the first is {failed[0]}"
    if not counts["passed"]:
        return details, f"not one test passed ({counts['skipped']} skipped, exit status {status})"
    return details, None if status == 0 else f"pytest ended with exit status {status}"
