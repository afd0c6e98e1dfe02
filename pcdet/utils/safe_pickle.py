"""Pickles of plain data, read without trusting them.

Info and database files of the field are pickles, and unpickling a stranger's file can run any program. ``load`` builds
nothing but containers, strings, bytes, numbers and numpy arrays and scalars of plain types; it never calls a function
that the file names. Arrays are described by the file and made here, so that forged dtypes or sizes cannot reach memory
that is not theirs. Files written under numpy 1.x and 2.x are read alike.
"""

from __future__ import annotations

import collections
import io
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

PLAIN_DTYPE = re.compile(r"(b1|[iu][1248]|f(2|4|8|16)|c(8|16|32)|[SU]\d+|O8?|\?)\Z")
MAX_DEPTH = 100  # of nested containers; deeper than any sane file, shallower than Python's stack


class UnsafePickleError(ValueError):
    """The file asks for something other than plain data, or is damaged."""


class _Dtype:
    """What a file says of a dtype. Structured, subarray and exotic ones are refused."""

    def __init__(self, spec: Any = None, align: Any = False, copy: Any = True):
        if not isinstance(spec, str) or not PLAIN_DTYPE.match(spec):
            raise UnsafePickleError(f"dtype {spec!r} is not a plain one")
        self.spec, self.order = spec, "="

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise UnsafePickleError("a dtype has an unreadable description")
        if any(part is not None for part in state[2:5]):
            raise UnsafePickleError("a dtype has fields or a subarray; only plain ones are read")
        self.order = state[1]

    def resolve(self) -> np.dtype:
        kind = self.spec.rstrip("8") if self.spec.startswith("O") else self.spec
        return np.dtype(kind if self.order in "|=" else self.order + kind)


class _Array:
    """What a file says of an array; made into one by ``resolve``."""

    def __init__(self, state: tuple | None = None):
        self.state = state

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise UnsafePickleError("an array has an unreadable description")
        _, shape, dtype, fortran, data = state
        self.state = (shape, dtype, "F" if fortran else "C", data)

    def resolve(self, convert: Callable[[Any], Any]) -> np.ndarray:
        if self.state is None:
            raise UnsafePickleError("an array has no content")
        shape, dtype, order, data = self.state
        shape = (shape,) if isinstance(shape, int) else shape
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise UnsafePickleError(f"an array has the shape {shape!r}")
        if not isinstance(dtype, _Dtype):
            raise UnsafePickleError("an array has no dtype")
        dtype = dtype.resolve()
        count = int(np.prod(shape, dtype=object))
        if dtype.hasobject:
            return self._object_array(data, shape, order, count, convert)
        data = data.encode("latin1") if isinstance(data, str) else data  # written by Python 2
        if not isinstance(data, (bytes, bytearray)) or len(data) != count * dtype.itemsize:
            raise UnsafePickleError(f"an array of shape {shape} and dtype {dtype} has the wrong amount of data")
        return np.frombuffer(data, dtype=dtype, count=count).reshape(shape, order=order).copy(order="K")

    @staticmethod
    def _object_array(data: Any, shape: tuple, order: str, count: int, convert: Callable) -> np.ndarray:
        if not isinstance(data, list) or len(data) != count:
            raise UnsafePickleError("an array of objects has the wrong number of them")
        array = np.empty(count, dtype=object)
        for i, item in enumerate(data):
            array[i] = convert(item)
        return array.reshape(shape, order=order)


class _Scalar:
    """What a file says of a numpy scalar."""

    def __init__(self, dtype: Any, data: Any = b""):
        if not isinstance(dtype, _Dtype):
            raise UnsafePickleError("a numpy scalar has no dtype")
        self.dtype, self.data = dtype, data

    def resolve(self) -> np.generic:
        dtype = self.dtype.resolve()
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
        if dtype.hasobject or not isinstance(data, bytes) or len(data) != dtype.itemsize:
            raise UnsafePickleError(f"a numpy scalar of dtype {dtype} has the wrong data")
        return np.frombuffer(data, dtype=dtype)[0] if dtype.itemsize else dtype.type()


def _reconstruct(subtype: Any, shape: Any = None, typecode: Any = None) -> _Array:
    return _Array()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any = "C", axis_order: Any = None) -> _Array:
    if isinstance(data, pickle.PickleBuffer):
        data = bytes(data)
    if axis_order is not None or order not in ("C", "F"):
        raise UnsafePickleError("an array has an unknown memory layout")
    return _Array((shape, dtype, order, data))


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8"):
        raise UnsafePickleError("bytes in an unknown encoding")
    return text.encode(encoding)


def _bytes(*contents: Any) -> bytes:
    if contents:  # protocols 0 to 2 name the class for empty bytes only; bytes(10**12) would take all memory
        raise UnsafePickleError("bytes are made in an unknown way")
    return b""


def _bytearray(content: Any = b"", encoding: Any = None) -> bytearray:
    return bytearray(content if isinstance(content, bytes) else _encode(content, encoding or "latin1"))


class _NdarrayType:
    """Stands for the class ``numpy.ndarray``, which files only ever name."""

    def __init__(self, *_: Any):
        raise UnsafePickleError("an array is made in an unknown way")


_NUMPY_CORES = ("numpy.core", "numpy._core")
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NdarrayType,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): collections.OrderedDict,
    **{(f"{core}.multiarray", "_reconstruct"): _reconstruct for core in _NUMPY_CORES},
    **{(f"{core}.multiarray", "scalar"): _Scalar for core in _NUMPY_CORES},
    **{(f"{core}.numeric", "_frombuffer"): _frombuffer for core in _NUMPY_CORES},
    **{(module, kind.__name__): kind for module in ("builtins", "__builtin__") for kind in (set, frozenset, complex)},
    **{(module, "bytes"): _bytes for module in ("builtins", "__builtin__")},
    **{(module, "bytearray"): _bytearray for module in ("builtins", "__builtin__")},
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Stands in for what numpy's pickles name; refuses every other name."""
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise UnsafePickleError(
                f"it asks for {module}.{name}; only containers, strings, numbers and numpy arrays are read"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        """Refuses references to things outside the file."""
        raise UnsafePickleError("it refers to objects outside the file")


class _Resolver:
    """Turns the descriptions in a tree of containers into arrays; shared ones stay shared."""

    def __init__(self):
        self.done: dict[int, Any] = {}

    def __call__(self, value: Any, depth: int = 0) -> Any:
        if value is None or isinstance(value, (str, bytes, bytearray, bool, int, float, complex)):
            return value
        if id(value) not in self.done:
            if depth > MAX_DEPTH:
                raise UnsafePickleError(f"containers are nested deeper than {MAX_DEPTH}, or contain themselves")
            self.done[id(value)] = self._convert(value, depth + 1)
        return self.done[id(value)]

    def _convert(self, value: Any, depth: int) -> Any:
        if isinstance(value, _Array):
            return value.resolve(lambda item: self(item, depth))
        if isinstance(value, _Scalar):
            return value.resolve()
        if isinstance(value, _Dtype):
            return value.resolve()
        if type(value) in (list, tuple, set, frozenset):
            return type(value)(self(item, depth) for item in value)
        if type(value) in (dict, collections.OrderedDict):
            return type(value)((self(key, depth), self(item, depth)) for key, item in value.items())
        raise UnsafePickleError(f"it holds a {type(value).__name__}; only plain data is read")


def loads(data: bytes, name: str = "the pickle") -> Any:
    """The plain data of a pickle; see ``load``."""
    return _load_stream(io.BytesIO(data), name)


def load(file: str | Path | BinaryIO) -> Any:
    """The plain data of a pickle file: containers, strings, bytes, numbers, numpy arrays and scalars.

    Args:
        file: a path or a file opened for reading bytes. Of a stream of pickles the next one is read.

    Raises:
        UnsafePickleError: the file names the file and what it asked for, or says that it is damaged.
        EOFError: an opened file is at its end.
    """
    if hasattr(file, "read"):
        return _load_stream(file, str(getattr(file, "name", "the pickle")))
    with open(file, "rb") as stream:
        return _load_stream(stream, os.fspath(file))


def _load_stream(stream: BinaryIO, name: str) -> Any:
    start = stream.tell()
    try:
        return _Resolver()(_PlainUnpickler(stream, encoding="latin1").load())
    except EOFError:
        if stream.tell() == start and not isinstance(stream, io.BytesIO) and not stream.read(1):
            raise
        raise UnsafePickleError(f"{name} is cut short or not a pickle") from None
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{name} cannot be read safely: {error}") from None
    except (
        pickle.UnpicklingError,
        TypeError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
    ) as error:
        raise UnsafePickleError(f"{name} is not a pickle of plain data: {error}") from None
    except (RecursionError, MemoryError, ImportError) as error:
        raise UnsafePickleError(f"{name} cannot be read safely: {type(error).__name__}") from None


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
    """Writes ``data`` as a pickle; an interrupted write leaves the old file as it was."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    partial.write_bytes(dumps(data))
    os.replace(partial, path)
