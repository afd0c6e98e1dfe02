"""Reads checkpoint files without running code from them, OpenPCDet's with numpy scalars included."""

from __future__ import annotations

import _codecs
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

try:  # numpy 2 moved the module; files name the one of the numpy that wrote them
    from numpy._core.multiarray import _reconstruct, scalar
except ImportError:
    from numpy.core.multiarray import _reconstruct, scalar


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or does not fit what it is loaded into; the message names the file."""


def read_checkpoint(path: str | os.PathLike, map_location: str | torch.device = "cpu") -> dict:
    """The dictionary in a checkpoint file; only tensors, containers, numbers, strings and numpy scalars are accepted.

    Raises:
        FileNotFoundError: where there is no such file.
        CheckpointError: where the file is damaged, holds other things, or is not a dictionary.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    if path.suffix == ".safetensors":
        return _read_safetensors(path, map_location)
    try:
        with torch.serialization.safe_globals(_numpy_globals()):
            state = torch.load(path, map_location=map_location, weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"checkpoint {path} ({path.stat().st_size} bytes) cannot be read: {reason[0] if reason else error!r}"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"checkpoint {path} must hold a dictionary, got {type(state).__name__}")
    return state


def _read_safetensors(path: Path, map_location: str | torch.device) -> dict:
    from pcdet.utils.safetensors_io import read_safetensors  # which needs CheckpointError from here

    return read_safetensors(path, map_location)


def _numpy_globals() -> list:
    """What numpy scalars and arrays are made of, under the names of numpy 1 and numpy 2."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some dtype classes are deprecated
        dtypes = [cls for cls in vars(np.dtypes).values() if isinstance(cls, type) and issubclass(cls, np.dtype)]
    renamed = [
        (function, f"numpy.{core}.multiarray.{function.__name__}")
        for function in (scalar, _reconstruct)
        for core in ("core", "_core")
    ]
    return [np.dtype, np.ndarray, _codecs.encode, *dtypes, *renamed]
