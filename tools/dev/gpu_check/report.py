"""The report of a check: one JSON file, which README.md here describes, and one page of Markdown made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import roofline
from summarise import all_rows, load, machines, table

from gpu_check import state
from gpu_check.state import Result

SCHEMA = 1
MOST_FAILED = 20  # tests that the page names; the JSON names all


def write(output: Path, head: dict, machine: dict, results: Sequence[Result], page: Path | None = None) -> None:
    """Writes ``report.json`` and ``report.md`` to a folder.

    Args:
        output: the folder.
        head: command, started, seconds, budget_s, rehearsal.
        machine: of ``read_machine``.
        results: one of each task.
        page: where the Markdown is wanted too.
    """
    content = {
        "schema": SCHEMA,
        "status": verdict(results),
        **head,
        "machine": machine,
        "tasks": [asdict(result) for result in results],
    }
    output.mkdir(parents=True, exist_ok=True)
    state.write_json(output / "report.json", content)
    measured = {result.task for result in results if result.stage == "benchmarks" and result.status == state.PASSED}
    benchmarks = {name: found for name, found in load(output / "tasks/benchmarks").items() if name in measured}
    text = markdown(content, benchmarks)
    for file in filter(None, (output / "report.md", page)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def verdict(results: Sequence[Result]) -> str:
    """``passed``, ``failed``, or ``unfinished`` where nothing failed and something was not run."""
    statuses = {result.status for result in results}
    if statuses & {state.FAILED, state.TIMED_OUT}:
        return "failed"
    return "unfinished" if state.NOT_RUN in statuses else "passed"


def markdown(content: dict, benchmarks: dict[str, dict]) -> str:
    """The page.

    Args:
        content: of the JSON file.
        benchmarks: script -> the JSON that it wrote, of those that ended well.
    """
    by_stage: dict[str, list[dict]] = {}
    for task in content["tasks"]:
        by_stage.setdefault(task["stage"], []).append(task)
    title = content["machine"]["card"] or f"device {content['machine']['device']}"
    parts = [f"# GPU check: {title}, {content['status']}", _head(content), _tasks(content["tasks"])]
    sections = (("tests", _tests), ("steps", _steps), ("profile", _profile))
    parts += [make(by_stage[stage]) for stage, make in sections if stage in by_stage]
    if "benchmarks" in by_stage:
        parts.append(_benchmarks(content, benchmarks))
    return "\n\n".join(filter(None, parts)) + "\n"


def _head(content: dict) -> str:
    machine = content["machine"]
    versions = ", ".join(f"{name} {version or 'none'}" for name, version in machine["versions"].items())
    card = "none"
    if machine["card"]:
        card = f"{machine['card']}, {machine['card_memory']}, compute capability {machine['compute_capability']}"
    rows = [
        ("command", f"`{content['command']}`"),
        ("started", f"{content['started']}, {content['seconds']:.0f} s of {content['budget_s']:g} s"),
        ("card", card),
        ("driver", machine["driver"] or "none"),
        ("processor", f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB"),
        ("versions", versions),
        ("not installed", ", ".join(machine["missing_packages"]) or "nothing of requirements.txt"),
        ("commit", f"{machine['commit'] or 'no repository'} (sources {machine['sources']})"),
    ]
    text = table(("", ""), rows)
    if content["rehearsal"]:
        text += "\n\n**A rehearsal: no figure here is of a GPU at full size.**"
    return text


def _tasks(tasks: list[dict]) -> str:
    rows = []
    for task in tasks:
        verdict = task["status"] if task["status"] == state.PASSED else f"**{task['status']}**"
        when = "earlier call" if task["from_earlier_call"] else ""
        reason = (task["reason"] or "").replace("|", "\\|")
        rows.append((f"{task['stage']}/{task['task']}", verdict, f"{task['seconds']:.0f}", when, reason))
    return "## What was run\n\n" + table(("task", "status", "s", "when", "why"), rows)


def _tests(tasks: list[dict]) -> str:
    text = []
    for details in (task["details"] for task in tasks if task["details"]):
        skipped = sum(details["skipped"].values())
        text.append(
            f"{details['passed']} passed, {len(details['failed'])} failed, {skipped} skipped, of {details['total']}."
        )
        text += [f"- failed: `{name}`" for name in details["failed"][:MOST_FAILED]]
        if len(details["failed"]) > MOST_FAILED:
            text.append(f"- and {len(details['failed']) - MOST_FAILED} more, which report.json names")
        text += [f"- skipped, {number}: {reason}" for reason, number in details["skipped"].items()]
    return "## Tests\n\n" + "\n".join(text) if text else ""


def _steps(tasks: list[dict]) -> str:
    parts = ["## A distilled training step, ms: median [least .. most]"]
    for task in tasks:
        details = task["details"]
        if "parts" not in details:
            continue
        memory = "" if details["peak_mb"] is None else f", {details['peak_mb']:.0f} MB at its peak"
        parts.append(
            f"### {task['task']}\n\n`{details['config']}`, {details['frames']} frames of {details['points']} points"
            f"{memory}; {details['steps']} steps."
        )
        rows = [(name, _spread(part)) for name, part in details["parts"].items()]
        rows += [("**whole step**", _spread(details["step"])), ("on the host, outside the step", "")]
        rows += [(name, _spread(part)) for name, part in details["host"].items()]
        parts.append(table(("part", "ms"), rows))
    return "\n\n".join(parts) if len(parts) > 1 else ""


def _spread(part: dict) -> str:
    return f"{part['median_ms']:.2f} [{part['least_ms']:.2f} .. {part['most_ms']:.2f}]"


def _profile(tasks: list[dict]) -> str:
    parts = ["## Where the time of the distilled steps goes"]
    for details in (task["details"] for task in tasks if task["details"]):
        for name, rows in details.get("kernels", {}).items():
            cells = [(f"`{row['name']}`", f"{row['ms']:.3f}", str(row["calls"]), f"{row['share']:.1%}") for row in rows]
            parts.append(f"### {name}\n\n" + table(("kernel", "ms a step", "calls", "share"), cells))
        if details.get("slowest_of_ours"):
            parts.append(f"The slowest of pcdet's own: `{details['slowest_of_ours']}`.")
        if details.get("counters"):
            parts.append(f"```text\n{details['counters']}\n```")
    return "\n\n".join(parts) if len(parts) > 1 else ""


def _benchmarks(content: dict, benchmarks: dict[str, dict]) -> str:
    if not benchmarks:
        return ""
    if content["rehearsal"]:
        return f"## Benchmarks\n\n{all_rows(benchmarks)}\n\n{machines(benchmarks)}"
    tasks = [task for task in content["tasks"] if task["stage"] == "benchmarks"]
    differ = [f"- results differ: {word}" for task in tasks for word in task["details"].get("differ", [])]
    parts = ["## Benchmarks beside the card's limits", roofline.text(benchmarks), "\n".join(differ)]
    return "\n\n".join(filter(None, parts))
