"""YAML values as typed values: what an annotation takes, and sentences that say what is wrong with a value.

Knows no registry: an ``Annotated`` type's metadata may have a method ``complaints(value, path)``, and a registry does.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NamedTuple

from pcdet.registry_signatures import MISSING, injected_into, parameters_of

NAME_KEY = "NAME"
BASE_KEY = "_BASE_CONFIG_"  # OpenPCDet leaves it in the loaded configuration, at any level


class ConfigError(ValueError):
    """Everything that is wrong with a configuration, found before anything is built.

    Attributes:
        problems: one sentence each, beginning with the path of the key.
    """

    def __init__(self, problems: str | Iterable[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self):
        return type(self), (self.problems,)


@dataclasses.dataclass(frozen=True)
class AtLeast:
    """Metadata of a number's type: the least value that it may have."""

    least: float

    def complaints(self, value: Any, path: str) -> list[str]:
        """A sentence if the number is smaller."""
        if not isinstance(value, (int, float)) or value >= self.least:
            return []
        rule = "must not be negative" if self.least == 0 else f"must be at least {self.least}"
        return [f"{path}: {rule}, got {value!r}"]


@dataclasses.dataclass(frozen=True)
class Above:
    """Metadata of a number's type: it must be larger than this."""

    bound: float

    def complaints(self, value: Any, path: str) -> list[str]:
        """A sentence if the number is not larger."""
        if not isinstance(value, (int, float)) or value > self.bound:
            return []
        return [f"{path}: must be above {self.bound}, got {value!r}"]


Count = Annotated[int, AtLeast(1)]  # of channels, cells, boxes
CountOrZero = Annotated[int, AtLeast(0)]  # of layers that may be absent
Positive = Annotated[float, Above(0)]


def parse_node(node: Mapping | None, schema: type, *, path: str = "") -> Any:
    """An instance of ``schema``, a keyword-only dataclass, filled from ``node``; keys in any case.

    Nested dataclasses, lists and dictionaries of them are filled the same way; an absent or null node is an empty one.
    A ``ValueError`` from a dataclass's ``__post_init__`` becomes a problem with its path.

    Raises:
        ConfigError: with every wrong, missing or ill-typed key.
    """
    value, problems = _parse_dataclass({} if node is None else node, schema, path)
    if problems:
        raise ConfigError(problems)
    return value


def known_keys(cls: type) -> dict[str, str]:
    """YAML key -> type, as text, of a component or a dataclass, in the order of its signature."""
    injected = injected_into(cls)
    parameters = parameters_of(cls, injected)
    return {name.rstrip("_").upper(): type_name(p.annotation) for name, p in parameters.items() if name not in injected}


# ----------------------------------------------------------------------------------------------------------- binding


class Bound(NamedTuple):
    """A node's keys as arguments of a constructor."""

    values: dict[str, Any]  # by parameter name
    unknown: list[str]  # complaints about keys that have no business there
    wrong: list[str]  # complaints about values, and missing keys

    @property
    def problems(self) -> list[str]:
        """All complaints."""
        return self.unknown + self.wrong


def bind(
    node: Mapping, cls: type, path: str, injected: Iterable[str] = (), ignored: Iterable[str] = (BASE_KEY,)
) -> Bound:
    """A node's keys as arguments of a class, and what is wrong with them.

    Args:
        node: keys in any case.
        cls: a dataclass, or a class whose constructor is annotated.
        path: where the node stands in the file.
        injected: parameters that code supplies, beside the class's own.
        ignored: keys that are no arguments.
    """
    injected = injected_into(cls, injected)
    parameters = parameters_of(cls, injected)
    by_key = {name.rstrip("_"): name for name in parameters if name not in injected}
    values, unknown, wrong = {}, [], []
    for key, value in node.items():
        name = by_key.get(str(key).lower())
        where = join_path(path, key)
        if name is None:
            if key not in ignored:
                unknown.append(f"{where}: {_unknown(str(key), cls, parameters, by_key)}")
        elif name in values:
            unknown.append(f"{where}: given twice, in different spellings")
        else:
            values[name], found = convert(value, parameters[name].annotation, where)
            wrong += found
    in_lower_case = bool(node) and all(str(key).islower() for key in node)
    for key, name in by_key.items():
        if parameters[name].default is MISSING and name not in values:
            wanted, key = type_name(parameters[name].annotation), key if in_lower_case else key.upper()
            wrong.append(f"{join_path(path, key)}: missing; {cls.__name__} needs it ({wanted})")
    return Bound(values, unknown, wrong)


def _unknown(key: str, cls: type, parameters: Mapping, by_key: Mapping) -> str:
    if key.lower() in parameters:
        return f"{cls.__name__} gets this from the code; remove it from the file"
    known = [k if key.islower() else k.upper() for k in by_key if k != NAME_KEY.lower()]
    return f"{cls.__name__} has no such key; {nearest_name(key, known)}"


def _parse_dataclass(node: Any, schema: type, path: str) -> tuple[Any, list[str]]:
    if isinstance(node, schema):
        return node, []
    if not isinstance(node, Mapping):
        return None, [f"{at_path(path)}expected a mapping with the keys of {schema.__name__}, got {shown(node)}"]
    bound = bind(node, schema, path)
    if bound.wrong:
        return None, bound.problems
    try:
        return schema(**bound.values), bound.problems
    except ConfigError as error:
        return None, bound.problems + [place(path, p) for p in error.problems]
    except ValueError as error:
        return None, [*bound.problems, place(path, str(error))]


# ------------------------------------------------------------------------------------------------------------- types


def convert(value: Any, annotation: Any, path: str) -> tuple[Any, list[str]]:
    """``value`` as ``annotation`` wants it, and what is wrong with it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _convert_annotated(value, arguments, path)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, annotation, arguments, path)
    if origin is typing.Literal:
        if any(value == a and type(value) is type(a) for a in arguments):
            return value, []
        return value, [f"{path}: must be one of {', '.join(map(repr, arguments))}; got {shown(value)}"]
    container = origin or annotation
    if container in (list, tuple, collections.abc.Sequence, collections.abc.Iterable):
        return _convert_sequence(value, annotation, container, arguments, path)
    if container in (dict, collections.abc.Mapping, collections.abc.MutableMapping):
        return _convert_mapping(value, annotation, arguments, path)
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return _parse_dataclass(value, annotation, path)
    return _convert_scalar(value, annotation, path)


def _convert_scalar(value: Any, annotation: Any, path: str) -> tuple[Any, list[str]]:
    if annotation in (None, type(None)):
        return value, [] if value is None else [_mismatch(value, annotation, path)]
    if annotation not in (bool, int, float, str):
        return value, []
    if annotation is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value), [] if math.isfinite(value) else [f"{path}: must be finite, got {value}"]
    if isinstance(value, annotation) and (annotation is bool or not isinstance(value, bool)):
        return value, []
    return value, [_mismatch(value, annotation, path)]


def _convert_annotated(value: Any, arguments: tuple, path: str) -> tuple[Any, list[str]]:
    """The value as the type in front wants it; then what the metadata complain about."""
    value, problems = convert(value, arguments[0], path)
    rules = [rule for rule in arguments[1:] if hasattr(rule, "complaints")]
    return value, problems or [sentence for rule in rules for sentence in rule.complaints(value, path)]


def _convert_union(value: Any, annotation: Any, arguments: tuple, path: str) -> tuple[Any, list[str]]:
    """The first member that fits; else the complaints of the one the value was most likely meant for."""
    exact = [a for a in arguments if isinstance(a, type) and type(value) is a]  # so that int | float keeps an int
    complaints = []
    for member in (*exact, *arguments):
        converted, problems = convert(value, member, path)
        if not problems:
            return converted, []
        structured = isinstance(value, Mapping) or (isinstance(value, (list, tuple)) and _is_sequence(member))
        ruled = typing.get_origin(member) is typing.Annotated
        if (structured or ruled) and not any(p.startswith(f"{path}: expected") for p in problems):
            complaints = complaints or problems
    return value, complaints or [_mismatch(value, annotation, path)]


def _convert_sequence(value: Any, annotation: Any, container: Any, arguments: tuple, path: str) -> tuple[Any, list]:
    if not isinstance(value, (list, tuple)):
        return value, [_mismatch(value, annotation, path)]
    if container is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            return value, [f"{path}: expected {len(arguments)} items ({type_name(annotation)}), got {shown(value)}"]
        members = arguments
    else:
        members = (arguments[0] if arguments else Any,) * len(value)
    pairs = [convert(v, member, f"{path}[{i}]") for i, (v, member) in enumerate(zip(value, members, strict=True))]
    converted = [v for v, _ in pairs]
    problems = [p for _, found in pairs for p in found]
    return (tuple(converted) if container is tuple else converted), problems


def _convert_mapping(value: Any, annotation: Any, arguments: tuple, path: str) -> tuple[Any, list[str]]:
    if not isinstance(value, Mapping):
        return value, [_mismatch(value, annotation, path)]
    if not arguments:
        return value, []
    converted, problems = {}, []
    for key, item in value.items():
        if key != BASE_KEY:
            new_key, wrong_key = convert(key, arguments[0], join_path(path, key))
            converted[new_key], wrong_value = convert(item, arguments[1], join_path(path, key))
            problems += wrong_key + wrong_value
    return converted, problems


def _is_sequence(annotation: Any) -> bool:
    return (typing.get_origin(annotation) or annotation) in (list, tuple, collections.abc.Sequence)


# ---------------------------------------------------------------------------------------------------------- sentences


def _mismatch(value: Any, annotation: Any, path: str) -> str:
    text = f"{path}: expected {type_name(annotation)}, got {shown(value)}"
    number = _number_in(value, annotation) if isinstance(value, str) else None
    return text if number is None else f"{text}; YAML reads this as text, write {number}"


def _number_in(text: str, annotation: Any) -> str | None:
    """A text's number as YAML reads it as one of the wanted type; None if there is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    if annotation is int:
        return str(int(number)) if number.is_integer() else None
    if annotation is float:
        written = repr(number)
        return written if "." in written or "e" not in written else written.replace("e", ".0e")
    return None


def type_name(annotation: Any) -> str:
    """A type as a reader of YAML knows it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (None, type(None)):
        return "null"
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_name(a) for a in arguments)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin is not None:
        inner = ", ".join("..." if a is Ellipsis else type_name(a) for a in arguments)
        return f"{origin.__name__}[{inner}]"
    return getattr(annotation, "__name__", str(annotation))


def shown(value: Any) -> str:
    """A value and its type, cut to a line."""
    text = repr(dict(value)) if isinstance(value, Mapping) else repr(value)
    text = text if len(text) <= 80 else text[:77] + "..."
    return "null" if value is None else f"{text} ({type(value).__name__})"


def nearest_name(word: str, known: Iterable[str]) -> str:
    """'did you mean X?', or all there is to choose from."""
    known = sorted(map(str, known))
    by_folded = {k.lower(): k for k in known}
    match = difflib.get_close_matches(word.lower(), by_folded, n=1, cutoff=0.6)
    if match:
        return f"did you mean {by_folded[match[0]]}?"
    return f"known: {', '.join(known)}" if known else "none are known"


def join_path(path: str, key: Any) -> str:
    """The path of a key below another."""
    return f"{path}.{key}" if path else str(key)


def at_path(path: str) -> str:
    """What a sentence on a path begins with."""
    return f"{path}: " if path else ""


def place(path: str, sentence: str) -> str:
    """Puts the path before a complaint of a dataclass's own, which may begin with ``KEY: ``."""
    is_path = re.match(r"[A-Z][A-Z0-9_]*([.\[]\S+)?: ", sentence)
    return join_path(path, sentence) if is_path else f"{at_path(path)}{sentence}"
