"""Reads checkpoint files without running code from them, OpenPCDet's with numpy scalars included."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from pcdet.utils.checkpoint_containers import read_legacy, read_zip
from pcdet.utils.safe_files import DamagedFileError, verify
from pcdet.utils.safe_pickle import DAMAGE
from pcdet.utils.safetensors_io import SUFFIX, read_safetensors


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or does not fit what it is loaded into; the message names the file."""


def read_checkpoint(path: str | os.PathLike, map_location: str | torch.device = "cpu") -> dict:
    """The dictionary in a checkpoint file, as ``torch.load(weights_only=True)`` gives it, and numpy's values besides.

    Tensors are strided ones of plain types. The sums in the archive are checked, and ``NAME.sha256`` where there is
    one. Time and memory are in proportion to the file's size, whatever it says.

    Args:
        path: a file of ``torch.save``, of any version since 1.0, or one whose name ends in ``.safetensors``.
        map_location: where its tensors go.

    Raises:
        FileNotFoundError: where there is no such file.
        CheckpointError: where the file is damaged, holds other things, or is not a dictionary.
    """
    path, device = Path(path), torch.device(map_location)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    try:
        verify(path)
        state = _reader_of(path)(path, device)
    except DamagedFileError as error:
        raise CheckpointError(f"checkpoint {error}") from None
    except FileNotFoundError:  # deleted meanwhile
        raise
    except (*DAMAGE, NotImplementedError, OSError, struct.error, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"checkpoint {path} ({path.stat().st_size} bytes) cannot be read: "
            f"{reason[0] if reason else type(error).__name__}; use another copy, or save it again"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"checkpoint {path} must hold a dictionary, got {type(state).__name__}")
    return state


def _reader_of(path: Path) -> Callable[[Path, torch.device], object]:
    """What reads a file: by its ending for safetensors, by its first bytes for the two forms of ``torch.save``."""
    if path.suffix == SUFFIX:
        return read_safetensors
    return read_zip if zipfile.is_zipfile(path) else read_legacy
