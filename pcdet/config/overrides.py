"""``--set KEY.SUB value``: finds the place, gives the value the type of what stands there, and checks the whole."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml
from easydict import EasyDict

from pcdet.config.check import find_problems
from pcdet.config.load import is_complete
from pcdet.registry import NAME_KEY, ConfigError, nearest_name

ITEM_NAME_KEYS = (NAME_KEY, "class_name")  # by which an item of a list of mappings may be addressed
PROBE = "a_key_that_nothing_knows"


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
    problems, new = [], []
    for key, value in zip(cfg_list[::2], cfg_list[1::2], strict=True):
        try:
            new += _set(config, str(key), value)
        except ConfigError as error:
            problems += error.problems
    if is_complete(config):
        problems += [p for p in _problems_with(config, new) if p not in problems]
    else:
        problems += [entry.unknown for entry in new]
    if problems:
        raise ConfigError(problems)
    return config


class _NewKey(NamedTuple):
    """A key that was not there: where it was put, and what to say if nothing knows it."""

    path: str
    unknown: str


def _problems_with(config: EasyDict, new: Sequence[_NewKey]) -> list[str]:
    """What is wrong with the whole, new keys that nothing checks included.

    A node that nothing checks (a user's own module) swallows any key: there only existing ones may be set.
    """
    found = find_problems(config)
    return [entry.unknown for entry in _unchecked(config, new)] + found if new else found


def _unchecked(config: EasyDict, new: Sequence[_NewKey]) -> list[_NewKey]:
    """The new keys whose nodes nothing checks.

    The check must complain of a key that cannot be known, put beside each new one. A copy is probed: where one key is
    wrong, the check leaves out what follows from the node, so its other findings there are not those of ``config``.
    """
    probed = copy.deepcopy(config)
    for entry in new:
        node = _node_of(probed, entry.path)
        if isinstance(node, Mapping):  # a later pair may have replaced it
            node[PROBE] = None
    complaints = [problem for problem in find_problems(probed) if f"{PROBE}: " in problem]
    return [e for e in new if not any(c.startswith(f"{_beside(e.path)}{PROBE}: ") for c in complaints)]


def _node_of(config: EasyDict, path: str) -> Any:
    """What holds the key at a path; None where a part of the path is not there."""
    node, where = config, ""
    try:
        for part in _parts(path)[:-1]:
            node, where = _step(node, part, where)
    except ConfigError:
        return None
    return node


def _parts(key: str) -> list[str]:
    """``A.B[2].C`` -> A, B, 2, C."""
    return re.findall(r"[^.\[\]]+", key) or [key]


def _beside(path: str) -> str:
    """The path of a key's node, with what parts it from a key."""
    return path[: path.rfind(".") + 1]


def _set(config: EasyDict, key: str, value: Any) -> list[_NewKey]:
    """Sets one key, as written on the command line; returns it if it was not there."""
    *parents, last = _parts(key)
    node, path = config, ""
    for part in parents:
        if isinstance(node, Mapping) and part not in node and is_complete(config):
            _open_group(config, node, part, path)
        node, path = _step(node, part, path)
    if isinstance(node, list):
        index = _index(node, last, path)
        node[index] = _wrap(_cast(value, node[index], f"{path}[{index}]"))
        return []
    if not isinstance(node, Mapping):
        raise ConfigError(f"{path}: has no key {last!r}, it is {node!r}")
    path = f"{path}.{last}" if path else last
    unknown = f"{path}: --set found no such key; {nearest_name(last, node)}"
    new = [] if last in node else [_NewKey(path, unknown)]
    node[last] = _wrap(_cast(value, node.get(last), path))
    return new


def _open_group(config: EasyDict, node: EasyDict, part: str, path: str) -> None:
    """Puts an empty group, which leaves its keys at their defaults, where the file has none and one is known."""
    where = f"{path}.{part}" if path else part
    node[part] = EasyDict()
    told = [problem for problem in find_problems(config) if problem.startswith(f"{where}: ")]
    if _unchecked(config, [_NewKey(where, "")]) or any("there is no such" in p or "has no such" in p for p in told):
        node.pop(part)


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
