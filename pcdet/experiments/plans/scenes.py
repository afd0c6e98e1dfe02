"""Simulated scenes for a quickstart or a plan: made by the commands that anybody would use, or found in place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from easydict import EasyDict

from pcdet.config import cfg_from_yaml_file
from pcdet.experiments.running.freshness import RECORD, claim
from pcdet.registry import ConfigError

DATASET_CFGS = Path("cfgs/dataset_configs")
HALF_CLAIMED = Path(RECORD).with_suffix(".partial").name  # what a kill leaves of the first file there


def prepare_scenes(data: Path, scenes: Mapping, tools: Path, say: Callable[[str], None] = print) -> None:
    """Writes a simulated folder and its info files, or finds them there; a folder of other scenes is put aside.

    Args:
        data: the folder.
        scenes: flags of ``python -m pcdet.datasets.simulated`` and their values, without the dashes; with ``format``
            nuscenes they need the ``release``.
        tools: folder of ``cfgs``.
        say: gets a line where other scenes were in the way.

    Raises:
        ConfigError: the folder holds something else than simulated scenes, such as a real data set.
        subprocess.CalledProcessError: one of the two commands failed.
    """
    # This takes seconds to import, and the reader has seen a line first.
    from pcdet.datasets.simulated.nuscenes.writer import VERSION as NUSCENES_VERSION
    from pcdet.datasets.simulated.output import SETTINGS_FILE
    from pcdet.datasets.simulated.writer import VERSION

    is_nuscenes = scenes.get("format") == "nuscenes"
    found = {path.name for path in data.iterdir()} - {HALF_CLAIMED} if data.is_dir() else set()
    if found and not found & {RECORD, SETTINGS_FILE}:
        raise ConfigError(
            f"{data} holds no simulated scenes, and scenes would be made in its place: name another folder for them, "
            "or, to use the data that lies there, a plan without DATA.SIMULATED"
        )
    if reason := claim(data, {**scenes, "version": NUSCENES_VERSION if is_nuscenes else VERSION}):
        say(f"  the scenes are made anew: {reason}")
    flags = [part for key, value in scenes.items() for part in (f"--{key}", str(value))]
    run, root = [sys.executable, "-m"], tools.parent
    subprocess.run([*run, "pcdet.datasets.simulated", "--out", str(data), *flags], cwd=root, check=True)
    infos = _nuscenes_infos(data, tools, scenes["release"]) if is_nuscenes else _kitti_infos(data, tools)
    if not infos.last.is_file():
        subprocess.run([*run, *infos.command], cwd=root, check=True)


class _Infos(NamedTuple):
    """How info files are made: the command after ``python -m``, and the file that it writes last."""

    command: list[str]
    last: Path


def _kitti_infos(data: Path, tools: Path) -> _Infos:
    cfg = tools / DATASET_CFGS / "simulated_kitti_dataset.yaml"
    command = ["pcdet.datasets.kitti.kitti_dataset", "create_kitti_infos", str(cfg), "--data_path", str(data)]
    return _Infos(command, data / "kitti_dbinfos_train.pkl")


def _nuscenes_infos(data: Path, tools: Path, release: str) -> _Infos:
    cfg = tools / DATASET_CFGS / "simulated_nuscenes_dataset.yaml"
    command = ["pcdet.datasets.nuscenes.nuscenes_dataset", "--func", "create_nuscenes_infos", "--cfg_file", str(cfg)]
    command += ["--data_path", str(data), "--version", release, "--no_database"]
    last = cfg_from_yaml_file(cfg, EasyDict()).INFO_PATH.test[0]
    return _Infos(command, data / release / last)
