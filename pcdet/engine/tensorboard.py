"""Scalars for TensorBoard, in event files that a full disk or a lost folder cannot hold a training up with.

tensorboardX's own writer hands events to a thread through a short queue. When the disk is full the thread dies, and the
next ``add_scalar`` waits for ever. Here events are written where they are made, and a file that fails is given up.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FLUSH_SECONDS = 120
_numbers = itertools.count()


class TensorBoard:
    """Writes scalars to a new event file in a folder; the first OSError ends that, with one warning.

    Args:
        folder: made if needed.
        purge_step: TensorBoard hides what earlier files of the folder say of this step and later ones.
        logger: gets the warning.
        open_file: makes the record file; tests put one in its place that fails.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        purge_step: int | None = None,
        logger: logging.Logger | None = None,
        open_file: Callable[[str], Any] | None = None,
    ):
        self.folder, self.logger = Path(folder), logger or logging.getLogger("pcdet")
        self._records = None
        self._flushed = time.monotonic()
        with self._given_up_on_error():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._records = (open_file or _record_file)(str(self.folder / _file_name()))
            self._write(file_version="brain.Event:2")
            if purge_step is not None:
                self._write(step=purge_step, session_log=_session_start())
            self._records.flush()

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Adds a point to a curve."""
        from tensorboardX.summary import scalar

        if self._records is None:
            return
        with self._given_up_on_error():
            self._write(step=step, summary=scalar(tag, value))
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self.flush()

    def flush(self) -> None:
        """Brings to the disk what has been added."""
        self._flushed = time.monotonic()
        if self._records is not None:
            with self._given_up_on_error():
                self._records.flush()

    def close(self) -> None:
        """Flushes, and closes the file."""
        self.flush()
        records, self._records = self._records, None
        if records is not None:
            records.close()

    def _write(self, **fields: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), **fields).SerializeToString())

    @contextlib.contextmanager
    def _given_up_on_error(self):
        try:
            yield
        except OSError as error:
            records, self._records = self._records, None
            if records is not None:
                with contextlib.suppress(OSError):  # what is still buffered fails again
                    records.close()
            self.logger.warning(
                f"TensorBoard's scalars cannot be written to {self.folder}: {error.strerror or error}; from here on "
                "this run goes without them"
            )


def _record_file(path: str):
    from tensorboardX.record_writer import RecordWriter

    return RecordWriter(path)


def _session_start():
    from tensorboardX.proto.event_pb2 import SessionLog

    return SessionLog(status=SessionLog.START)


def _file_name() -> str:
    """A name that TensorBoard knows as an event file, in order of time, and that no other writer has."""
    return f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
