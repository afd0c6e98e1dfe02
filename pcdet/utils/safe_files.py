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
PARTIAL_NAME = re.compile(rf".+{re.escape(PARTIAL)}\d+-[0-9a-f]{{8}}", re.DOTALL)  # process and a random number
TRIES = 10  # looks at a file that changes under the reader
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
        WriteError: the new file is in place, but its checksum could not be moved beside it.
    """
    path = Path(path)
    partial, new_sum, old_sum = (_partial_of(file) for file in (path, sum_path(path), sum_path(path)))
    try:
        with partial.open("wb") as stream:
            yield stream
            _flush(stream)
        if checksum:
            with new_sum.open("wb") as stream:
                stream.write(f"{sha256_of(partial)}  {path.name}\n".encode())
                _flush(stream)
        _move(partial, path, old_sum)
    except BaseException:
        for file in (partial, new_sum, old_sum):
            file.unlink(missing_ok=True)
        raise
    if checksum:
        try:
            os.replace(new_sum, sum_path(path))
        except OSError as error:
            raise WriteError(
                f"{path} is written, but not its checksum {sum_path(path)}: {error.strerror or error}; the file is "
                "whole and is read unchecked"
            ) from error
    old_sum.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _partial_of(path: Path) -> Path:
    """A name beside ``path`` that no other writer uses, and that ``remove_partials`` knows."""
    return path.with_name(f"{path.name}{PARTIAL}{os.getpid()}-{secrets.token_hex(4)}")


def _flush(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _move(partial: Path, path: Path, old_sum: Path) -> None:
    """Moves a new file to its place, and the sum of the old one to ``old_sum``; if the file's move fails, it returns.

    Only an OSError says that the file has not moved: after an interrupt, nobody knows.
    """
    with contextlib.suppress(FileNotFoundError):
        os.replace(sum_path(path), old_sum)
    try:
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.replace(old_sum, sum_path(path))
        raise


def verify(path: str | Path) -> bool:
    """Whether a file has a checksum beside it; one that does not match is an error.

    A file that its owner replaces meanwhile is looked at again; without a sum for a moment, it counts as one without.

    Raises:
        DamagedFileError: the file differs from its sum, or the sum cannot be read.
        FileNotFoundError: there is no such file.
    """
    path, failed = Path(path), None
    for _ in range(TRIES):
        wanted = _sum_beside(path)
        if wanted is None:
            return False
        found = sha256_of(path)
        if found == wanted:
            return True
        if (wanted, found) == failed:
            raise DamagedFileError(
                f"{path} ({path.stat().st_size} bytes) is damaged: its SHA-256 is {found}, {sum_path(path).name} says "
                f"{wanted}; use another copy, or delete {sum_path(path)} if you replaced the file yourself"
            )
        failed = wanted, found
    raise DamagedFileError(f"{path} was replaced {TRIES} times while it was checked; read it when its writer is done")


def _sum_beside(path: Path) -> str | None:
    """The SHA-256 that ``NAME.sha256`` says, in lower case; None where there is no such file."""
    try:
        text = sum_path(path).read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return None
    match = SUM_LINE.match(text)
    if match is None:
        raise DamagedFileError(f"{sum_path(path)} is no SHA-256 sum: {text[:80]!r}; delete it to read {path} unchecked")
    return match[1].lower()


def remove(path: str | Path) -> None:
    """Deletes a file and its checksum, where they are."""
    sum_path(path).unlink(missing_ok=True)
    Path(path).unlink(missing_ok=True)


def put_aside(path: str | Path) -> Path:
    """Renames a file, with its checksum, to the first free ``<stem>-old<N><suffix>``, and returns the new path."""
    path = Path(path)
    number = 1
    # a sum without its file, as a kill in here leaves it, must not meet another file
    while (aside := path.with_name(f"{path.stem}-old{number}{path.suffix}")).exists() or sum_path(aside).exists():
        number += 1
    if sum_path(path).is_file():
        text = sum_path(path).read_text(encoding="utf-8", errors="replace")
        with replacing(sum_path(aside)) as stream:
            stream.write(text.replace(path.name, aside.name).encode())
        sum_path(path).unlink()
    os.replace(path, aside)
    return aside


def remove_partials(folder: str | Path) -> list[Path]:
    """Deletes what killed processes left half-written in a folder, and returns it; nobody else may write there now.

    Other files stay, whatever their names: only a whole name such as :func:`replacing` gives counts.
    """
    left = sorted(f for f in Path(folder).iterdir() if PARTIAL_NAME.fullmatch(f.name) and f.is_file())
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
    with contextlib.suppress(OSError):  # folders that may not be read, network file systems that refuse to sync them
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
