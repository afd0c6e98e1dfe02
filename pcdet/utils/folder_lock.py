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

LOCK_FILE = ".lock"
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
    """

    def __init__(
        self, folder: str | Path, *, advice: str, inheritable: bool = False, logger: logging.Logger | None = None
    ):
        self.path = Path(folder) / LOCK_FILE
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "a process that has not said its name"
            self._file.close()
            raise FolderInUseError(f"{folder} is written to by {holder}; {advice}") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                self._file.close()
                raise
            (logger or logging.getLogger("pcdet")).warning(
                f"{folder}: its file system has no locks ({error.strerror}); make sure that nobody else writes there"
            )
        self._file.truncate(0)
        self._file.write(f"{describe_this_process()}\n")
        self._file.flush()
        os.set_inheritable(self._file.fileno(), inheritable)
        if not inheritable:
            _not_for_children.add(self)

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
