"""Prepares a KITTI folder: ``python -m pcdet.datasets.kitti.kitti_dataset create_kitti_infos CFG``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from easydict import EasyDict

from pcdet.config import ConfigError, cfg_from_yaml_file
from pcdet.datasets.dataset import resolve_data_path
from pcdet.datasets.errors import DataError
from pcdet.datasets.kitti import kitti_infos
from pcdet.datasets.kitti.kitti_infos import CLASS_NAMES, create_kitti_infos
from pcdet.utils.common_utils import create_logger
from pcdet.utils.places import ROOT


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its arguments are those of the process if None. Returns the exit status, 0 if all went well."""
    parser = argparse.ArgumentParser(
        prog="python -m pcdet.datasets.kitti.kitti_dataset", description=kitti_infos.__doc__
    )
    parser.add_argument("command", choices=["create_kitti_infos"])
    parser.add_argument("cfg_file", help="for instance tools/cfgs/dataset_configs/kitti_dataset.yaml")
    parser.add_argument("--data_path", help="folder of the data; DATA_PATH of the file by default")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    options = parser.parse_args(argv)
    logger = create_logger()
    try:
        config = load_dataset_cfg(options.cfg_file)
        root = resolve_data_path(options.data_path or config.get("DATA_PATH", ROOT / "data" / "kitti"))
        create_kitti_infos(config, CLASS_NAMES, root, workers=options.workers, logger=logger)
    except DataError as error:
        logger.error(f"No info file was written: {len(error.problems)} problem(s)\n{error}")
        return 1
    return 0


def load_dataset_cfg(path: str | Path) -> dict:
    """A data set's YAML file, with its bases, as the tools read it; of a model file, its DATA_CONFIG.

    Raises:
        DataError: there is no such file, or with everything that is wrong with it.
    """
    try:
        config = cfg_from_yaml_file(path, EasyDict())
    except FileNotFoundError as error:
        raise DataError(str(error)) from error
    except ConfigError as error:
        raise DataError([f"{path}: {problem}" for problem in error.problems]) from error
    return config.get("DATA_CONFIG", config)
