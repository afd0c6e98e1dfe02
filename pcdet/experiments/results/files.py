"""``results.json`` as a file: read, checked, written whole or not at all, and compared without its times."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pcdet.experiments.results.rules import broken_rules, what_json_cannot_hold
from pcdet.experiments.results.schema import SCHEMA, Results
from pcdet.registry import ConfigError, parse_node
from pcdet.utils.safe_files import replacing


class ResultsError(ValueError):
    """A file or a content that is no results.json; the message has a line for each thing that is wrong."""


def parse_results(content: Mapping[str, Any]) -> Results:
    """The content of a results.json, checked.

    Args:
        content: as JSON holds it.

    Raises:
        ResultsError: with a line for every key that is missing, unknown or of another type, or, where there is none,
            for every rule that the content breaks.
    """
    problems = what_json_cannot_hold(content)
    if not problems:
        try:
            results = parse_node(content, Results)
        except ConfigError as error:
            problems = error.problems
        else:
            problems = broken_rules(results)
    if problems:
        raise ResultsError("\n".join(problems))
    return results


def read_results(path: str | Path) -> Results:
    """Reads a results.json.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is no such file.
        ResultsError: it is no results.json of this version; names the file and everything that is wrong.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ResultsError(f"{path} is no JSON text ({error}); run the plan again, which writes it anew") from error
    try:
        return parse_results(content)
    except ResultsError as error:
        fix = f"run the plan again with this version, which writes schema {SCHEMA}"
        raise ResultsError(f"{path} cannot be read; {fix}:\n{error}") from error


def write_results(path: str | Path, results: Results | Mapping[str, Any]) -> None:
    """Writes a results.json, whole or not at all, its keys in the order of the dataclasses.

    Args:
        path: the file; its folder must exist.
        results: checked before anything is written.

    Raises:
        ResultsError: with everything that is wrong with the results.
        OSError: the file cannot be written; an old one stays.
    """
    checked = parse_results(asdict(results) if isinstance(results, Results) else results)
    text = json.dumps(results_content(checked), indent=1, allow_nan=False) + "\n"
    with replacing(path) as stream:
        stream.write(text.encode())


def results_content(results: Results) -> dict[str, Any]:
    """The results as JSON holds them: mappings and lists, keys in the order of the dataclasses.

    KITTI's metrics are not told: results without any are KITTI's.
    """
    content = json.loads(json.dumps(asdict(results)))
    return content if results.metrics is not None else {key: content[key] for key in content if key != "metrics"}


def without_times(content: Any) -> Any:
    """A copy without the keys that end in ``_s``, at any depth: what a plan that is run again must find again."""
    if isinstance(content, Mapping):
        return {key: without_times(value) for key, value in content.items() if not key.endswith("_s")}
    if isinstance(content, list):
        return [without_times(value) for value in content]
    return content
