"""Tensors of the host on a device, without a wait: the host goes on while the copy is queued behind the GPU's work."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def upload(value: Tensor, device: torch.device | str) -> Tensor:
    """A CPU tensor on ``device``; itself where that is the CPU.

    The copy goes through pinned memory, from which alone a GPU copies while the host goes on.
    """
    device = torch.device(device)
    if device.type in ("cpu", "meta") or value.device.type != "cpu" or torch.compiler.is_compiling():
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)


def constant(values: Sequence, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """A small tensor of Python numbers on ``device``; ``torch.tensor(values, device=...)`` would wait for the GPU."""
    return upload(torch.tensor(values, dtype=dtype), device)


def sizes_of_frames(frame: Tensor, frames: int) -> list[int]:
    """(N,) the frame of each row, ascending -> the rows of each frame; one wait, where ``bincount`` makes two."""
    ends = torch.searchsorted(frame.contiguous(), torch.arange(frames + 1, device=frame.device, dtype=frame.dtype))
    return ends.diff().tolist()
