"""Files that are whole or not there, and sums that show damage.

A file is written beside its place, flushed to the disk and moved there. With a checksum, ``NAME.sha256`` beside it
holds its SHA-256 in the form that ``sha256sum -c`` reads. Files without one, such as those of other programs, are read
unchecked.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial-"
SUM_LINE = re.compile(r"\\?([0-9a-fA-F]{64})(\s.*)?\Z", re.DOTALL)


class WriteError(OSError):
    """A file that cannot be written; the message names it, the reason and what to do."""

    def __init__(self, message: str):
        super().__init__(message)


class DamagedFileError(ValueError):
    """A file is not what its checksum says; the message names both."""


@contextlib.contextmanager
def replacing(path: str | Path, *, checksum: bool = False) -> Iterator[BinaryIO]:
    """A stream whose content takes the place of ``path`` when the block ends well; otherwise the old file stays.

    A kill at any moment leaves the old file or the new one, never half of one, and never a file with the sum of
    another: the old sum goes before the file is moved, the new one comes after.

    Args:
        path: the file; its folder must exist.
        checksum: write ``NAME.sha256`` too.

    Raises:
        OSError: the disk is full or the folder cannot be written to. Nothing has changed then.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}{PARTIAL}{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        digest = sha256_of(partial) if checksum else None
        sum_path(path).unlink(missing_ok=True)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if digest is not None:
        with replacing(sum_path(path)) as stream:
            stream.write(f"{digest}  {path.name}\n".encode())
    _sync_folder(path.parent)


def verify(path: str | Path) -> bool:
    """Whether a file has a checksum beside it; one that does not match is an error.

    Raises:
        DamagedFileError: the file differs from its sum, or the sum cannot be read.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    try:
        text = sum_path(path).read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return False
    match = SUM_LINE.match(text)
    if match is None:
        raise DamagedFileError(f"{sum_path(path)} is no SHA-256 sum: {text[:80]!r}; delete it to read {path} unchecked")
    found, wanted = sha256_of(path), match[1].lower()
    if found != wanted:
        raise DamagedFileError(
            f"{path} ({path.stat().st_size} bytes) is damaged: its SHA-256 is {found}, {sum_path(path).name} says "
            f"{wanted}; use another copy, or delete {sum_path(path)} if you replaced the file yourself"
        )
    return True


def remove(path: str | Path) -> None:
    """Deletes a file and its checksum, where they are."""
    sum_path(path).unlink(missing_ok=True)
    Path(path).unlink(missing_ok=True)


def put_aside(path: str | Path) -> Path:
    """Renames a file, with its checksum, to the first free ``<stem>-old<N><suffix>``, and returns the new path."""
    path = Path(path)
    number = 1
    while (aside := path.with_name(f"{path.stem}-old{number}{path.suffix}")).exists():
        number += 1
    if sum_path(path).is_file():
        text = sum_path(path).read_text(encoding="utf-8", errors="replace")
        with replacing(sum_path(aside)) as stream:
            stream.write(text.replace(path.name, aside.name).encode())
        sum_path(path).unlink()
    os.replace(path, aside)
    return aside


def remove_partials(folder: str | Path) -> list[Path]:
    """Deletes what killed processes left half-written in a folder, and returns it; nobody else may write there now."""
    left = sorted(f for f in Path(folder).glob(f"*{PARTIAL}*") if f.is_file())
    for file in left:
        file.unlink()
    return left


def sum_path(path: str | Path) -> Path:
    """Where the checksum of a file lies."""
    path = Path(path)
    return path.with_name(f"{path.name}.sha256")


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Makes the move itself outlast a power cut, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse to sync a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
