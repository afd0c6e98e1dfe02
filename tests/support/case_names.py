"""Names of parametrised cases whose values pytest would number: mappings, lists, tensors, functions."""

from __future__ import annotations

import numpy as np
import torch

LONGEST = 60
ANONYMOUS = "<lambda>"
ARRAYS = (np.ndarray, torch.Tensor)
OF_TORCH = (torch.dtype, torch.device, torch.memory_format)


def name_of(value: object) -> str | None:
    """A short name of a value; None where pytest's own serves, as for numbers and text, or where there is none.

    Every process must find the same name: numbers of a tensor, which may be drawn, and addresses are left out.
    """
    if isinstance(value, (dict, list, tuple, *ARRAYS, *OF_TORCH)):
        return _in_words(value)[:LONGEST] or "empty"
    if callable(value) and getattr(value, "__name__", ANONYMOUS) != ANONYMOUS:
        return value.__name__
    return None


def _in_words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_in_words(entry)}" for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(_in_words, value))
    if isinstance(value, ARRAYS):
        return f"{type(value).__name__} {list(value.shape)} {value.dtype}"
    if isinstance(value, (str, bytes, int, float, bool, type(None), *OF_TORCH)):
        return " ".join(str(value)[:LONGEST].split())
    return getattr(value, "__name__", type(value).__name__)
