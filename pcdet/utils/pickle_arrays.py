"""Arrays of a pickle, many at a time: those that differ in their data alone are cut out of it and made in blocks.

Info files hold a million small arrays of a few forms. The first one of each form goes through ``ArrayDescription``,
which checks it; the others have the same instructions, and the same amount of data, byte for byte.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np

from pcdet.utils.pickle_scan import UnsafePickleError
from pcdet.utils.pickle_values import ArrayDescription, Budget, Resolver

BLOCK = 1 << 16  # bytes of the arrays that are made, and let go, together
TAKEN_OUT = b"J%bQ"  # the instructions that stand for an array: asks ``ArrayGroups.find`` for the next one of a group
FIRST = b"J%b\x86Q"  # those that follow the first array of a group: show it to ``ArrayGroups.find``
MEMOIZE = b"\x94"
_Group = tuple[int, bytes, bytes, array]  # bytes of data; instructions behind; what stands instead; where data begin


class ArrayGroups:
    """Fills in a pickle's arrays; a scan of the pickle says where they are.

    Args:
        data: the pickle, and whatever follows it.
        start: its first byte.
        budget: of the reading.
    """

    def __init__(self, data: bytes, start: int, budget: Budget):
        self.data, self.budget = data, budget
        self._rewritten, self._copied_to = bytearray(), start
        self._groups: dict[bytes, _Group] = {}  # of each form
        self._lengths: list[int] = []  # of forms; there are few
        self._in_order: list[_Group] = []
        self._made: list[Iterator[np.ndarray]] = []

    def first(self, form: bytes, data_size: int, ending: bytes, end: int, memoized: int = 0) -> None:
        """Begins a group, with an array that stays in the pickle.

        Args:
            form: the array's instructions up to the data, whose size they give.
            data_size: bytes of the data.
            ending: the instructions behind them.
            end: of these.
            memoized: values that the instructions remember.
        """
        if form in self._groups or not data_size:
            return
        number = len(self._groups).to_bytes(4, "little")
        self._groups[form] = (data_size, ending, TAKEN_OUT % number + MEMOIZE * memoized, array("q"))
        if len(form) not in self._lengths:
            self._lengths.append(len(form))
        self._write(end, end, FIRST % number)

    def again(self, begin: int) -> int:
        """Where an array ends that begins here and has the form of an earlier one, and is taken out; else 0."""
        data = self.data
        for length in self._lengths:
            group = self._groups.get(data[begin : begin + length])
            if group is not None:
                size, ending, instead, places = group
                data_at = begin + length
                if not data.startswith(ending, data_at + size):
                    return 0
                places.append(data_at)
                self._rewritten += data[self._copied_to : begin]
                self._rewritten += instead
                self._copied_to = end = data_at + size + len(ending)
                return end
        return 0

    def leave_out(self, begin: int, end: int) -> None:
        """Drops instructions that are not true of the rewritten pickle: lengths of its frames."""
        self._write(begin, end, b"")

    def _write(self, begin: int, end: int, instead: bytes) -> None:
        self._rewritten += self.data[self._copied_to : begin]
        self._rewritten += instead
        self._copied_to = end

    def rewritten(self, end: int) -> bytes:
        """The pickle without what was taken out of it.

        Args:
            end: where it ends.
        """
        self._write(end, end, b"")
        self._in_order = list(self._groups.values())
        return bytes(self._rewritten)

    def find(self, pid: Any) -> Any:
        """Answers the references in the rewritten pickle.

        Raises:
            UnsafePickleError: the first array of a form is not sound.
        """
        if type(pid) is int:
            return next(self._made[pid])
        first, number = pid  # groups are numbered in the order in which their first arrays are read
        if type(first) is not ArrayDescription:
            raise UnsafePickleError("an array is made in an unknown way")
        _, _, _, places = self._in_order[number]
        self._made.append(self._arrays_like(first.resolve(Resolver(self.budget)), places))
        return first

    def _arrays_like(self, first: np.ndarray, places: array) -> Iterator[np.ndarray]:
        if not places:
            return
        size = first.nbytes
        self.budget.spend(len(places) * size)
        windows = np.ndarray((len(self.data) - size + 1, size), np.uint8, self.data, strides=(1, 1))
        step = max(1, BLOCK // size)
        for begin in range(0, len(places), step):
            block = windows[np.array(places[begin : begin + step])]
            yield from block.view(first.dtype).reshape(-1, *first.shape)
