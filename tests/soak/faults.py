"""What goes wrong inside a process: it is killed at a byte or at a file operation, or its disk is full.

Only files below one folder count. They are opened through Python's ``open``, as everything that the tools write is.
"""

from __future__ import annotations

import atexit
import builtins
import errno
import io
import json
import os
import pathlib
import signal
from collections.abc import Callable
from pathlib import Path

OPERATIONS = ("replace", "rename", "unlink", "fsync")


class Meter:
    """Counts bytes and file operations, and acts when a count is reached.

    Args:
        folder: whose files count.
        fault: ``{"kind": "bytes" or "operation", "at": count, "signal": name}`` sends this process the signal when the
            count is reached; ``{"kind": "full", "at": bytes}`` lets the folder hold no more than so many bytes;
            ``{"kind": "count", "to": file}`` writes both counts to a file in the end.
    """

    def __init__(self, folder: Path, fault: dict):
        self.folder, self.fault, self.pid = Path(folder).resolve(), fault, os.getpid()
        self.bytes = self.operations = 0

    def covers(self, file) -> bool:
        """Whether a file lies below the folder."""
        if isinstance(file, int):
            return False
        return self.folder in (Path(os.fsdecode(file)).absolute()).parents

    def room_for(self, size: int, name) -> int:
        """How many of the next ``size`` bytes are to be written now.

        Raises:
            OSError: no space is left.
        """
        if self.fault["kind"] == "full":
            used = sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
            size = min(size, self.fault["at"] - used)
            if size <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(name))
        elif self._kills("bytes") and self.bytes < self.fault["at"] < self.bytes + size:
            size = self.fault["at"] - self.bytes  # up to the byte; the rest comes with the next call
        return size

    def wrote(self, size: int) -> None:
        """Counts bytes that were written."""
        before, self.bytes = self.bytes, self.bytes + size
        if self._kills("bytes") and before < self.fault["at"] <= self.bytes:
            self._act()

    def operated(self) -> None:
        """Counts a file operation that is about to happen."""
        self.operations += 1
        if self._kills("operation") and self.operations == self.fault["at"]:
            self._act()

    def report(self) -> None:
        """Writes the counts down, in this process but not in its forks."""
        if os.getpid() == self.pid:
            Path(self.fault["to"]).write_text(json.dumps({"bytes": self.bytes, "operations": self.operations}))

    def _kills(self, kind: str) -> bool:
        return self.fault["kind"] == kind and os.getpid() == self.pid

    def _act(self) -> None:
        os.kill(os.getpid(), getattr(signal, f"SIG{self.fault['signal']}"))


class MeteredFile(io.FileIO):
    """A file whose writes ask a meter first."""

    def __init__(self, file, mode: str, meter: Meter):
        super().__init__(file, mode)
        self.meter = meter

    def write(self, data) -> int:
        view = memoryview(data).cast("B")
        written = super().write(view[: self.meter.room_for(len(view), self.name)]) if len(view) else 0
        self.meter.wrote(written)
        return written


def install(fault: dict, folder: Path) -> None:
    """Puts a meter between this process and the files of a folder, until the process ends."""
    meter = Meter(folder, fault)
    builtins.open = io.open = _metered_open(builtins.open, meter)
    for name in OPERATIONS:
        setattr(os, name, _metered_operation(getattr(os, name), meter))
    if hasattr(pathlib, "_NormalAccessor"):  # Python 3.10: paths keep the functions that were there before
        for name in ("open", "replace", "rename", "unlink"):
            metered = io.open if name == "open" else getattr(os, name)
            setattr(pathlib._NormalAccessor, name, staticmethod(metered))
    if fault["kind"] == "count":
        atexit.register(meter.report)


def _metered_open(plain: Callable, meter: Meter) -> Callable:
    def open(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, **more):
        if not set(mode) & set("wax+") or more or not meter.covers(file):
            return plain(file, mode, buffering, encoding, errors, newline, **more)
        raw = MeteredFile(file, mode.replace("b", "").replace("t", ""), meter)
        if buffering == 0:
            return raw
        stream = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
        if "b" in mode:
            return stream
        return io.TextIOWrapper(stream, encoding or "utf-8", errors, newline, line_buffering=buffering == 1)

    return open


def _metered_operation(plain: Callable, meter: Meter) -> Callable:
    def operation(path, *rest, **options):
        if isinstance(path, int) or meter.covers(path):
            meter.operated()
        return plain(path, *rest, **options)

    return operation
