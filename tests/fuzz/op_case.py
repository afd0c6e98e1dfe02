"""One call of a native op as a line of JSON: what its tensors are made of, and how they lie in memory."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

DTYPES = {"f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16, "i64": torch.int64}
VALUES = ("normal", "normal", "normal", "grid", "grid", "tiny", "huge", "nan", "inf", "zero")
LAYOUTS = ("plain", "plain", "transposed", "strided", "spaced", "offset", "expanded")
FAULTS = ("none", "none", "none", "none", "none", "rank", "short", "dtype", "index", "limits")
SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 40, 65)
COUNTS = (0, 1, 1, 2, 3, 4, 8, 17, 40, 300, -1, -(2**31), 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1)
REALS = (0.0, 0.1, 0.25, 0.5, 0.7, 1.0, 2.0, 5.0, -1.0, 1e-30, 1e30, math.inf, math.nan, -0.0)
MOST = 1 << 22  # elements of a result that is worth its time
PLAIN = {"dtype": "f32", "values": "normal", "layouts": ["plain"] * 5, "fault": "none", "seed": 0}


class UnfitError(Exception):
    """A case whose result would be too large to try."""


def drawn(rng: random.Random) -> bytes:
    """A random case."""
    case = {
        "seed": rng.randrange(10000),
        "dtype": rng.choice(("f32", "f32", "f32", "f64", "f64", *DTYPES)),
        "values": rng.choice(VALUES),
        "sizes": rng.choices(SIZES, k=5),
        "counts": rng.choices(COUNTS, k=3),
        "reals": rng.choices(REALS, k=3),
        "layouts": rng.choices(LAYOUTS, k=5),
        "fault": rng.choice(FAULTS),
    }
    return json.dumps(case).encode()


def simpler(data: bytes) -> Iterator[bytes]:
    """Cases that differ in one entry, which is plainer."""
    case = json.loads(data)
    for key, value in PLAIN.items():
        if case[key] != value:
            yield json.dumps({**case, key: value}).encode()
    for key in ("sizes", "counts", "reals"):
        for i, old in enumerate(case[key]):
            for new in (1, old // 2 if key == "sizes" else 1.0):
                if new != old and not (key == "sizes" and new >= old):
                    yield json.dumps({**case, key: [*case[key][:i], new, *case[key][i + 1 :]]}).encode()


class Case:
    """Deals out what a case describes, in the order in which an op asks.

    Attributes:
        clean: whether values and types are ordinary, so that the reference must agree.
    """

    def __init__(self, case: dict[str, Any]):
        self.case = case
        self.generator = torch.Generator().manual_seed(case["seed"])
        self.dtype = DTYPES[case["dtype"]]
        self.fault = case["fault"]
        self._left = {key: list(case[key]) for key in ("sizes", "counts", "reals", "layouts")}
        self._made = 0
        ordinary = self.fault == "none" and self.dtype in (torch.float32, torch.float64)
        self.clean = ordinary and case["values"] in ("normal", "grid")
        self.generic = self.clean and case["values"] == "normal"

    def _next(self, key: str) -> Any:
        entries = self._left[key]
        entries.append(entries[0])
        return entries.pop(0)

    def size(self, most: int = 65) -> int:
        """A length of an axis."""
        return min(self._next("sizes"), most)

    def count(self, others: int = 1) -> int:
        """A number of things wanted, of a result with ``others`` elements for each; any integer.

        Raises:
            UnfitError: it is possible, and too large to try.
        """
        count = self._next("counts")
        if MOST < count * max(others, 1) < 1 << 62:
            raise UnfitError
        return count

    def real(self) -> float:
        """Any float."""
        return self._next("reals")

    def pick(self, *options: Any) -> Any:
        """One of several."""
        return options[int(torch.randint(len(options), (), generator=self.generator))]

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, dtype=torch.float64)

    def floats(self, *shape: int, low: float = -8.0, high: float = 8.0) -> Tensor:
        """Numbers of the case's kind and type, that lie in memory as it says."""
        values = low + (high - low) * self._uniform(*shape)
        kind = self.case["values"]
        if kind == "grid":
            values = (values * 2).round() / 2
        elif kind == "tiny":
            values = values * 1e-38
        elif kind == "zero":
            values = values * 0
        elif kind == "huge":
            values = values * 10 ** (40 * self._uniform(*shape) - 2)
        elif kind in ("nan", "inf"):
            odd = self._uniform(*shape) < 0.1
            values = torch.where(odd, math.nan if kind == "nan" else math.inf * values.sign(), values)
        return self._laid_out(self._typed(values))

    def _typed(self, values: Tensor) -> Tensor:
        self._made += 1
        if self.fault == "dtype" and self._made == 2:
            return values.to(torch.float64 if self.dtype is torch.float32 else torch.float32)
        return values.nan_to_num().to(self.dtype) if self.dtype is torch.int64 else values.to(self.dtype)

    def boxes(self, *shape: int) -> Tensor:
        """Boxes (..., 7) of positive size, unless the values are extreme."""
        boxes = self.floats(*shape, 7)
        if self.case["values"] in ("normal", "grid") and boxes.shape[-1] == 7 and boxes.dim() > 0:
            boxes = boxes.clone()
            boxes[..., 3:6] = boxes[..., 3:6].abs() / 2 + 0.5
            if self.case["values"] == "grid":  # right angles: corners and sides meet
                boxes[..., 6] = (boxes[..., 6] * 2).round() * (math.pi / 2)
            return self._laid_out(boxes)
        return boxes

    def index(self, *shape: int, upper: int, dtype=torch.int64, missing: bool = False) -> Tensor:
        """Row numbers below ``upper``; -1 too if ``missing`` says so; beyond it if the case has that fault."""
        values = torch.randint(max(upper, 1), shape, generator=self.generator)
        if missing:
            values[torch.rand(shape, generator=self.generator) < 0.3] = -1
        if self.fault in ("index", "limits") and values.numel():
            place = int(torch.randint(values.numel(), (), generator=self.generator))
            options = (upper, -2, -1) if self.fault == "index" else (2**31 - 1, 2**31, -(2**31), 2**63 - 1, -(2**63))
            values.view(-1)[place] = self.pick(*options)
        if dtype is torch.int32:
            values = values.clamp(-(2**31), 2**31 - 1)
        return self._laid_out(values.to(dtype))

    def frames(self, rows: int) -> Tensor:
        """Frame numbers of so many rows, ascending unless the case has a fault."""
        frames = torch.randint(3, (rows,), generator=self.generator)
        return frames if self.fault in ("index", "limits") else frames.sort().values

    def _laid_out(self, values: Tensor) -> Tensor:
        """The same numbers in another layout, or, by the case's fault, of another shape."""
        if self.fault == "rank":
            values = values[None] if self._made % 2 else values.flatten()
        elif self.fault == "short" and values.dim():
            values = values[..., : max(values.shape[-1] - 1, 0)] if self._made == 1 else values
        return laid_out(values, self._next("layouts"))


def laid_out(values: Tensor, layout: str) -> Tensor:
    """A tensor of the same numbers that lies in memory in another way."""
    if layout == "transposed" and values.dim() > 1:
        return values.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "strided" and values.dim():
        wide = values.new_zeros(*values.shape[:-1], 2 * values.shape[-1] + 1)
        wide[..., 1 : 2 * values.shape[-1] : 2] = values
        return wide[..., 1 : 2 * values.shape[-1] : 2]
    if layout == "spaced" and values.dim():
        wide = values.new_zeros(2 * values.shape[0], *values.shape[1:])
        wide[::2] = values
        return wide[::2]
    if layout == "offset":
        flat = torch.cat([values.new_zeros(1), values.flatten()])
        return flat[1:].view(values.shape)
    if layout == "expanded" and values.dim() and values.shape[0]:
        return values[:1].expand(values.shape)  # one row for all: other numbers
    return values
