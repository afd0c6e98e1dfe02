"""Makes a failing input smaller."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator


def shorter(data: bytes) -> Iterator[bytes]:
    """The data without a block, large blocks first, from the end; then with plainer bytes."""
    size = len(data) // 2
    while size:
        for start in range(len(data) - size, -1, -size):
            yield data[:start] + data[start + size :]
        size //= 2
    for place, byte in enumerate(data[:64]):
        if byte != 0x30:
            yield data[:place] + b"0" + data[place + 1 :]


def minimise(
    data: bytes, simpler: Callable[[bytes], Iterator[bytes]], still_fails: Callable[[bytes], bool], seconds: float
) -> bytes:
    """The simplest input found in ``seconds`` that fails as ``data`` does."""
    end = time.monotonic() + seconds
    found = True
    while found:
        found = False
        for candidate in simpler(data):
            if time.monotonic() > end:
                return data
            if candidate != data and still_fails(candidate):
                data, found = candidate, True
                break
    return data
