"""Cases that once failed, as JSON files: they are kept by a soak and replayed by a test."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

KEPT = Path(__file__).resolve().parents[1] / "regressions" / "soak"


def keep(case: dict, problems: list[str], folder: Path = KEPT) -> Path:
    """Writes a case, with what was wrong in it, under a name that follows from the case."""
    digest = hashlib.sha256(json.dumps(case, sort_keys=True).encode()).hexdigest()[:8]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{case['scenario'].replace(' ', '_')}-{digest}.json"
    path.write_text(json.dumps({**case, "problems": problems}, indent=1) + "\n")
    return path


def kept(folder: Path = KEPT) -> list[Path]:
    """The files of all kept cases."""
    return sorted(folder.glob("*.json"))


def load(path: Path) -> dict:
    """A kept case, without what was wrong in it then."""
    case = json.loads(path.read_text())
    case.pop("problems", None)
    return case
