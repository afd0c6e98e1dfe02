"""One writer a folder: a lock that says who holds it, and that ends with the process that took it."""

from __future__ import annotations

import datetime
import errno
import fcntl
import logging
import os
import shlex
import socket
import sys
import weakref
from pathlib import Path

from pcdet.utils.safe_files import WriteError

LOCK_FILE = ".lock"
FULL = (errno.ENOSPC, errno.EDQUOT)
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)  # what file systems without locks answer


class FolderInUseError(RuntimeError):
    """Another process writes to the folder; the message says which, and what to do."""


class FolderLock:
    """Holds a folder until ``release`` or the process's end, however it comes.

    Forked processes, such as a DataLoader's workers, let go of it at once: a lock that they shared would outlast a
    killed training.

    Args:
        folder: made if needed.
        advice: what to do if somebody else holds it; the end of the error's sentence.
        inheritable: programs that this process starts hold it too, and so keep it when this process is killed.
        logger: warned where the file system has no locks; nothing is protected then.

    Raises:
        FolderInUseError: somebody else holds it.
        WriteError: the folder or the lock cannot be made. A full disk keeps only the holder's name from being told.
    """

    def __init__(
        self, folder: str | Path, *, advice: str, inheritable: bool = False, logger: logging.Logger | None = None
    ):
        self.path = Path(folder) / LOCK_FILE
        try:
            self._take(advice, logger or logging.getLogger("pcdet"))
        except OSError as error:
            raise WriteError(
                f"the lock {self.path} cannot be made: {error.strerror or error}; make room, or give a folder that "
                "this user may write to"
            ) from error
        os.set_inheritable(self._file.fileno(), inheritable)
        if not inheritable:
            _not_for_children.add(self)

    def _take(self, advice: str, logger: logging.Logger) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab+", buffering=0)
        try:
            self._lock(advice, logger)
            self._describe()
        except BaseException:
            self._file.close()
            raise

    def _lock(self, advice: str, logger: logging.Logger) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().decode(errors="replace").strip() or "a process that has not said its name"
            raise FolderInUseError(f"{self.path.parent} is written to by {holder}; {advice}") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            logger.warning(
                f"{self.path.parent}: its file system has no locks ({error.strerror}); make sure that nobody else "
                "writes there"
            )

    def _describe(self) -> None:
        """Says who holds the lock, which holds without it: on a full disk it goes on nameless."""
        self._file.truncate(0)
        try:
            self._file.write(f"{describe_this_process()}\n".encode(errors="backslashreplace"))
        except OSError as error:
            if error.errno not in FULL:
                raise

    def release(self) -> None:
        """Lets others in. The lock's file stays: deleting it would let two in at once."""
        self._file.close()

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


_not_for_children: weakref.WeakSet[FolderLock] = weakref.WeakSet()


def _let_go_in_child() -> None:
    for lock in list(_not_for_children):
        lock._file.close()  # of the child's own descriptor; the parent's keeps the lock


os.register_at_fork(after_in_child=_let_go_in_child)


def describe_this_process() -> str:
    """Number, machine, start and command of this process, for people."""
    since = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} (since {since}: {shlex.join(sys.argv)})"
