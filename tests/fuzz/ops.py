"""Targets: the native ops, compared with their references, and given everything else that a caller might pass."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fuzz import op_boxes, op_edges, op_groups, op_points, op_schemas
from fuzz.op_case import Case, UnfitError, drawn, simpler
from fuzz.target import Target

REFUSALS = (ValueError, TypeError, RuntimeError, IndexError, NotImplementedError)


@dataclass
class Result:
    """What a call gave, and what is needed to judge it."""

    op: Any
    case: Case
    arguments: tuple
    before: tuple
    value: Any


def run(op: Any, path: Path) -> Result | None:
    """Makes the arguments that a case describes and calls the op; None where the result would be too large."""
    torch.manual_seed(0)
    case = Case(json.loads(path.read_bytes()))
    try:
        arguments = op.arguments(case)
    except UnfitError:
        return None
    before = _each(arguments, lambda t: t.detach().clone())
    return Result(op, case, arguments, before, op.call(*arguments))


def check(result: Result | None, path: Path) -> None:
    """Arguments are untouched, layouts do not matter, and ordinary values give what the reference gives."""
    if result is None:
        return
    for ours, before in zip(_tensors(result.arguments), _tensors(result.before), strict=True):
        assert same(ours, before), "an argument has changed"
    again = result.op.call(*_each(result.arguments, _plain))
    for ours, theirs in zip(_tensors(result.value), _tensors(again), strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype, "the layout of the arguments changes the form"
        assert same(ours, theirs) or _nearly(result, ours, theirs), "the layout of the arguments changes the result"
    result.op.check(result.case, result.arguments, result.value)


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal, NaN and NaN too."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def _nearly(result: Result, a: Tensor, b: Tensor) -> bool:
    """Whether an op that need not be exact is close where its arguments are ordinary."""
    return not result.op.exact and (not result.case.generic or torch.allclose(a, b, rtol=1e-3, atol=1e-3))


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format).requires_grad_(tensor.requires_grad)


def _each(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    return tuple(_each(v, function) for v in value) if isinstance(value, tuple) else value


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for v in value for t in _tensors(v)] if isinstance(value, (tuple, list)) else []


TARGETS = [
    Target(
        name=f"op_{op.name}",
        folder="ops",
        suffix=".json",
        read=functools.partial(run, op),
        refusals=REFUSALS,
        names_file=False,
        draw=drawn,
        check=check,
        simpler=simpler,
        modules=(),
        text=True,
        seconds=10.0,
    )
    for op in (*op_boxes.OPS, *op_points.OPS, *op_edges.OPS, *op_groups.OPS, *op_schemas.OPS)
]
