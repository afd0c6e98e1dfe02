"""Every op of the library by its schema alone: tensors of any form, whatever Python checks before it is called."""

from __future__ import annotations

import functools
from typing import Any

import torch

from fuzz.op_boxes import Op
from fuzz.op_case import Case


@functools.cache
def _schemas() -> list:
    return sorted(
        (s for s in torch._C._jit_get_all_schemas() if s.name.startswith("pcdet::")), key=lambda schema: schema.name
    )


def _argument(case: Case, kind: str) -> Any:
    if kind == "Optional[Tensor]":
        return None if case.pick(True, False) else _argument(case, "Tensor")
    if kind == "Tensor":
        shape = [case.size(9) for _ in range(case.pick(0, 1, 2, 2, 3, 3, 4))]
        if shape and case.pick(True, True, False):
            shape[-1] = case.pick(3, 7)
        if case.pick(True, True, False):
            return case.floats(*shape)
        return case.index(*shape, upper=case.size(9), dtype=case.pick(torch.int32, torch.int64), missing=True)
    if kind == "float":
        return case.real()
    if kind in ("int", "SymInt"):
        return case.count(1 << 12)
    if kind == "bool":
        return case.pick(True, False)
    if kind in ("List[int]", "List[SymInt]"):
        return tuple(case.pick(1, 2, 3, 0, -1, 2**31, 2**62) for _ in range(case.pick(3, 3, 2)))
    if kind == "List[float]":
        return tuple(case.real() for _ in range(case.pick(3, 6, 6, 1)))
    raise TypeError(f"op_schemas.py makes no arguments of type {kind}; add it")


def _arguments(case: Case) -> tuple:
    schema = case.pick(*_schemas())
    return schema.name.removeprefix("pcdet::"), *(_argument(case, str(a.type)) for a in schema.arguments)


def _call(name: str, *arguments: Any) -> Any:
    return getattr(torch.ops.pcdet, name)(*arguments)


OPS = [Op("any_schema", _call, _arguments, lambda case, arguments, value: None)]
