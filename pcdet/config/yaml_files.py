"""Reads one YAML file in bounded time and memory, and refuses what would be misread."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pcdet.registry import ConfigError
from pcdet.utils.text_files import TextFileError, read_text

MAX_BYTES = 1 << 20  # of a file; the longest of the field has some 20 kB
MAX_NODES = 100_000  # keys and values, those of an alias counted wherever it stands
MAX_DEPTH = 100  # of mappings and lists inside each other
MAX_INT = 1 << 63
MERGE_TAG, TEXT_TAG = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:str"


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it is no UTF-8 text, no YAML or no mapping; a key is no text or stands there twice; an anchor
            contains itself; the content is too large. The message names the file and, where known, the line.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ConfigError(f"{path} has {size} bytes, a configuration file may have {MAX_BYTES}; is it the right file?")
    try:
        content = copy.deepcopy(_parse(read_text(path), path))
    except TextFileError as error:
        raise ConfigError(str(error)) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: mappings and lists are nested deeper than {MAX_DEPTH}") from error
    if content is None:
        raise ConfigError(f"{path} is empty; expected a mapping of sections")
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, got {type(content).__name__}")
    return content


@functools.lru_cache(maxsize=64)
def _parse(text: str, path: Path) -> Any:
    """The content of a text, none of whose aliases is expanded before the whole is known to be small.

    Kept for the next call, which may not change it: a plan of experiments lays a hundred files over the same few bases,
    and to parse those again would take most of the time.
    """
    loader = _Loader(text)
    loader.name = str(path)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _Graph(path).measure(root)
        return loader.construct_document(root)
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """safe_load that names the line of a value that cannot be made."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of a node."""
        try:
            value = super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError, ArithmeticError) as error:  # such as a date of month 13
            raise yaml.constructor.ConstructorError(
                None, None, f"{str(node.value)[:40]!r} cannot be read as {node.tag}: {error}", node.start_mark
            ) from error
        if type(value) is int and abs(value) >= MAX_INT:
            raise yaml.constructor.ConstructorError(
                None, None, f"{str(node.value)[:40]} is too large a number; write text in quotes", node.start_mark
            )
        return value


class _Size(NamedTuple):
    nodes: int
    depth: int


class _Graph:
    """Measures a composed file as it would be with every alias written out, visiting each node once."""

    def __init__(self, path: Path):
        self.path = path
        self.sizes: dict[int, _Size | None] = {}  # by identity; None while a node's own content is measured

    def measure(self, node: yaml.Node) -> _Size:
        """Size and depth of a node.

        Raises:
            ConfigError: it contains itself, is too large or deep, or has a key that is no text or stands there twice.
        """
        if id(node) in self.sizes:
            known = self.sizes[id(node)]
            if known is None:
                raise self._error(node, "the anchor contains itself")
            return known
        self.sizes[id(node)] = None
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
        parts = [self.measure(child) for child in _children(node)]
        size = _Size(1 + sum(part.nodes for part in parts), 1 + max((part.depth for part in parts), default=0))
        if size.nodes > MAX_NODES:
            raise self._error(node, f"with its aliases written out this has more than {MAX_NODES} keys and values")
        if size.depth > MAX_DEPTH:
            raise self._error(node, f"mappings and lists are nested deeper than {MAX_DEPTH}")
        self.sizes[id(node)] = size
        return size

    def _check_keys(self, node: yaml.MappingNode) -> None:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag == MERGE_TAG:
                continue
            if key.tag != TEXT_TAG or not isinstance(key, yaml.ScalarNode):
                shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                raise self._error(key, f"the key {shown} must be text; put it in quotes")
            if key.value in lines:
                raise self._error(key, f"the key {key.value!r} stands in line {lines[key.value]} already; remove one")
            lines[key.value] = key.start_mark.line + 1

    def _error(self, node: yaml.Node, text: str) -> ConfigError:
        return ConfigError(f"{self.path}, line {node.start_mark.line + 1}: {text}")


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value
