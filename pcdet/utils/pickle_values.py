"""What stands for a pickle's names while it is read, and the plain data made of it afterwards.

A file only describes arrays, scalars and sets; they are checked and made here, once it is read. What a file can name
are ``Maker`` objects, which it can call and not change, and what they make lives as long as the one reading. So no file
reaches numpy's own readers of state, and none leaves anything behind for the next one.
"""

from __future__ import annotations

import collections
import functools
import math
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from pcdet.utils.pickle_scan import (
    MAX_KEY_BYTES,
    MAX_KEY_TUPLE,
    MAX_TUPLE_KEYS,
    UnsafePickleError,
)

PLAIN_DTYPE = re.compile(r"(b1|[iu][1248]|f(2|4|8|16)|c(8|16|32)|[SU]\d{1,9}|O8?|\?)\Z")
MAX_DEPTH = 100  # of nested containers; deeper than any sane file, shallower than Python's stack
MAX_DIMENSIONS = 32
MAX_EMPTY_ROWS = 1 << 20  # of an array that has no columns, hence no bytes that would show its size
# No file leads to numpy's own arrays but by ``pickle_arrays``, which has checked them.
PLAIN_TYPES = frozenset({type(None), str, bytes, bytearray, bool, int, float, complex, np.ndarray})
KEY_SCALARS = (np.str_, np.bytes_, np.bool_, np.integer, np.float16, np.float32, np.float64)


class Budget:
    """How many bytes and entries the values may have that a file describes: in proportion to its size."""

    def __init__(self, size: int):
        self.left = 4 * size + 4096

    def grow(self, size: int) -> None:
        """The file is larger by ``size`` bytes than was known."""
        self.left += 4 * size

    def spend(self, amount: int) -> None:
        """Without it, a file could have one long text copied again and again."""
        self.left -= amount
        if self.left < 0:
            raise UnsafePickleError("it describes more data than it holds")


def brief(value: Any) -> str:
    """A value of a file for a message: a short text or number, otherwise its type."""
    if isinstance(value, (str, bytes)):
        return repr(value[:40])
    if isinstance(value, int) and value.bit_length() <= 64:
        return repr(value)
    return f"a {type(value).__name__}"


class Maker:
    """What a file gets for a name: to be called, and neither read nor changed."""

    __slots__ = ("_budget", "_make")

    def __init__(self, make: Callable, budget: Budget):
        self._make, self._budget = make, budget

    def __call__(self, *args: Any) -> Any:
        """What the file is given."""
        return self._make(self._budget, *args)

    def __setstate__(self, _: Any) -> None:
        raise UnsafePickleError("it changes what it names")


class Description:
    """What a file says of a value; ``resolve`` makes the value. Two descriptions are equal only if they are one."""

    __slots__ = ()

    def __setstate__(self, _: Any) -> None:
        raise UnsafePickleError("it changes a value that is complete")

    def resolve(self, resolver: Resolver) -> Any:
        """The value."""
        raise NotImplementedError


class Ready(Description):
    """A value that is complete, and becomes a key only when it has been checked."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def resolve(self, resolver: Resolver) -> Any:
        """The value."""
        return self.value


@functools.lru_cache(maxsize=256)
def _plain_dtype(spec: str, order: str) -> np.dtype:
    kind = spec.rstrip("8") if spec.startswith("O") else spec
    return np.dtype(kind if order in "|=" else order + kind)


@functools.lru_cache(maxsize=256)
def _is_plain(spec: str) -> bool:
    return PLAIN_DTYPE.match(spec) is not None


class DtypeDescription(Description):
    """Structured, subarray and exotic dtypes are refused."""

    __slots__ = ("made", "order", "spec")

    def __init__(self, _: Budget, spec: Any = None, align: Any = False, copy: Any = True):
        if not isinstance(spec, str) or not _is_plain(spec):
            raise UnsafePickleError(f"dtype {brief(spec)} is not a plain one")
        self.spec, self.order, self.made = spec, "=", None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise UnsafePickleError("a dtype has an unreadable description")
        if any(part is not None for part in state[2:5]):
            raise UnsafePickleError("a dtype has fields or a subarray; only plain ones are read")
        self.order = state[1]

    def resolve(self, resolver: Resolver) -> np.dtype:
        """The dtype."""
        if self.made is None:
            self.made = _plain_dtype(self.spec, self.order)
        return self.made


class ArrayDescription(Description):
    """Shape, dtype and bytes of an array, which a file may give after it has named the array.

    Once resolved, it holds the array in their place: with a million of them, both together would take twice the memory.
    """

    __slots__ = ("made", "state")

    def __init__(self, state: tuple | None = None):
        self.state = state
        self.made: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise UnsafePickleError("an array has an unreadable description")
        _, shape, dtype, fortran, data = state
        self.state = (shape, dtype, "F" if fortran else "C", data)

    def resolve(self, resolver: Resolver) -> np.ndarray:
        """The array, in memory of its own."""
        if self.made is None:
            self.made = self._make(resolver)
            self.state = None
        return self.made

    def _make(self, resolver: Resolver) -> np.ndarray:
        if self.state is None:
            raise UnsafePickleError("an array has no content")
        shape, dtype, order, data = self.state
        shape = (shape,) if isinstance(shape, int) else shape
        count = element_count(shape)
        if not isinstance(dtype, DtypeDescription):
            raise UnsafePickleError("an array has no dtype")
        dtype = dtype.resolve(resolver)
        if dtype.hasobject:
            return self._object_array(data, shape, order, count, resolver)
        data = data.encode("latin1") if isinstance(data, str) else data  # written by Python 2
        if not isinstance(data, (bytes, bytearray)) or len(data) != count * dtype.itemsize or not dtype.itemsize:
            raise UnsafePickleError(f"an array of {count} values of {dtype} has the wrong amount of data")
        resolver.budget.spend(len(data))
        return np.ndarray(shape, dtype, data, order=order).copy(order="K")

    @staticmethod
    def _object_array(data: Any, shape: tuple, order: str, count: int, resolver: Resolver) -> np.ndarray:
        if not isinstance(data, list) or len(data) != count:
            raise UnsafePickleError("an array of objects has the wrong number of them")
        resolver.budget.spend(count)
        array = np.empty(count, dtype=object)
        for i, item in enumerate(data):
            array[i] = resolver(item)
        return array.reshape(shape, order=order)


def element_count(shape: Any) -> int:
    """How many values an array or tensor of this shape has.

    Raises:
        UnsafePickleError: it is no tuple of a few sizes, or announces rows although it has no values.
    """
    if type(shape) is tuple and len(shape) == 2:  # nearly always
        rows, columns = shape
        if type(rows) is int and type(columns) is int and 0 < rows < 1 << 63 and 0 < columns < 1 << 63:
            return rows * columns
    if not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS:
        raise UnsafePickleError(f"a shape must be at most {MAX_DIMENSIONS} sizes, got {brief(shape)}")
    if not all(type(n) is int and 0 <= n < 1 << 63 for n in shape):
        raise UnsafePickleError(f"the sizes of a shape must be integers from 0, got {', '.join(map(brief, shape))}")
    count = math.prod(shape)
    if count == 0 and math.prod(n for n in shape if n) > MAX_EMPTY_ROWS:
        raise UnsafePickleError(f"the shape {shape} announces rows without values")
    return count


class ScalarDescription(Description):
    """Dtype and bytes of a numpy scalar."""

    __slots__ = ("data", "dtype")

    def __init__(self, _: Budget, dtype: Any, data: Any = b""):
        if not isinstance(dtype, DtypeDescription):
            raise UnsafePickleError("a numpy scalar has no dtype")
        self.dtype, self.data = dtype, data

    def resolve(self, resolver: Resolver) -> np.generic:
        """The scalar."""
        dtype = self.dtype.resolve(resolver)
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
        if dtype.hasobject or not isinstance(data, bytes) or len(data) != dtype.itemsize:
            raise UnsafePickleError(f"a numpy scalar of dtype {dtype} has the wrong data")
        resolver.budget.spend(len(data))
        return np.frombuffer(data, dtype=dtype)[0] if dtype.itemsize else dtype.type()


class SetDescription(Description):
    """The elements of a set, which are hashed only when they have been checked."""

    __slots__ = ("items", "kind")

    def __init__(self, kind: type, items: Any):
        if not isinstance(items, (list, tuple, set, frozenset)):
            raise UnsafePickleError("a set is made in an unknown way")
        self.kind, self.items = kind, items

    def resolve(self, resolver: Resolver) -> set | frozenset:
        """The set."""
        resolver.budget.spend(len(self.items))
        return self.kind(resolver.key(item) for item in self.items)


class EncodedBytes(bytes):
    """Bytes made from a text. No key until they have been checked."""

    __slots__ = ()
    __hash__ = None


def _array(_: Budget, subtype: Any, shape: Any = None, typecode: Any = None) -> ArrayDescription:
    return ArrayDescription()


def _array_from_buffer(
    _: Budget, data: Any, dtype: Any, shape: Any, order: Any = "C", axis_order: Any = None
) -> ArrayDescription:
    data = bytes(data) if isinstance(data, pickle.PickleBuffer) else data
    if axis_order is not None or order not in ("C", "F"):
        raise UnsafePickleError("an array has an unknown memory layout")
    return ArrayDescription((shape, dtype, order, data))


def _array_class(_: Budget, *__: Any) -> None:
    raise UnsafePickleError("an array is made in an unknown way")  # files name the class and never call it


def _encode(budget: Budget, text: Any, encoding: Any = "latin1") -> EncodedBytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8"):
        raise UnsafePickleError("bytes in an unknown encoding")
    budget.spend(len(text))
    return EncodedBytes(text.encode(encoding))


def _bytes(_: Budget, *contents: Any) -> bytes:
    if contents:  # protocols 0 to 2 name the class for empty bytes only; bytes(10**12) would take all memory
        raise UnsafePickleError("bytes are made in an unknown way")
    return b""


def _bytearray(budget: Budget, content: Any = b"", encoding: Any = None) -> bytearray:
    if not isinstance(content, bytes):
        content = _encode(budget, content, encoding or "latin1")
    budget.spend(len(content))
    return bytearray(content)


def _complex(_: Budget, real: Any = 0.0, imaginary: Any = 0.0) -> Ready:
    if not isinstance(real, (int, float)) or not isinstance(imaginary, (int, float)):
        raise UnsafePickleError("a complex number is made in an unknown way")
    return Ready(complex(real, imaginary))


def _ordered(budget: Budget, pairs: Any = ()) -> collections.OrderedDict:
    if not isinstance(pairs, (list, tuple)) or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
        raise UnsafePickleError("an OrderedDict is made in an unknown way")
    budget.spend(len(pairs))
    return collections.OrderedDict((check_key(key), value) for key, value in pairs)


def _set(_: Budget, items: Any = ()) -> SetDescription:
    return SetDescription(set, items)


def _frozenset(_: Budget, items: Any = ()) -> SetDescription:
    return SetDescription(frozenset, items)


Names = Mapping[tuple[str, str], Callable | Description]
_CORES = ("numpy.core", "numpy._core")
_BUILTINS = {"set": _set, "frozenset": _frozenset, "complex": _complex, "bytes": _bytes, "bytearray": _bytearray}
PLAIN_NAMES: Names = {
    ("numpy", "ndarray"): _array_class,
    ("numpy", "dtype"): DtypeDescription,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _ordered,
    **{(f"{core}.multiarray", "_reconstruct"): _array for core in _CORES},
    **{(f"{core}.multiarray", "scalar"): ScalarDescription for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): _array_from_buffer for core in _CORES},
    **{(module, name): make for module in ("builtins", "__builtin__") for name, make in _BUILTINS.items()},
}


def check_key(key: Any, *, within_tuple: bool = False) -> Any:
    """``key``, if it is a short text, a number or a tuple of a few such; an error otherwise, before it is hashed."""
    if key is None or isinstance(key, (bool, float, np.bool_, np.integer, np.float16, np.float32)):
        return key
    if isinstance(key, (str, bytes)) and len(key) <= MAX_KEY_BYTES and type(key) is not EncodedBytes:
        return key
    if isinstance(key, int) and key.bit_length() <= 64:
        return key
    if type(key) is tuple and not within_tuple and len(key) <= MAX_KEY_TUPLE:
        return tuple(check_key(item, within_tuple=True) for item in key)
    raise UnsafePickleError(
        f"a key or an element of a set must be a number, a text of at most {MAX_KEY_BYTES} bytes or a tuple of at most "
        f"{MAX_KEY_TUPLE} such, got {brief(key)}"
    )


class Resolver:
    """Turns what was read of a file into plain data; what is shared stays shared.

    Args:
        budget: of the reading.
        attributes: of ordered dictionaries, those that are kept.
    """

    def __init__(self, budget: Budget, attributes: Iterable[str] = ()):
        self.budget, self.attributes = budget, tuple(attributes)
        self.done: dict[int, Any] = {}
        self.depth = 0
        self.tuple_keys = 0

    def __call__(self, value: Any) -> Any:
        """The plain data in a tree of containers and descriptions."""
        kind = type(value)
        if kind in PLAIN_TYPES:
            return value
        is_array = kind is ArrayDescription  # which keeps its array itself
        done = value.made if is_array else self.done.get(id(value))
        if done is None:
            if self.depth > MAX_DEPTH:
                raise UnsafePickleError(f"containers are nested deeper than {MAX_DEPTH}, or contain themselves")
            self.depth += 1
            done = value.resolve(self) if is_array else self._convert(value)
            self.depth -= 1
            if not is_array:
                self.done[id(value)] = done
        return done

    def key(self, value: Any) -> Any:
        """A key or an element of a set."""
        if type(value) is str and len(value) <= MAX_KEY_BYTES:
            return value
        key = check_key(self(value))
        self.tuple_keys += type(key) is tuple
        if self.tuple_keys > MAX_TUPLE_KEYS:
            raise UnsafePickleError(f"more than {MAX_TUPLE_KEYS} keys are tuples")
        return key

    def _convert(self, value: Any) -> Any:
        kind = type(value)
        if kind is dict:  # most of what containers hold needs no call
            return {self.key(key): item if type(item) in PLAIN_TYPES else self(item) for key, item in value.items()}
        if kind is list:
            return [item if type(item) in PLAIN_TYPES else self(item) for item in value]
        if isinstance(value, Description):
            return value.resolve(self)
        if kind is tuple:
            return tuple(item if type(item) in PLAIN_TYPES else self(item) for item in value)
        if kind in (set, frozenset):
            return kind(self.key(item) for item in value)
        if kind is collections.OrderedDict:  # the file may have hidden the methods of this one
            made = kind((self.key(key), self(item)) for key, item in kind.items(value))
            for name in self.attributes:
                if name in vars(value):
                    setattr(made, name, self(vars(value)[name]))
            return made
        if kind is EncodedBytes:
            self.budget.spend(len(value))
            return bytes(value)
        raise UnsafePickleError(f"it holds {brief(value)}; only plain data is read")
