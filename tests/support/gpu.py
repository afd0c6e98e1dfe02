"""The device on which tests marked ``gpu`` run."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

EMULATOR = Path(__file__).resolve().parents[2] / "tools" / "dev" / "cuda_emulator"


@cache
def gpu_or_none() -> torch.device | None:
    """The emulated device if PCDET_CUDA_EMULATOR names its library, else a CUDA card, else None.

    Raises:
        FileNotFoundError: the variable names no file; ``make cuda-emulated`` builds it.
    """
    library = os.environ.get("PCDET_CUDA_EMULATOR")
    if library:
        sys.path.insert(0, str(EMULATOR))
        import emulated_device

        return emulated_device.load(Path(library))
    return torch.device("cuda", 0) if torch.cuda.is_available() else None


def skip_where_spconv_cannot_run(device: torch.device) -> None:
    """Skips a test of a sparse backbone on the emulated device: spconv launches kernels of its own, past PyTorch."""
    if device.type not in ("cpu", "cuda"):
        pytest.skip(f"spconv runs on no device of type {device.type}")
