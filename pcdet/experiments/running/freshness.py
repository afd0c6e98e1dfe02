"""Whether a folder holds the training that is asked for, or one with other settings."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECORD = "job.json"
MISSING = "nothing"


def digest(facts: Mapping) -> str:
    """A short text that differs where the facts differ; keys in any order."""
    return hashlib.sha256(_as_text(facts).encode()).hexdigest()[:16]


def first_difference(old: Any, new: Any, path: str = "") -> str | None:
    """Where two nested values differ first, as ``KEY.SUB[0]: old, now new``; None if they are equal."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        found = (first_difference(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(old, new, strict=True)))
        return next(filter(None, found), None)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            found = first_difference(old.get(key, MISSING), new.get(key, MISSING), f"{path}.{key}" if path else key)
            if found:
                return found
        return None
    return None if old == new else f"{path}: {_short(old)}, now {_short(new)}"


def claim(folder: Path, facts: Mapping) -> str | None:
    """Makes the folder this training's own, and says what was in the way.

    A folder of the same facts is left as it is: its training goes on, or is finished. A folder of other facts, or of
    none that are known, is renamed, so that nothing is lost.

    Args:
        folder: of the training; made if need be.
        facts: everything that the result depends on, as JSON can hold it.

    Returns:
        What differed and where the old folder is now; None if nothing was in the way.
    """
    record, facts = folder / RECORD, json.loads(_as_text(facts))
    message = None
    if folder.is_dir() and any(folder.iterdir()):
        old = json.loads(record.read_text()) if record.is_file() else None
        if old == facts:
            return None
        differs = "nothing says how it was made" if old is None else first_difference(old, facts)
        message = f"{differs}; the old one is kept as {_put_aside(folder)}"
    folder.mkdir(parents=True, exist_ok=True)
    scratch = record.with_suffix(".partial")
    scratch.write_text(json.dumps(facts, indent=2) + "\n")
    os.replace(scratch, record)
    return message


def _put_aside(folder: Path) -> Path:
    """Renames the folder to ``<name>-old<n>`` with the first n that is free."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}-old{number}")).exists():
        number += 1
    return folder.rename(aside)


def _as_text(facts: Mapping) -> str:
    return json.dumps(facts, sort_keys=True, default=str)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
