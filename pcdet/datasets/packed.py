"""Long lists of small things in two arrays, which forked workers share.

A list of Python objects is copied piece by piece into every worker that reads it, since reading changes the reference
counts that lie beside the objects. Arrays have one count each.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


class PackedBytes(Sequence[bytes]):
    """A list of byte strings in one array.

    Args:
        items: what it holds; each is copied and let go, so a generator takes no memory beside the array.
    """

    def __init__(self, items: Iterable[bytes]):
        data, ends = bytearray(), [0]
        for item in items:
            data += item
            ends.append(len(data))
        self._data = np.frombuffer(bytes(data), dtype=np.uint8)
        self._ends = np.array(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> bytes:
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} entries, got the index {index}")
        return self._data[self._ends[number] : self._ends[number + 1]].tobytes()

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self._data.nbytes + self._ends.nbytes


class PackedObjects(Sequence[Any]):
    """A list of Python objects in one array; each look makes an object anew.

    Args:
        items: plain data that pickle can write, such as the infos of frames.
    """

    def __init__(self, items: Iterable[Any]):
        self._bytes = PackedBytes(map(pickle.dumps, items))

    def __len__(self) -> int:
        return len(self._bytes)

    def __getitem__(self, index: int) -> Any:
        return pickle.loads(self._bytes[index])  # bytes of this process's own making

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self._bytes.nbytes


class PackedTexts(Sequence[str]):
    """A list of texts in one array.

    Args:
        items: texts.
    """

    def __init__(self, items: Iterable[str]):
        self._bytes = PackedBytes(item.encode("utf-8", "surrogatepass") for item in items)

    def __len__(self) -> int:
        return len(self._bytes)

    def __getitem__(self, index: int) -> str:
        return self._bytes[index].decode("utf-8", "surrogatepass")

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self._bytes.nbytes
