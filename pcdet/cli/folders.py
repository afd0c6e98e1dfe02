"""Where a run writes: the folder of an experiment, and those of other runs below it."""

from __future__ import annotations

import argparse
import datetime
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from pcdet.utils.folder_lock import LOCK_FILE

PLAIN = "plain"  # folder, in that of a distillation, of the same student's training without a teacher


def output_folder(args: argparse.Namespace, cfg: Mapping, without_kd: bool) -> Path:
    """``--output_dir``, else the experiment's folder; a control of a distillation must not write over its files."""
    if args.output_dir:
        return Path(args.output_dir)
    folder = Path(cfg["ROOT_DIR"]) / "output" / cfg["EXP_GROUP_PATH"] / cfg["TAG"] / args.extra_tag
    return folder / PLAIN if without_kd and cfg.get("KD") else folder


def experiment_group(path: Path) -> str:
    """The folders between ``cfgs`` and the file, as OpenPCDet gets them with ``tools`` as working directory."""
    parts = path.resolve().parent.parts
    if "cfgs" in parts:
        return "/".join(parts[len(parts) - parts[::-1].index("cfgs") :])
    return path.resolve().parent.name


def own_folders(folder: str | os.PathLike) -> Iterator[Path]:
    """A folder and those below it, but none with a lock of its own: another run writes there."""
    for path, below, _ in os.walk(folder):
        yield Path(path)
        below[:] = [name for name in below if not (Path(path) / name / LOCK_FILE).exists()]


def timestamp() -> str:
    """The time, as log files carry it."""
    return datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
