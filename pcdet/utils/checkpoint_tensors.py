"""Tensors as checkpoint files describe them: strided views of storages of plain types, checked before they are made."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import torch

from pcdet.utils.pickle_scan import UnsafePickleError
from pcdet.utils.pickle_values import (
    PLAIN_NAMES,
    Budget,
    Description,
    Names,
    Ready,
    Resolver,
    brief,
    element_count,
)
from pcdet.utils.safe_pickle import describe_pickle

STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Storage(Description):
    """Memory that tensors share. Its content is set once it is read, as a flat tensor of its dtype."""

    __slots__ = ("content", "count", "dtype")

    def __init__(self, dtype: torch.dtype, count: int):
        self.dtype, self.count = dtype, count
        self.content: torch.Tensor | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return self.count * self.dtype.itemsize

    def fill(self, content: torch.Tensor, device: torch.device) -> None:
        """Takes bytes, (size,) uint8, as its content."""
        if content.numel() != self.size:
            raise UnsafePickleError(f"a storage has {content.numel()} bytes, {self.count} {self.dtype} were announced")
        self.content = content.to(device).view(self.dtype)

    def resolve(self, resolver: Resolver) -> None:
        """Refuses what refers to a storage without a tensor."""
        raise UnsafePickleError("it holds a storage without a tensor; save tensors")


class StorageSet:
    """The storages that a pickle refers to, by key."""

    def __init__(self):
        self.by_key: dict[str, Storage] = {}

    def refer(self, pid: Any) -> Storage:
        """The storage of a reference ``("storage", type, key, location, count)``; older files add a None.

        Raises:
            UnsafePickleError: it is no such reference, or differs from an earlier one to the same storage.
        """
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage" or pid[5:] not in ((), (None,)):
            raise UnsafePickleError("it refers to something other than a storage")
        _, kind, key, _, count = pid[:5]
        if not isinstance(kind, Ready) or not isinstance(kind.value, torch.dtype):
            raise UnsafePickleError("a storage has no type")
        if not isinstance(key, str) or len(key) > 80 or type(count) is not int or not 0 <= count < 1 << 48:
            raise UnsafePickleError(f"the storage {brief(key)} has the size {brief(count)}")
        storage = self.by_key.setdefault(key, Storage(kind.value, count))
        if (storage.dtype, storage.count) != (kind.value, count):
            raise UnsafePickleError(f"the storage {key} is described in two ways")
        return storage


class TensorDescription(Description):
    """Where in a storage a tensor lies."""

    __slots__ = ("offset", "requires_grad", "shape", "storage", "stride")

    def __init__(self, _: Budget, storage: Any, offset: Any, shape: Any, stride: Any, requires_grad: Any = False, *__):
        if not isinstance(storage, Storage):
            raise UnsafePickleError("a tensor has no storage")
        if not isinstance(stride, tuple) or not all(type(n) is int and 0 <= n < 1 << 48 for n in (offset, *stride)):
            raise UnsafePickleError("the offset and strides of a tensor must be integers from 0")
        count = element_count(shape)
        if len(shape) != len(stride):
            raise UnsafePickleError(f"a tensor has the shape {shape} and the strides {stride}")
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if count > storage.count or offset > storage.count or (count and last >= storage.count):
            raise UnsafePickleError(
                f"a tensor of shape {shape}, strides {stride} and offset {offset} lies beyond its storage of "
                f"{storage.count} values"
            )
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride
        self.requires_grad = requires_grad is True and storage.dtype.is_floating_point

    def resolve(self, resolver: Resolver) -> torch.Tensor:
        """The tensor, which shares its storage's memory."""
        content = self.storage.content
        tensor = content.new_empty(0).set_(content.untyped_storage(), self.offset, self.shape, self.stride)
        return tensor.requires_grad_(self.requires_grad)


class ParameterDescription(Description):
    """A tensor that is an ``nn.Parameter``."""

    __slots__ = ("requires_grad", "tensor")

    def __init__(self, _: Budget, tensor: Any, requires_grad: Any = True, *__: Any):
        if not isinstance(tensor, TensorDescription):
            raise UnsafePickleError("a parameter has no tensor")
        self.tensor, self.requires_grad = tensor, requires_grad is True and tensor.storage.dtype.is_floating_point

    def resolve(self, resolver: Resolver) -> torch.nn.Parameter:
        """The parameter."""
        return torch.nn.Parameter(resolver(self.tensor), requires_grad=self.requires_grad)


class CounterDescription(Description):
    """A ``collections.Counter``, such as the milestones of a scheduler."""

    __slots__ = ("counts",)

    def __init__(self, _: Budget, counts: Any = None):
        if not isinstance(counts, (dict, type(None))):
            raise UnsafePickleError("a Counter is made in an unknown way")
        self.counts = counts or {}

    def resolve(self, resolver: Resolver) -> collections.Counter:
        """The counter."""
        return collections.Counter(resolver(self.counts))


def _size(_: Budget, sizes: Any = ()) -> Ready:
    element_count(sizes)
    return Ready(torch.Size(sizes))


def _device(_: Budget, kind: Any, index: Any = None) -> Ready:
    if not isinstance(kind, str) or type(index) not in (int, type(None)):
        raise UnsafePickleError("a device is made in an unknown way")
    try:
        return Ready(torch.device(kind) if index is None else torch.device(kind, index))
    except RuntimeError:
        raise UnsafePickleError(f"it names the device {brief(kind)}, which there is not") from None


def _dtype_names() -> dict[tuple[str, str], Description]:
    dtypes = {str(dtype).removeprefix("torch."): dtype for dtype in STORAGE_DTYPES.values()}
    return {("torch", name): Ready(dtype) for name, dtype in {**dtypes, **STORAGE_DTYPES}.items()}


CHECKPOINT_NAMES: Names = {
    **PLAIN_NAMES,
    **_dtype_names(),
    ("torch._utils", "_rebuild_tensor"): TensorDescription,
    ("torch._utils", "_rebuild_tensor_v2"): TensorDescription,
    ("torch._utils", "_rebuild_parameter"): ParameterDescription,
    ("torch", "Size"): _size,
    ("torch", "device"): _device,
    ("collections", "Counter"): CounterDescription,
}


def read_tree(data: bytes, start: int, fill: Callable[[StorageSet, int], None]) -> Any:
    """The content of a checkpoint's pickle.

    Args:
        data: the pickle, and whatever follows it.
        start: its first byte.
        fill: called with the storages that the pickle refers to and the pickle's end; sets their content.

    Raises:
        UnsafePickleError: it names what no detector's checkpoint holds, or describes what it does not hold.
    """
    storages = StorageSet()
    described, budget, end = describe_pickle(data, start, CHECKPOINT_NAMES, storages.refer)
    fill(storages, end)
    return Resolver(budget, ("_metadata",))(described)
