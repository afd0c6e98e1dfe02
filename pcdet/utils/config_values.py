"""Reads values out of a configuration that may be anything: what is missing or ill-typed is None; nothing is raised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def is_list(value: Any) -> bool:
    """Whether it is a list, however it was made."""
    return isinstance(value, (list, tuple))


def is_number(value: Any) -> bool:
    """Whether it is a finite number; the schemas refuse the others."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def numbers(value: Any, count: int | None = None) -> list[float] | None:
    """``value`` if it is a list of (``count``) numbers."""
    if not is_list(value) or not all(is_number(v) for v in value) or count not in (None, len(value)):
        return None
    return list(value)


def get(config: Any, path: str) -> Any:
    """What stands at a dotted path, or None."""
    for key in path.split("."):
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


def mappings(nodes: Any) -> list[tuple[int, Mapping]]:
    """(position, mapping) of the mappings in a list."""
    return [(i, node) for i, node in enumerate(nodes) if isinstance(node, Mapping)] if is_list(nodes) else []
