"""The device that is measured: the one place that knows what differs between a CPU, a GPU and the emulated GPU."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

NAMES = ("cpu", "cuda", "emulated")
EMULATOR = "PCDET_CUDA_EMULATOR"  # environment variable: the emulator's library
EMULATOR_FOLDER = Path(__file__).resolve().parents[1] / "dev/cuda_emulator"


class Device:
    """Waits, marks in time and peaks of memory on one device.

    Args:
        name: cpu, cuda or emulated (the CUDA sources on this machine's processor; the environment names its library).

    Attributes:
        torch: the device as PyTorch knows it.

    Raises:
        ValueError: another name, no GPU, or no library of the emulator.
    """

    def __init__(self, name: str):
        if name not in NAMES:
            raise ValueError(f"device must be one of {', '.join(NAMES)}, got {name!r}")
        if name == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device cuda was asked for, but torch {torch.__version__} finds no GPU; use cpu")
        if name == "emulated":
            _load_emulator()
        self.is_cuda = name == "cuda"
        self.torch = torch.device(name) if name == "cpu" else torch.device(name, 0)

    @property
    def card(self) -> str:
        """The GPU's name; the device's own where there is none."""
        return torch.cuda.get_device_name(self.torch) if self.is_cuda else self.torch.type

    def wait(self) -> None:
        """Until everything that was started has ended. The other devices have ended it when a call returns."""
        if self.is_cuda:
            torch.cuda.synchronize(self.torch)

    def mark(self) -> Any:
        """This moment in the device's work, for ``ms_between``."""
        if not self.is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def ms_between(self, first: Any, second: Any) -> float:
        """Milliseconds from one mark to a later one; ``wait`` comes before."""
        return first.elapsed_time(second) if self.is_cuda else (second - first) * 1e3

    def allocated(self) -> int | None:
        """Bytes of the tensors that now live on a GPU; None elsewhere."""
        return torch.cuda.memory_allocated(self.torch) if self.is_cuda else None

    def forget_peak(self) -> None:
        """Lets ``peak`` begin anew."""
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats(self.torch)

    def peak(self) -> int | None:
        """Most bytes of tensors on a GPU at any one time; None elsewhere."""
        return torch.cuda.max_memory_allocated(self.torch) if self.is_cuda else None


def _load_emulator() -> None:
    """Loads the library that the environment names, which registers the device."""
    library = os.environ.get(EMULATOR)
    if not library:
        raise ValueError(
            f"device emulated needs the emulator's library: set {EMULATOR} to its path; make cuda-emulated builds it"
        )
    sys.path.insert(0, str(EMULATOR_FOLDER))
    import emulated_device

    emulated_device.load(library)
