"""Where the files of a nuScenes release lie, said once."""

from __future__ import annotations

from pathlib import Path

TEST_RELEASE = "v1.0-test"  # the one whose frames have no labels


def release_folder(data_path: str | Path, version: str) -> Path:
    """The folder that holds ``samples/``, ``sweeps/`` and the tables' folder ``<version>/``.

    It is ``data_path/version``, as OpenPCDet wants it, or ``data_path`` itself, where nuScenes' archives were unpacked
    there and one set of clouds serves several releases.

    Args:
        data_path: DATA_CONFIG.DATA_PATH.
        version: DATA_CONFIG.VERSION.
    """
    nested, flat = Path(data_path) / version, Path(data_path)
    is_nested = (nested / "samples").is_dir() or (nested / version).is_dir()
    return flat if not is_nested and (flat / "samples").is_dir() else nested


def info_name(split: str, max_sweeps: int) -> str:
    """Name of the info file of a split: ``nuscenes_infos_10sweeps_train.pkl``."""
    return f"nuscenes_infos_{max_sweeps}sweeps_{split}.pkl"


def database_name(max_sweeps: int) -> str:
    """Name of the file that lists the database's objects: ``nuscenes_dbinfos_10sweeps_withvelo.pkl``."""
    return f"nuscenes_dbinfos_{max_sweeps}sweeps_withvelo.pkl"


def database_folder(max_sweeps: int) -> str:
    """Name of the folder with the points of the database's objects: ``gt_database_10sweeps_withvelo``."""
    return f"gt_database_{max_sweeps}sweeps_withvelo"
