"""Simulated scenes for a quickstart or a plan: made by the commands that anybody would use, or found in place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from pcdet.experiments.running.freshness import RECORD, claim
from pcdet.registry import ConfigError

DATASET_CFG = Path("cfgs/dataset_configs/simulated_kitti_dataset.yaml")
LAST_FILE = "kitti_dbinfos_train.pkl"
HALF_CLAIMED = Path(RECORD).with_suffix(".partial").name  # what a kill leaves of the first file there


def prepare_scenes(data: Path, scenes: Mapping, tools: Path, say: Callable[[str], None] = print) -> None:
    """Writes a simulated folder and its info files, or finds them there; a folder of other scenes is put aside.

    Args:
        data: the folder.
        scenes: flags of ``python -m pcdet.datasets.simulated`` and their values, without the dashes.
        tools: folder of ``cfgs``.
        say: gets a line where other scenes were in the way.

    Raises:
        ConfigError: the folder holds something else than simulated scenes, such as a real data set.
        subprocess.CalledProcessError: one of the two commands failed.
    """
    # This takes seconds to import, and the reader has seen a line first.
    from pcdet.datasets.simulated.output import SETTINGS_FILE
    from pcdet.datasets.simulated.writer import VERSION

    found = {path.name for path in data.iterdir()} - {HALF_CLAIMED} if data.is_dir() else set()
    if found and not found & {RECORD, SETTINGS_FILE}:
        raise ConfigError(
            f"{data} holds no simulated scenes, and scenes would be made in its place: name another folder for them, "
            "or, to use the data that lies there, a plan without DATA.SIMULATED"
        )
    if reason := claim(data, {**scenes, "version": VERSION}):
        say(f"  the scenes are made anew: {reason}")
    flags = [part for key, value in scenes.items() for part in (f"--{key}", str(value))]
    run, root = [sys.executable, "-m"], tools.parent
    subprocess.run([*run, "pcdet.datasets.simulated", "--out", str(data), *flags], cwd=root, check=True)
    if not (data / LAST_FILE).is_file():
        prepare = [*run, "pcdet.datasets.kitti.kitti_dataset", "create_kitti_infos", str(tools / DATASET_CFG)]
        subprocess.run([*prepare, "--data_path", str(data)], cwd=root, check=True)
