"""Tensors between host and device with as few waits as can be, however many frames or sets a batch has.

Uploads make none: the host goes on while the copy is queued behind the GPU's work.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

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


def rows_where(masks: Sequence[Tensor]) -> list[Tensor]:
    """The rows at which each mask (N_i,) holds, ascending; two waits, however many masks there are."""
    if not masks:
        return []
    rows = torch.cat(list(masks)).nonzero().squeeze(1)
    starts = list(itertools.accumulate(map(len, masks), initial=0))
    ends = torch.searchsorted(rows, constant(starts, rows.device)).tolist()
    return [rows[a:b] - start for start, (a, b) in zip(starts, itertools.pairwise(ends), strict=False)]


def on_host(frames: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tensors of each frame on the CPU; one wait for each key, however many frames there are.

    Args:
        frames: with the same keys. The tensors of a key agree in all dimensions but the first; what is not such a
            tensor stays as it is.
    """
    results = [dict(frame) for frame in frames]
    for key in frames[0] if frames else ():
        values = [frame[key] for frame in frames]
        if all(isinstance(value, Tensor) and value.dim() for value in values):
            parts = torch.cat(values).cpu().split(list(map(len, values)))
            for result, part in zip(results, parts, strict=True):
                result[key] = part
    return results
