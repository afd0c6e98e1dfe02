"""Ends a process together with the one that started it, also when that one is killed outright."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading

PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
KILLED = 128 + signal.SIGKILL


def die_with_parent() -> None:
    """Ends this process when the one that started it ends; called by the child, as early as possible.

    Without this, workers of a loader that are blocked in a full pipe, and ranks that wait for each other, outlive a
    killed main process by minutes and keep their memory. On Linux only; elsewhere it does nothing.

    The system watches the thread that started this process: start workers from a thread that lives as long as they do.

    Raises:
        OSError: the system refuses.
    """
    if sys.platform != "linux":
        return
    starter = multiprocessing.parent_process()  # None in a program that was started as such
    if starter is not None and _comes_from_fork_server():
        threading.Thread(target=_end_after, args=(starter,), name="die with parent", daemon=True).start()
        return
    parent = os.getppid() if starter is None else starter.pid
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_PDEATHSIG): {os.strerror(number)}")
    if os.getppid() != parent:  # it died before the system was asked
        os._exit(KILLED)


def _comes_from_fork_server() -> bool:
    """Whether a helper process, which lives as long as any of its children, forked this one."""
    by_server = getattr(multiprocessing.context, "ForkServerProcess", ())
    return (
        isinstance(multiprocessing.current_process(), by_server) or multiprocessing.get_start_method() == "forkserver"
    )


def _end_after(starter) -> None:
    """Waits for the end of the process that the helper works for."""
    starter.join()
    os._exit(KILLED)
