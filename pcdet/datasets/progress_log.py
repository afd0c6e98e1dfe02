"""What has been done so far of a long work, on disk, so that a killed run goes on where it was."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pcdet.utils import safe_pickle


class ProgressLog:
    """A file to which one record a frame is appended; a half-written last one is dropped.

    Args:
        path: the file; made when the first record comes.
        version: of the records' form; a file of another version is begun anew.
    """

    def __init__(self, path: Path, version: int):
        self.path, self.version = path, version
        self._stream = None

    def read(self) -> dict[str, dict[str, Any]]:
        """Records by frame."""
        records: dict[str, dict[str, Any]] = {}
        if not self.path.is_file():
            return records
        end = 0
        with open(self.path, "rb") as stream:
            try:
                while True:
                    record = safe_pickle.load(stream)
                    if not self._is_ours(record):
                        break
                    records[record["frame"]] = record
                    end = stream.tell()
            except (EOFError, safe_pickle.UnsafePickleError):
                pass  # the end, or a record that was being written when the run was killed
        if end < self.path.stat().st_size:
            logging.getLogger("pcdet").info(f"{self.path}: dropped what was not finished")
            with open(self.path, "r+b") as stream:
                stream.truncate(end)
        return records

    def _is_ours(self, record: Any) -> bool:
        """Whether a record has this version's form; what damage has made of one has not."""
        if not isinstance(record, dict) or not isinstance(record.get("version"), int):
            return False
        return record["version"] == self.version and isinstance(record.get("frame"), str)

    def append(self, frame: str, **content: Any) -> None:
        """Writes a record so that it survives a kill."""
        if self._stream is None:
            self._stream = open(self.path, "ab")
        self._stream.write(safe_pickle.dumps({"version": self.version, "frame": frame, **content}))
        self._stream.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def remove(self) -> None:
        """Deletes the file."""
        self.close()
        self.path.unlink(missing_ok=True)
