"""The numbers of an audit as a file, for those who check or process them."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pcdet.audit.report import Audit
from pcdet.utils.safe_files import replacing


def to_plain(audit: Audit) -> dict[str, Any]:
    """An audit as texts, numbers, lists and dicts; of its scenes the names and how many points there were."""
    plain = {}
    for part in fields(audit):
        value = getattr(audit, part.name)
        if part.name == "scenes":
            plain["scenes"] = [{"frame": scene.frame, "points_in_file": scene.points_in_file} for scene in value]
        else:
            plain[part.name] = [asdict(row) for row in value] if isinstance(value, (list, tuple)) else value
    return plain


def write_json(path: str | Path, audit: Audit) -> None:
    """Writes an audit without the arrays of its scenes, whole or not at all.

    Args:
        path: the file; its folder is made if need be.
        audit: to write.

    Raises:
        OSError: the file cannot be written; an older one stays.
        ValueError: a number is not finite.
    """
    text = json.dumps(to_plain(audit), indent=1, allow_nan=False) + "\n"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        stream.write(text.encode())
