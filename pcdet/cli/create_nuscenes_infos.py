"""Prepares a nuScenes release: ``python -m pcdet.datasets.nuscenes.nuscenes_dataset --func create_nuscenes_infos``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pcdet.cli.create_kitti_infos import load_dataset_cfg
from pcdet.datasets.dataset import resolve_data_path
from pcdet.datasets.errors import DataError
from pcdet.datasets.nuscenes import create_infos
from pcdet.datasets.nuscenes.create_infos import create_nuscenes_infos
from pcdet.datasets.nuscenes.splits import OF_VERSION
from pcdet.utils.common_utils import create_logger


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its arguments are those of the process if None. Returns the exit status, 0 if all went well."""
    options = _parser().parse_args(argv)
    logger = create_logger()
    if options.with_cam:
        logger.info("--with_cam: images are not read by this project, so the infos name only the front camera's")
    try:
        config = load_dataset_cfg(options.cfg_file)
        create_nuscenes_infos(
            resolve_data_path(_setting(options, config, "data_path")),
            _setting(options, config, "version"),
            _setting(options, config, "max_sweeps"),
            workers=options.workers,
            skip_missing=options.skip_missing,
            database=not options.no_database,
            logger=logger,
        )
    except DataError as error:
        logger.error(f"No info file was written: {len(error.problems)} problem(s)\n{error}")
        return 1
    return 0


def _setting(options: argparse.Namespace, config: Mapping, flag: str) -> Any:
    """A flag's value or, where it was not given, that of the key in the data set's file."""
    value = getattr(options, flag)
    if value is None and flag.upper() not in config:
        raise DataError(f"{options.cfg_file} has no {flag.upper()}; name a file of nuScenes' data, or give --{flag}")
    return config[flag.upper()] if value is None else value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pcdet.datasets.nuscenes.nuscenes_dataset", description=create_infos.__doc__
    )
    parser.add_argument("--func", choices=["create_nuscenes_infos"], default="create_nuscenes_infos")
    parser.add_argument(
        "--cfg_file", required=True, help="for instance tools/cfgs/dataset_configs/nuscenes_dataset.yaml"
    )
    parser.add_argument("--version", choices=list(OF_VERSION), help="VERSION of the file by default")
    parser.add_argument("--data_path", help="folder of the data; DATA_PATH of the file by default")
    parser.add_argument("--max_sweeps", type=int, help="clouds in a sample; MAX_SWEEPS of the file by default")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument(
        "--skip_missing",
        action="store_true",
        help="leave out samples whose clouds are not there, and splits without any",
    )
    parser.add_argument("--no_database", action="store_true", help="info files only, as for evaluation")
    parser.add_argument("--with_cam", action="store_true", help="OpenPCDet's; ignored, since no image is read")
    return parser
