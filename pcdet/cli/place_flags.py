"""Flags that say where jobs run: on cores, on GPUs, or on a Slurm cluster."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pcdet.experiments.running.places import core_places, gpu_places
from pcdet.experiments.running.pool import Places
from pcdet.experiments.running.slurm import FIELDS, SlurmPlaces
from pcdet.registry import ConfigError


def add_place_flags(parser: argparse.ArgumentParser, jobs: int = 2) -> None:
    """Adds ``--jobs``, ``--gpus``, ``--slurm``, of which one may be given, and ``--slurm_set``.

    Args:
        parser: of the command.
        jobs: default of ``--jobs``.
    """
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, default=jobs, metavar="N", help="jobs side by side, one thread each")
    where.add_argument("--gpus", metavar="IDS", help="one job a GPU, such as 0,1,2, as nvidia-smi numbers them")
    where.add_argument(
        "--slurm", nargs="?", const="", metavar="PARTITION",
        help="jobs as tasks of this partition of a Slurm cluster; its default partition if none is named",
    )  # fmt: skip
    parser.add_argument(
        "--slurm_set", nargs="+", default=[], metavar="KEY=VALUE",
        help=f"for --slurm: {', '.join(FIELDS)}, or any option of sbatch, such as account=lidar mem=32G exclusive",
    )  # fmt: skip


def places_from_flags(args: argparse.Namespace, folder: Path) -> Places:
    """The places that the flags name.

    Args:
        args: with the flags of :func:`add_place_flags`.
        folder: of the plan; Slurm's files go into ``slurm/`` below it.

    Raises:
        ConfigError: a flag's value that no place has, or ``--slurm_set`` without ``--slurm``.
    """
    if args.slurm_set and args.slurm is None:
        raise ConfigError("--slurm_set is for --slurm; give --slurm PARTITION too, or leave it out")
    if args.slurm is not None:
        return SlurmPlaces(folder, args.slurm or None, **_slurm_settings(args.slurm_set))
    try:
        return core_places(args.jobs) if args.gpus is None else gpu_places(args.gpus.split(","))
    except ValueError as error:
        raise ConfigError(f"{'--jobs' if args.gpus is None else '--gpus'}: {error}") from None


def _slurm_settings(pairs: Sequence[str]) -> dict:
    """``KEY=VALUE`` and ``KEY`` as arguments of SlurmPlaces: its own by name, the others as options of sbatch."""
    settings: dict = {"options": {}}
    problems = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        name = key.replace("-", "_")
        if name not in FIELDS:
            settings["options"][name] = value if equals else True
        elif value.isdecimal():
            settings[name] = int(value)
        else:
            problems.append(f"--slurm_set {name} must be a whole number, got {value!r}")
        if not name or (equals and not value):
            problems.append(f"--slurm_set takes KEY=VALUE or KEY, got {pair!r}")
    if problems:
        raise ConfigError(problems)
    return settings
