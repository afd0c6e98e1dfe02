"""Pickles of plain data, read without trusting them.

Info and database files of the field are pickles, and unpickling a stranger's file can run any program. ``load`` builds
nothing but containers, strings, bytes, numbers and numpy arrays and scalars of plain types; it never calls a function
that the file names, and it takes time and memory in proportion to the file's size. Files written under numpy 1.x and
2.x are read alike.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pcdet.utils.pickle_arrays import ArrayGroups
from pcdet.utils.pickle_scan import CutShortError, NotTakenError, UnsafePickleError, end_of_pickle
from pcdet.utils.pickle_values import PLAIN_NAMES, Budget, Description, Maker, Names, Resolver
from pcdet.utils.safe_files import DamagedFileError, replacing, verify

__all__ = ["DAMAGE", "UnsafePickleError", "describe_pickle", "dump", "dumps", "load", "loads"]

DAMAGE = (  # what Python's reader answers to damaged data
    *(pickle.UnpicklingError, EOFError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError),
    *(RecursionError, MemoryError, ImportError),
)
READ_AHEAD = 1 << 16
FIRST_PIECE = 1 << 16  # bytes read from a stream to find a pickle's end; doubled as long as it is not there


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, data: bytes, names: Names, budget: Budget, refer: Callable[[Any], Any] | None):
        super().__init__(io.BufferedReader(io.BytesIO(data), READ_AHEAD), encoding="latin1")
        self._names, self._budget, self._refer = names, budget, refer
        self._found: dict[tuple[str, str], Maker | Description] = {}  # files of millions of arrays name few things

    def find_class(self, module: str, name: str) -> Maker | Description:
        """Stands in for what plain data name; refuses every other name."""
        found = self._found.get((module, name))
        if found is None:
            make = self._names.get((module, name))
            if make is None:
                raise UnsafePickleError(
                    f"it asks for {module[:80]}.{name[:80]}; only containers, strings, numbers and arrays are read"
                )
            found = make if isinstance(make, Description) else Maker(make, self._budget)
            self._found[module, name] = found
        return found

    def persistent_load(self, pid: Any) -> Any:
        """What is outside the pickle, where its kind has such things."""
        if self._refer is None:
            raise UnsafePickleError("it refers to objects outside the file")
        return self._refer(pid)


def parse_pickle(data: bytes, start: int = 0) -> tuple[Any, int]:
    """The content of a pickle, and where it ends.

    Args:
        data: the pickle, and whatever follows it.
        start: its first byte.

    Raises:
        UnsafePickleError: it asks for something else, is damaged, or takes more than its size explains.
        Exception: of ``DAMAGE``, where damaged data lead to one.
    """
    with _collector_paused():
        described, budget, end = describe_pickle(data, start)
        return Resolver(budget)(described), end


def describe_pickle(
    data: bytes, start: int = 0, names: Names = PLAIN_NAMES, refer: Callable[[Any], Any] | None = None
) -> tuple[Any, Budget, int]:
    """What a pickle says, for a ``Resolver`` to make values of; the budget of the reading; where the pickle ends.

    Args:
        data: the pickle, and whatever follows it.
        start: its first byte.
        names: what the file may name, and what stands for it.
        refer: makes a value of a reference to something outside the pickle; None where there is none.

    Raises:
        UnsafePickleError: as ``parse_pickle``.
        Exception: of ``DAMAGE``, where damaged data lead to one.
    """
    if names is PLAIN_NAMES and refer is None:
        with contextlib.suppress(NotTakenError):
            return _describe_in_groups(data, start)
    end = end_of_pickle(data, start)
    piece = data if start == 0 and end == len(data) else data[start:end]
    budget = Budget(len(piece))
    return _PlainUnpickler(piece, names, budget, refer).load(), budget, end


def _describe_in_groups(data: bytes, start: int) -> tuple[Any, Budget, int]:
    """As ``describe_pickle``, of plain data; arrays of the same form are made together.

    Raises:
        NotTakenError: the arrays must be made one by one.
    """
    budget = Budget(0)
    groups = ArrayGroups(data, start, budget)
    end = end_of_pickle(data, start, groups)
    budget.grow(end - start)
    return _PlainUnpickler(groups.rewritten(end), PLAIN_NAMES, budget, groups.find).load(), budget, end


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Keeps Python's collector from looking at what is read again and again: with millions of objects, half the time.

    What is read has no circles, so nothing waits for the collector.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Turns everything that a damaged or crafted pickle leads to into an UnsafePickleError that names the file."""
    try:
        yield
    except CutShortError:
        raise UnsafePickleError(f"{name} is cut short or not a pickle") from None
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{name} cannot be read safely: {error}") from None
    except DAMAGE as error:
        raise UnsafePickleError(
            f"{name} is not a pickle of plain data: {str(error)[:200] or type(error).__name__}"
        ) from None


def loads(data: bytes, name: str = "the pickle") -> Any:
    """The plain data of a pickle; see ``load``."""
    with naming(name):
        return parse_pickle(data)[0]


def load(file: str | Path | BinaryIO) -> Any:
    """The plain data of a pickle file: containers, strings, bytes, numbers, numpy arrays and scalars.

    Args:
        file: a path, whose ``NAME.sha256`` is checked where there is one, or a file opened for reading bytes. Of a
            stream of pickles the next one is read.

    Raises:
        UnsafePickleError: names the file and what it asked for, or says that it is damaged.
        FileNotFoundError: there is no such file.
        EOFError: an opened file is at its end.
    """
    if hasattr(file, "read"):
        return _load_next(file, str(getattr(file, "name", "the pickle")))
    try:
        verify(file)
    except DamagedFileError as error:
        raise UnsafePickleError(str(error)) from None
    with naming(os.fspath(file)), _collector_paused():
        described, budget, _ = describe_pickle(Path(file).read_bytes())  # the file's bytes go before values are made
        return Resolver(budget)(described)


def _load_next(stream: BinaryIO, name: str) -> Any:
    """The next pickle of a stream, which then stands behind it."""
    start, size = stream.tell(), FIRST_PIECE
    while True:
        data = stream.read(size)
        if not data:
            raise EOFError(f"{name} is at its end")
        with naming(name):
            try:
                value, end = parse_pickle(data)
                break
            except CutShortError:
                if len(data) < size:
                    raise
        stream.seek(start)
        size *= 2
    stream.seek(start + end)
    return value


def dumps(data: Any) -> bytes:
    """``data`` as a pickle that numpy 1.x and 2.x, and OpenPCDet, can read. Equal data give equal bytes.

    What is shared is written as often as it is used; data that contain themselves are refused (RecursionError).
    """
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, protocol=3)  # later protocols have frames, whose lengths the last line would break
    pickler.fast = True  # no references back: they would depend on which equal objects happen to be one
    pickler.dump(data)
    return stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def dump(data: Any, path: str | Path) -> None:
    """Writes ``data`` as a pickle, with its checksum beside it; an interrupted write leaves the old file as it was."""
    with replacing(path, checksum=True) as stream:
        stream.write(dumps(data))
