"""What tests of configurations share: the shipped files, loading, and problems by their paths."""

from __future__ import annotations

from pathlib import Path

import pytest
from easydict import EasyDict

from pcdet.config import (
    cfg_from_yaml_file,
    validate_config,
)
from pcdet.registry import ConfigError

REPO_ROOT = Path(__file__).resolve().parents[2]
CFGS = REPO_ROOT / "tools" / "cfgs"
FILES = sorted(str(p.relative_to(CFGS)) for p in CFGS.rglob("*.yaml"))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def load(path: Path | str) -> EasyDict:
    return cfg_from_yaml_file(path, EasyDict())


def problems_of(config) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate_config(config)
    return caught.value.problems


def node_at(config, path: str):
    """Container and last key of a path such as ``A.B[2].C``."""
    *parents, last = [int(p) if p.isdigit() else p for p in path.replace("[", ".").replace("]", "").split(".")]
    for part in parents:
        config = config[part]
    return config, last


def paths_with(problems: list[str], path: str) -> list[str]:
    lowered = path.lower()
    return [p for p in problems if p.split(": ")[0].lower().startswith(lowered)]
