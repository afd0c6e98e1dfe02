"""Loads YAML files with their bases, and writes a configuration to a log.

A file becomes an EasyDict. A mapping that contains ``_BASE_CONFIG_: path`` starts from that file's content; the
other keys override it: mappings recurse, everything else, lists too, replaces. A base may have a base of its own. A
path is looked for beside the file that names it, in the working directory (OpenPCDet's rule), in the folders above the
file, and in this repository's ``tools/``.

Where OpenPCDet lets a second load pile onto the first, a load here replaces what an earlier one left in ``cfg``, apart
from the keys that programs set (``PROGRAM_KEYS``): loading the same file twice, or another in between, gives the same
result. A configuration with ``MODEL`` or ``DATA_CONFIG`` is checked as a whole at the end of loading and of ``--set``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from easydict import EasyDict

from pcdet.config.check import find_problems, validate_config
from pcdet.config.files import find_config_file
from pcdet.config.schema import PROGRAM_KEYS
from pcdet.config.yaml_files import read_yaml
from pcdet.registry import BASE_KEY, ConfigError
from pcdet.utils.places import ROOT

log = logging.getLogger("pcdet.config")

cfg = EasyDict(ROOT_DIR=ROOT, LOCAL_RANK=0)


def cfg_from_yaml_file(cfg_file: str | os.PathLike, config: EasyDict) -> EasyDict:
    """Loads a file into ``config`` and returns it, checked.

    Args:
        cfg_file: a YAML file; a relative path counts from the working directory, else from the repository's ``tools/``.
        config: filled in place. What an earlier load left in it is dropped; ``ROOT_DIR``, ``LOCAL_RANK``, ``TAG`` and
            ``EXP_GROUP_PATH`` stay.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: with everything that is wrong with the file.
    """
    path = find_config_file(cfg_file)
    loaded = _load(path, ())
    for key in [key for key in config if key not in PROGRAM_KEYS]:
        config.pop(key)  # not del: EasyDict would keep the attribute
    config.update(loaded)
    if is_complete(config):
        validate_config(config)
    elif "DATASET" in config:  # a file of dataset_configs/
        dataset = {key: value for key, value in config.items() if key not in PROGRAM_KEYS}
        problems = [p.removeprefix("DATA_CONFIG.") for p in find_problems({"DATA_CONFIG": dataset})]
        if problems:
            raise ConfigError(problems)
    return config


def merge_new_config(config: EasyDict, new_config: Mapping, folder: str | os.PathLike | None = None) -> EasyDict:
    """Lays ``new_config``, with its bases, over ``config`` in place, and returns it.

    Args:
        config: what is there already.
        new_config: overrides; a ``_BASE_CONFIG_`` in it, at any level, is laid under the node that names it.
        folder: where relative base paths are looked for first; the working directory if None.
    """
    return _merge(config, new_config, Path(folder or "."), (), "")


def is_complete(config: Mapping) -> bool:
    """Whether it is a model's whole configuration, which can be checked as one."""
    return "MODEL" in config or "DATA_CONFIG" in config


def _load(path: Path, chain: tuple[Path, ...]) -> EasyDict:
    """A file with its bases; ``chain`` are the files on the way to it."""
    path = path.resolve()
    if path in chain:
        raise ConfigError(f"{BASE_KEY}: {' -> '.join(str(p) for p in (*chain, path))} is a circle")
    return _merge(EasyDict(), read_yaml(path), path.parent, (*chain, path), "")


def _merge(config: EasyDict, new_config: Mapping, folder: Path, chain: tuple[Path, ...], path: str) -> EasyDict:
    if BASE_KEY in new_config:
        where = f"{path}{BASE_KEY}"
        base = new_config[BASE_KEY]
        if not isinstance(base, str):
            raise ConfigError(f"{where}: expected the path of a file, got {base!r}")
        try:
            config.update(_load(find_config_file(base, folder), chain))
        except FileNotFoundError as error:
            raise ConfigError(f"{where}: {error}") from error
    for key, value in new_config.items():
        if isinstance(value, Mapping):
            kept = config.get(key)
            config[key] = _merge(
                kept if isinstance(kept, Mapping) else EasyDict(), value, folder, chain, f"{path}{key}."
            )
        else:
            config[key] = value
    return config


def log_config_to_file(config: Mapping, pre: str = "cfg", logger: logging.Logger | None = None) -> None:
    """Logs every entry as ``cfg.A.B: value``, each mapping under a line with its name."""
    for line in _lines(config, pre):
        (logger or log).info(line)


def _lines(config: Mapping, pre: str) -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield f"----------- {key} -----------"
            yield from _lines(value, f"{pre}.{key}")
        else:
            yield f"{pre}.{key}: {value}"
