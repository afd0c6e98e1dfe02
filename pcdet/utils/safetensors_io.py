"""Weights as safetensors files: tensors and a few lines of text, which cannot hold code.

Every reader of checkpoints takes them too. They have no optimizer state, so no training goes on from one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pcdet.utils.safe_files import WriteError, replacing

SUFFIX = ".safetensors"
NUMBERS = ("epoch", "it")  # entries that a checkpoint holds as numbers; safetensors' metadata is text


def write_safetensors(path: str | os.PathLike, weights: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> Path:
    """Writes weights, to the bit, with their SHA-256 beside them.

    Args:
        path: the file; its name must end in ``.safetensors``.
        weights: name -> tensor, of any layout in memory; one that appears under two names is stored twice.
        facts: stored as text (``version``, ``epoch``, ``it``, ``config``); None is left out.

    Raises:
        ValueError: another ending.
        WriteError: the disk is full, or the folder cannot be written to.
    """
    from safetensors.torch import save  # here, so that all else works where the package is missing

    path = Path(path)
    if path.suffix != SUFFIX:
        raise ValueError(f"{path} must end in {SUFFIX}: readers go by it")
    # the format has neither shared nor strided tensors
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in weights.items()
    }
    metadata = {"format": "pt", **{name: str(value) for name, value in facts.items() if value is not None}}
    content = save(tensors, metadata=metadata)
    try:
        with replacing(path, checksum=True) as stream:
            stream.write(content)
    except WriteError:  # it is in place, but its sum is not
        raise
    except OSError as error:
        raise WriteError(
            f"{path} cannot be written: {error.strerror or error}; make room or choose another folder"
        ) from error
    return path


def read_safetensors(path: str | os.PathLike, device: str | torch.device = "cpu") -> dict[str, Any]:
    """A file's weights as ``model_state``, with its metadata beside it, in the form of a checkpoint.

    ``read_checkpoint`` reads every kind of checkpoint, checks its sum and names it in the error.

    Raises:
        ValueError: the file is damaged, or is no safetensors file.
        OSError: it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            state: dict[str, Any] = dict(file.metadata() or {})
            weights = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    for name in NUMBERS:
        if str(state.get(name, "")).isdecimal():
            state[name] = int(state[name])
    return {**state, "model_state": weights}
