"""The one import of spconv (sparse convolutions), corrected for the CPU when it is first used.

What is wrong with spconv 2.3 on a CPU, and is put right here for CPU tensors only:

- its gather and scatter loops race as soon as OpenMP has more than one thread, so that outputs and gradients vary;
- its backward pass asks for the current CUDA stream, which a machine without CUDA does not have;
- a bias is refused in evaluation, and so is a tensor without rows;
- its matrix products follow autocast, while the buffers that they write into do not; float16 goes through numpy;
- its CUDA builds choose an algorithm for each layer that has no CPU form.

Everything that computes, but for convolutions of a single cell, goes through a few functions of
``spconv.pytorch.ops``, looked up there at each call, forward and backward. These are wrapped, and the layers'
``forward``; CUDA tensors reach the originals untouched.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

LOW_PRECISION = (torch.float16, torch.bfloat16)
PATCHED = "_pcdet_cpu_original"  # on a wrapped function: what it replaces


def __getattr__(name: str) -> Any:
    """``spconv``: OpenPCDet's modules take it from here; looking it up imports it."""
    if name == "spconv":
        return load_spconv()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def load_spconv() -> ModuleType:
    """``spconv.pytorch``, corrected for the CPU.

    Raises:
        ImportError: it is not installed, or does not load; the message says what to install.
    """
    try:
        import spconv.pytorch as spconv
    except (ImportError, OSError) as error:
        raise ImportError(
            f"this model has sparse convolutions and needs spconv, which does not load ({error}); install "
            "spconv==2.3.8 for a CPU, or the build for your CUDA that docs/INSTALL.md names"
        ) from error
    # In every process torch advises whoever calls is_fx_tracing, which is spconv, to call something else.
    logging.getLogger("torch.fx._symbolic_trace").addFilter(lambda record: "is_fx_tracing" not in record.getMessage())
    _correct_cpu(spconv.ops)
    _correct_forward(spconv.conv.SparseConvolution, spconv.ops.ConvAlgo.Native)
    return spconv


def replace_feature(tensor: Any, features: Tensor) -> Any:
    """A sparse tensor with other ``features`` (N, C) at the same places."""
    return tensor.replace_feature(features)


def find_all_spconv_keys(model: nn.Module, prefix: str = "") -> set[str]:
    """Names of the weights of all sparse convolutions in ``model``; does not import spconv."""
    return {
        f"{prefix}{'.' if prefix else ''}{name}{'.' if name else ''}weight"
        for name, module in model.named_modules()
        if is_sparse_convolution(module)
    }


def is_sparse_convolution(module: nn.Module) -> bool:
    """Whether it is one of spconv's layers with a weight; does not import spconv."""
    return type(module).__module__.split(".")[0] == "spconv" and isinstance(getattr(module, "weight", None), Tensor)


# --------------------------------------------------------------------------------------------- the CPU's corrections

_state = threading.local()


def _correct_cpu(ops: ModuleType) -> None:
    """Wraps the functions of ``spconv.pytorch.ops`` that work on the CPU; a second call finds nothing to do."""
    one_thread = _thread_limit()
    wrappers = {
        "get_indice_pairs": _on_cpu,
        "indice_maxpool": _on_cpu,
        "indice_maxpool_backward": _on_cpu,
        "indice_conv": _convolve_on_cpu,
        "indice_conv_backward": _convolve_backward_on_cpu,
        "get_current_stream": _no_stream_on_cpu,
    }
    for name, wrap in wrappers.items():
        original = getattr(ops, name)
        if not hasattr(original, PATCHED):
            _replace(ops, name, wrap(original, one_thread))


def _replace(owner: Any, name: str, wrapper: Callable) -> None:
    original = getattr(owner, name)
    functools.update_wrapper(wrapper, original)
    setattr(wrapper, PATCHED, original)
    setattr(owner, name, wrapper)


def _correct_forward(layer: type, native: Any) -> None:
    """Lets a convolution take the one algorithm that has a CPU form, and one of a single cell compute in float32."""
    original = layer.forward
    if hasattr(original, PATCHED):
        return

    def forward(self: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
        if input.features.is_cuda:
            return original(self, input, *args, **kwargs)
        if self.conv1x1:  # a matrix product in the layer itself
            with torch.autocast("cpu", enabled=False):
                same_type = input.replace_feature(input.features.to(self.weight.dtype))
                out = original(self, same_type, *args, **kwargs)
            return out.replace_feature(out.features.to(input.features.dtype))
        if self.algo == native:
            return original(self, input, *args, **kwargs)
        chosen, self.algo = self.algo, native
        try:
            return original(self, input, *args, **kwargs)
        finally:
            self.algo = chosen

    _replace(layer, "forward", forward)


def _no_stream_on_cpu(original: Callable, _: Callable) -> Callable:
    return lambda: 0 if getattr(_state, "on_cpu", False) else original()


def _on_cpu(original: Callable, one_thread: Callable) -> Callable:
    """``original`` in one thread where its first argument, a tensor, is on the CPU."""

    def wrapper(first: Tensor, *args: Any, **kwargs: Any) -> Any:
        if first.is_cuda:
            return original(first, *args, **kwargs)
        with _cpu(one_thread):
            return original(first, *args, **kwargs)

    return wrapper


def _convolve_on_cpu(original: Callable, one_thread: Callable) -> Callable:
    def wrapper(
        features: Tensor,
        filters: Tensor,
        pairs: Tensor,
        pair_num: Tensor,
        num_out: int,
        *args: Any,
        bias: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        if features.is_cuda:
            return original(features, filters, pairs, pair_num, num_out, *args, bias=bias, **kwargs)
        if not len(features):
            return features.new_zeros(num_out, len(filters))
        with _cpu(one_thread):
            out = original(_float32(features), _float32(filters), pairs, pair_num, num_out, *args, **kwargs)
        if bias is not None:
            out += bias
        return out.to(features.dtype)

    return wrapper


def _convolve_backward_on_cpu(original: Callable, one_thread: Callable) -> Callable:
    def wrapper(features: Tensor, filters: Tensor, out_bp: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if features.is_cuda:
            return original(features, filters, out_bp, *args, **kwargs)
        if not len(features):
            return torch.zeros_like(features), torch.zeros_like(filters)
        with _cpu(one_thread):
            din, dfilters = original(_float32(features), _float32(filters), _float32(out_bp), *args, **kwargs)
        return din.to(features.dtype), dfilters.to(filters.dtype)

    return wrapper


def _float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in LOW_PRECISION else x


@contextlib.contextmanager
def _cpu(one_thread: Callable) -> Iterator[None]:
    """Context for spconv at work on CPU tensors: one OpenMP thread, no autocast, no CUDA stream."""
    _state.on_cpu = True
    try:
        with one_thread(), torch.autocast("cpu", enabled=False):
            yield
    finally:
        _state.on_cpu = False


def _thread_limit() -> Callable[[], contextlib.AbstractContextManager]:
    """Context manager that gives OpenMP one thread in spconv's calls from this thread.

    spconv brings its own OpenMP, but the loader binds its calls to whichever is in the process's global scope first,
    and that is torch's. So both are limited: what spconv's library links to, and what the global scope offers. The
    setting belongs to the calling thread, hence it is made around each call (autograd may call from another thread),
    and costs about a microsecond.
    """
    import spconv.core_cc

    found = {}
    for path in (None, spconv.core_cc.__file__):
        library = ctypes.CDLL(path)
        if hasattr(library, "omp_set_num_threads"):
            address = ctypes.cast(library.omp_set_num_threads, ctypes.c_void_p).value
            found[address] = (library.omp_get_max_threads, library.omp_set_num_threads)
    pools = list(found.values())

    @contextlib.contextmanager
    def one_thread() -> Iterator[None]:
        torch.get_num_threads()  # torch sets a thread's number when it first needs it: not in the midst of this
        before = [get() for get, _ in pools]
        for _, set_ in pools:
            set_(1)
        try:
            yield
        finally:
            for (_, set_), number in zip(pools, before, strict=True):
                set_(number)

    return one_thread
