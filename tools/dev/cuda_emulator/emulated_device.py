"""The device ``emulated`` for PyTorch: CUDA's behaviour on the CPU's memory, with pcdet's CUDA kernels emulated.

``load(library)`` registers it; ``torch.device("emulated", 0)`` is then a device like any other. ``waits()`` records
what makes a real card's host stop, with the line of Python that asked for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from device_module import NAME, DeviceModule

_LISTENER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
_REPOSITORY = Path(__file__).resolve().parents[3]
_TRANSFERS = ("", "to device", "to host")

_library: ctypes.CDLL | None = None
_library_path: Path | None = None
_recording: list = []  # the listener of the waits() at work


def load(library: str | Path) -> torch.device:
    """Registers the device that a library holds and returns it.

    Args:
        library: what build.py made, ``build/cuda_emulator/MODE/libcuda_emulator.so``.

    Raises:
        FileNotFoundError: there is no such file.
        RuntimeError: another library was loaded before; a process has one.
    """
    global _library, _library_path
    path = Path(library).resolve()
    if _library_path == path:
        return torch.device(NAME, 0)
    if _library_path is not None:
        raise RuntimeError(f"the emulated device is {_library_path} in this process; {path} needs a process of its own")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; make cuda-emulated builds the emulator's library")
    torch.ops.load_library(str(path))
    torch.utils.rename_privateuse1_backend(NAME)
    torch._register_device_module(NAME, DeviceModule)
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    _library, _library_path = ctypes.CDLL(str(path)), path
    return torch.device(NAME, 0)


@dataclass(frozen=True)
class Event:
    """A copy between host and device, or a wait of the host.

    Attributes:
        op: the operator, ``aten::nonzero``.
        cause: why a real card's host waits, or what is copied.
        waits: the host waits for it.
        transfer: ``to device``, ``to host``, or empty.
        bytes: the size of the copy.
        line: ``file.py:line function``, of the innermost frame that is in this repository and not in its tests or
            tools; without one, of the innermost frame in it; ``autograd`` where no Python is at work.
    """

    op: str
    cause: str
    waits: bool
    transfer: str
    bytes: int
    line: str


class Events(list[Event]):
    """Events in their order."""

    @property
    def waits(self) -> list[Event]:
        """Those for which a real card's host waits."""
        return [event for event in self if event.waits]

    def table(self) -> str:
        """The waits as a Markdown table by source line, operator and cause, the most frequent first."""
        counts = Counter((event.line, event.op, event.cause) for event in self.waits)
        rows = [f"| {number} | {line} | {op} | {cause} |" for (line, op, cause), number in counts.most_common()]
        return "\n".join(["| waits | line | operator | cause |", "|---|---|---|---|", *rows])


@contextlib.contextmanager
def waits() -> Iterator[Events]:
    """Records the copies and waits of the block, of all threads.

    Raises:
        RuntimeError: no library is loaded, or a block inside another one.
    """
    if _library is None:
        raise RuntimeError("no emulated device is loaded; call load(library) first")
    if _recording:
        raise RuntimeError("waits() is at work already; one block at a time")
    events = Events()

    def listen(op, cause, waits, transfer, size):
        line = _line_at_work(sys._getframe())
        events.append(Event(op.decode(), cause.decode(), bool(waits), _TRANSFERS[transfer], size, line))

    listener = _LISTENER(listen)  # kept alive by this frame
    _recording.append(listener)
    _library.cuda_emulator_listen(listener)
    try:
        yield events
    finally:
        _library.cuda_emulator_listen(None)
        _recording.clear()


def _line_at_work(frame: FrameType | None) -> str:
    """The line of Event.line for the innermost frame of a stack."""
    found = ""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(_REPOSITORY) and path != Path(__file__).resolve() and ".venv" not in path.parts:
            place = path.relative_to(_REPOSITORY)
            line = f"{place}:{frame.f_lineno} {frame.f_code.co_name}"
            if place.parts[0] == "pcdet":
                return line
            found = found or line
        frame = frame.f_back
    return found or "autograd"
