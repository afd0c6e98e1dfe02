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
        self._numbers: dict[bytes, int] = {}  # form -> number of its group
        self._sizes: list[int] = []  # of the data of each group's arrays
        self._places: list[array] = []  # where the data of all but the first begin
        self._made: list[Iterator[np.ndarray] | None] = []

    def take(self, form: bytes, begin: int, data_at: int, data_size: int, end: int, memoized: int = 0) -> bool:
        """Whether the array is taken out of the pickle. The first of its form is not, nor is one of another size.

        Args:
            form: its instructions up to the data.
            begin: of the first instruction.
            data_at: of the data.
            data_size: bytes of the data.
            end: of the last instruction.
            memoized: values that the instructions remember.
        """
        number = self._numbers.get(form)
        if number is None:
            number = self._numbers[form] = len(self._sizes)
            self._sizes.append(data_size)
            self._places.append(array("q"))
            self._made.append(None)
            self._write(end, end, FIRST % number.to_bytes(4, "little"))
            return False
        if data_size != self._sizes[number] or not data_size:
            return False
        self._places[number].append(data_at)
        self._write(begin, end, TAKEN_OUT % number.to_bytes(4, "little") + MEMOIZE * memoized)
        return True

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
        return bytes(self._rewritten)

    def find(self, pid: Any) -> Any:
        """Answers the references in the rewritten pickle.

        Raises:
            UnsafePickleError: the first array of a form is not sound.
        """
        if type(pid) is int:
            return next(self._made[pid])
        first, number = pid
        if type(first) is not ArrayDescription:
            raise UnsafePickleError("an array is made in an unknown way")
        self._made[number] = self._arrays_like(first.resolve(Resolver(self.budget)), self._places[number])
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
