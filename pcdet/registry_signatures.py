"""What a constructor takes: its own parameters, those of the class that ``**common`` goes on to, and their types."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

MISSING = inspect.Parameter.empty


class Parameter(NamedTuple):
    """A parameter of a constructor; ``default`` is MISSING where it has none."""

    annotation: Any
    default: Any


def injected_into(cls: type, injected: Iterable[str] = ()) -> frozenset[str]:
    """Names of the parameters that code supplies and no file: ``injected`` and the class's own ``INJECTED``."""
    return frozenset(injected) | frozenset(getattr(cls, "INJECTED", ()))


def parameters_of(cls: type, injected: frozenset[str] = frozenset()) -> dict[str, Parameter]:
    """Name -> parameter of a constructor, without ``self``, ``*args`` and ``**kwargs``.

    Args:
        cls: a dataclass, or a class whose constructor is annotated.
        injected: parameters whose types no file has to meet; they count as Any.

    Raises:
        TypeError: an annotation of another parameter names something that does not exist at run time.
    """
    if dataclasses.is_dataclass(cls):
        hints = _hints_of(cls)
        return {f.name: Parameter(hints[f.name], _default_of(f)) for f in dataclasses.fields(cls) if f.init}
    return {
        name: Parameter(Any if name in injected else _resolve(p.annotation, f"{cls.__name__}.{name}"), p.default)
        for name, p in signature_of(cls).items()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }


@functools.lru_cache(maxsize=1024)
def _hints_of(cls: type) -> Mapping[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


@functools.lru_cache(maxsize=1024)
def signature_of(cls: Callable) -> Mapping[str, inspect.Parameter]:
    """Name -> parameter of a constructor or function, in order; ``*args`` and ``self`` are left out.

    A constructor with ``**common`` has the parameters of the base class's too, before its own. ``**common`` itself is
    there only where no base class says what it may be.
    """
    if not isinstance(cls, type):
        return dict(inspect.signature(cls).parameters)
    mro = [base for base in cls.__mro__ if not base.__module__.startswith("torch.")]
    owner = next(base for base in mro if "__init__" in vars(base))
    if owner is object:
        return {}
    _, *parameters = inspect.signature(owner.__init__).parameters.values()  # without self
    parameters = [p for p in parameters if p.kind != p.VAR_POSITIONAL]
    own = {p.name: _with_scope(p, owner.__init__) for p in parameters if p.kind != p.VAR_KEYWORD}
    rest = {p.name: p for p in parameters if p.kind == p.VAR_KEYWORD}
    if not rest:
        return own
    inherited = signature_of(mro[mro.index(owner) + 1])
    return {**{name: p for name, p in (inherited or rest).items() if name not in own}, **own}


class _Scoped(NamedTuple):
    """An annotation, and the names that it may use."""

    annotation: Any
    scope: dict


def _with_scope(parameter: inspect.Parameter, constructor: Callable) -> inspect.Parameter:
    scope = getattr(inspect.unwrap(constructor), "__globals__", {})
    return parameter.replace(annotation=_Scoped(parameter.annotation, scope))


def _default_of(field: dataclasses.Field) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return MISSING if field.default_factory is dataclasses.MISSING else field.default_factory()


def _resolve(annotation: Any, parameter: str) -> Any:
    """An annotation as an object; none counts as Any."""
    annotation, scope = annotation if isinstance(annotation, _Scoped) else (annotation, {})
    if not isinstance(annotation, str):
        return Any if annotation is MISSING else annotation
    try:
        return eval(annotation, scope)
    except NameError as error:
        raise TypeError(
            f"the annotation {annotation!r} of {parameter} cannot be resolved ({error}), so that nothing in a file can "
            "be checked against it; import its names at run time, or list the parameter in INJECTED if code supplies it"
        ) from error
