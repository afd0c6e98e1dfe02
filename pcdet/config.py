"""Loads OpenPCDet's YAML files: ``cfg``, ``cfg_from_yaml_file``, ``cfg_from_list``, ``log_config_to_file``.

A file becomes an EasyDict. A mapping that contains ``_BASE_CONFIG_: path`` starts from that file's content; the
other keys override it: mappings recurse, everything else, lists too, replaces. A base may have a base of its own. A
path is looked for beside the file that names it, in the working directory (OpenPCDet's rule), in the folders above the
file, and in this repository's ``tools/``.

Where OpenPCDet lets a second load pile onto the first, a load here replaces what an earlier one left in ``cfg``, apart
from the keys that programs set (``PROGRAM_KEYS``): loading the same file twice, or another in between, gives the same
result. A configuration with ``MODEL`` or ``DATA_CONFIG`` is checked as a whole at the end of loading and of ``--set``.
"""

from __future__ import annotations

import ast
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from easydict import EasyDict

from pcdet.config_checks import PROGRAM_KEYS, find_problems, require_sections, validate_config
from pcdet.config_yaml import read_yaml
from pcdet.registry import BASE_KEY, NAME_KEY, ConfigError, nearest_name
from pcdet.utils.places import CFGS_PARENT, ROOT

__all__ = [
    "ConfigError",
    "cfg",
    "cfg_from_list",
    "cfg_from_yaml_file",
    "find_config_file",
    "log_config_to_file",
    "merge_new_config",
    "require_sections",
    "validate_config",
]

log = logging.getLogger(__name__)

ITEM_NAME_KEYS = (NAME_KEY, "class_name")  # by which --set may address an item of a list of mappings

cfg = EasyDict(ROOT_DIR=ROOT, LOCAL_RANK=0)


# ------------------------------------------------------------------------------------------------------------- loading


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
    if _is_complete(config):
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


def find_config_file(name: str | os.PathLike, folder: str | os.PathLike | None = None) -> Path:
    """The file that ``name`` means: beside ``folder``, from the working directory, from above ``folder``, or shipped.

    Raises:
        FileNotFoundError: naming every place that was looked in.
    """
    places = [Path(), CFGS_PARENT]
    if folder is not None:
        folder = Path(folder).resolve()
        places = [folder, Path(), *folder.parents, CFGS_PARENT]
    candidates = [Path(name)] if Path(name).is_absolute() else [place / name for place in places]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    shown = [str(c) for c in candidates if c.parent.is_dir() or c is candidates[0]]
    raise FileNotFoundError(f"configuration file {str(name)!r} not found; looked for {', '.join(dict.fromkeys(shown))}")


def _is_complete(config: Mapping) -> bool:
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


# --------------------------------------------------------------------------------------------------------------- --set


def cfg_from_list(cfg_list: Sequence[Any], config: EasyDict) -> EasyDict:
    """Applies ``--set KEY.SUB value KEY.SUB value ...`` in place, checks the whole, and returns it.

    A key names a list item by number (``DATA_CONFIG.DATA_PROCESSOR[2].VOXEL_SIZE`` or ``.2.``) or by what it is called
    (``DATA_PROCESSOR.transform_points_to_voxels``, ``ANCHOR_GENERATOR_CONFIG.Car``). The value takes the type that the
    old one has: an int serves as a float, ``a,b`` and ``[a,b]`` are lists, ``a:1,b:2`` and ``{a: 1, b: 2}`` change
    entries of a mapping, ``None`` clears. A key that the file leaves at its default can be set if it exists at all.

    Raises:
        ConfigError: with everything that is wrong with the keys, the values and the result.
    """
    if len(cfg_list) % 2:
        raise ConfigError(f"--set takes pairs of key and value, got {len(cfg_list)} items: {list(cfg_list)}")
    problems = []
    for key, value in zip(cfg_list[::2], cfg_list[1::2], strict=True):
        try:
            _set(config, str(key), value)
        except ConfigError as error:
            problems += error.problems
    if _is_complete(config):
        problems += [p for p in find_problems(config) if p not in problems]
    if problems:
        raise ConfigError(problems)
    return config


def _set(config: EasyDict, key: str, value: Any) -> None:
    """Sets one key, as written on the command line."""
    *parents, last = re.findall(r"[^.\[\]]+", key) or [key]
    node, path = config, ""
    for part in parents:
        node, path = _step(node, part, path)
    if isinstance(node, list):
        index = _index(node, last, path)
        node[index] = _wrap(_cast(value, node[index], f"{path}[{index}]"))
    elif not isinstance(node, Mapping):
        raise ConfigError(f"{path}: has no key {last!r}, it is {node!r}")
    else:
        path = f"{path}.{last}" if path else last
        if last not in node and not _may_be_set(config, node, last):
            raise ConfigError(f"{path}: --set found no such key; {nearest_name(last, node)}")
        node[last] = _wrap(_cast(value, node.get(last), path))


def _step(node: Any, part: str, path: str) -> tuple[Any, str]:
    if isinstance(node, list):
        index = _index(node, part, path)
        return node[index], f"{path}[{index}]"
    where = f"{path}.{part}" if path else part
    if not isinstance(node, Mapping):
        raise ConfigError(f"{where}: --set found no such key; {path} is {node!r}")
    if part not in node:
        raise ConfigError(f"{where}: --set found no such key; {nearest_name(part, node)}")
    return node[part], where


def _index(items: list, part: str, path: str) -> int:
    """Which item of a list is meant: by number, or by NAME or class_name."""
    if re.fullmatch(r"-?\d+", part):
        if not -len(items) <= int(part) < len(items):
            raise ConfigError(f"{path}[{part}]: --set found no such item; the list has {len(items)}")
        return int(part) % len(items)
    names = [next((item[k] for k in ITEM_NAME_KEYS if k in item), None) for item in items if isinstance(item, Mapping)]
    found = [i for i, item in enumerate(items) if isinstance(item, Mapping) and part in _names(item)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{path}.{part}: stands for items {found} of the list; give the number")
    known = [n for n in names if isinstance(n, str)]
    raise ConfigError(f"{path}.{part}: --set found no such item; {nearest_name(part, known)}")


def _names(item: Mapping) -> list[Any]:
    return [item[k] for k in ITEM_NAME_KEYS if k in item]


def _may_be_set(config: EasyDict, node: EasyDict, key: str) -> bool:
    """Whether a key that is not there is one that the check of the whole would judge, so that a slip is seen.

    A node that nothing checks (a user's own module) swallows any key: there only existing ones may be set.
    """
    if not _is_complete(config):
        return False
    before = find_problems(config)
    probe = f"{key}_no_such_key"
    node[probe] = None
    judged = find_problems(config) != before
    node.pop(probe)
    return judged


def _cast(value: Any, old: Any, path: str) -> Any:
    """A value as written, in the type of the one it replaces."""
    new = _parse(value)
    if new is None or old is None:
        return new
    if isinstance(old, bool):
        return _cast_bool(new, value, path)
    if isinstance(old, (int, float)):
        if isinstance(new, bool) or not isinstance(new, (int, float)):
            raise ConfigError(f"{path}: expected a number like {old!r}, got {value!r}")
        return type(old)(new) if type(old)(new) == new else new
    if isinstance(old, str):
        return new if isinstance(new, (list, tuple, Mapping)) or _is_quoted(value) else str(value)
    if isinstance(old, (list, tuple)):
        return [_cast(v, _first(old), f"{path}[{i}]") for i, v in enumerate(_as_list(new))]
    if isinstance(old, Mapping):
        return _cast_mapping(new, value, old, path)
    return new


def _cast_bool(new: Any, value: Any, path: str) -> bool:
    words = {"yes": True, "no": False}
    if isinstance(new, bool):
        return new
    if str(new).lower() in words:
        return words[str(new).lower()]
    raise ConfigError(f"{path}: expected True or False, got {value!r}")


def _cast_mapping(new: Any, value: Any, old: Mapping, path: str) -> EasyDict:
    if isinstance(new, str) and all(":" in pair for pair in new.split(",")):
        new = dict(pair.split(":", 1) for pair in new.split(","))
    if not isinstance(new, Mapping):
        raise ConfigError(f"{path}: expected entries like {{a: 1, b: 2}} or a:1,b:2, got {value!r}")
    changed = {str(k).strip(): v for k, v in new.items()}
    unknown = [k for k in changed if k not in old]
    if unknown:
        raise ConfigError([f"{path}.{k}: --set found no such key; {nearest_name(k, old)}" for k in unknown])
    return EasyDict({**old, **{k: _cast(v, old[k], f"{path}.{k}") for k, v in changed.items()}})


def _parse(value: Any) -> Any:
    """What a word of the command line says: Python's or YAML's literal, ``[a, b]`` or ``{a: 1}``, else text."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    words = {"none": None, "null": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass  # not a literal: the word itself, or YAML
    if text[:1] in ("[", "{"):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return value
    return value


def _as_list(new: Any) -> list:
    if isinstance(new, (list, tuple)):
        return list(new)
    return [part.strip() for part in new.split(",")] if isinstance(new, str) else [new]


def _first(items: Sequence) -> Any:
    """The item whose type new ones take; a mapping or a mixture gives none to go by."""
    types = {float if type(i) is int and any(type(j) is float for j in items) else type(i) for i in items}
    return None if len(types) != 1 or isinstance(items[0], Mapping) else max(items, key=lambda i: type(i) is float)


def _is_quoted(value: Any) -> bool:
    return isinstance(value, str) and value.strip()[:1] in ("'", '"') and isinstance(_parse(value), str)


def _wrap(value: Any) -> Any:
    """Mappings as EasyDicts, also inside lists."""
    if isinstance(value, Mapping):
        return EasyDict(value)
    return [_wrap(v) for v in value] if isinstance(value, (list, tuple)) else value


# ------------------------------------------------------------------------------------------------------------- logging


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
