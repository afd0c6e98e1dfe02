"""The registry: every target by name, and what replays a regression file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fuzz import checkpoints, clouds, configs, infos, kitti, nuscenes, ops, pickles
from fuzz.outcome import judge
from fuzz.target import Target

READER_TARGETS = [
    *clouds.TARGETS,
    *kitti.TARGETS,
    *configs.TARGETS,
    *pickles.TARGETS,
    *infos.TARGETS,
    *nuscenes.TARGETS,
    *checkpoints.TARGETS,
]
OP_TARGETS = ops.TARGETS
TARGETS: dict[str, Target] = {target.name: target for target in (*READER_TARGETS, *OP_TARGETS)}


def target_of(file: Path) -> Target:
    """The target that a regression file, ``<target>-<hash>.bin``, belongs to; KeyError where there is none."""
    name = file.name.rpartition("-")[0]
    if name not in TARGETS:
        raise KeyError(f"{file} must be called <target>-<hash>.bin or .txt; targets are {', '.join(TARGETS)}")
    return TARGETS[name]


def replay(file: str | Path) -> None:
    """Gives a regression file to its target's reader, in this process.

    Raises:
        AssertionError: it still fails; says how.
        KeyError: the file's name begins with no target's.
    """
    file = Path(file)
    target = target_of(file)
    with tempfile.TemporaryDirectory() as folder:
        path = target.place(Path(folder), f"{file.stem}{target.suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.read_bytes())
        outcome = judge(target, path)
    assert not outcome.failed, f"{file.name}: {outcome.kind}: {outcome.reason}"
