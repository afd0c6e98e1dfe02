"""Splits a call into named parts without a gap: every moment belongs to the innermost part that is open."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from _device import Device

OTHER = "other"


class Timeline:
    """Marks on a device where parts begin and end.

    On a GPU the marks lie in its stream: a part's time is that of the work that was started in it, and of the waits for
    the host between its kernels.

    Args:
        device: that works.
    """

    def __init__(self, device: Device):
        self.device = device
        self.open: list[str] = []
        self.marks: list[tuple[str, Any]] = []  # the part that begins or goes on, and when

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What runs in the block belongs to the part, but for parts within it."""
        self.open.append(name)
        self._mark()
        try:
            yield
        finally:
            self.open.pop()
            self._mark()

    def _mark(self) -> None:
        self.marks.append((self.open[-1] if self.open else OTHER, self.device.mark()))

    def ms_by_part(self) -> dict[str, float]:
        """Part -> milliseconds since the last call of this; their sum is the time from the first mark to the last."""
        self.device.wait()
        found: dict[str, float] = {}
        for (name, begin), (_, end) in zip(self.marks, self.marks[1:], strict=False):
            found[name] = found.get(name, 0.0) + self.device.ms_between(begin, end)
        self.marks.clear()
        return found

    def watch(self, stack: ExitStack, owner: Any, attribute: str, name: str) -> None:
        """Makes a function or method a part, until the stack is closed.

        Args:
            stack: that ends it.
            owner: a module, class or object.
            attribute: of the owner.
            name: of the part.
        """
        original = getattr(owner, attribute)

        @functools.wraps(original)
        def watched(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return original(*args, **kwargs)

        stack.enter_context(patch.object(owner, attribute, watched))


@contextmanager
def seconds_of(times: dict[str, list[float]], name: str) -> Iterator[None]:
    """Appends the milliseconds that the block takes on the host."""
    began = time.perf_counter()
    yield
    times.setdefault(name, []).append((time.perf_counter() - began) * 1e3)
