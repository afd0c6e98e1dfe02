"""Ends a process together with the one that started it, also when that one is killed outright."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
KILLED = 128 + signal.SIGKILL
SECONDS_BETWEEN_LOOKS = 0.5


def die_with_parent() -> None:
    """Ends this process when the one that started it ends; called by the child, as early as possible.

    Without this, workers of a loader that are blocked in a full pipe, and ranks that wait for each other, outlive a
    killed main process by minutes and keep their memory. On Linux only; elsewhere it does nothing.

    A process of multiprocessing has a thread that looks after its starter: the system would watch only the thread that
    started it, and end the workers of a loader together with a thread that reads ahead. A program started as such asks
    the system: start it from a thread that lives as long as it does.

    Raises:
        OSError: the system refuses.
    """
    if sys.platform != "linux":
        return
    starter = multiprocessing.parent_process()  # None in a program that was started as such
    if starter is not None:
        _watch(starter)
        return
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_PDEATHSIG): {os.strerror(number)}")
    if os.getppid() != parent:  # it died before the system was asked
        os._exit(KILLED)


def _watch(starter) -> None:
    """Starts the thread that ends this process with its starter; ends it at once where that one is gone."""
    from_server = _comes_from_fork_server()  # then the system's parent is the server
    if not from_server and os.getppid() != starter.pid:
        os._exit(KILLED)

    def end_after() -> None:
        if from_server:
            starter.join()
        while not from_server and os.getppid() == starter.pid:  # as long as any thread of it lives
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os._exit(KILLED)

    threading.Thread(target=end_after, name="die with parent", daemon=True).start()


def _comes_from_fork_server() -> bool:
    """Whether a helper process, which lives as long as any of its children, forked this one."""
    by_server = getattr(multiprocessing.context, "ForkServerProcess", ())
    return (
        isinstance(multiprocessing.current_process(), by_server) or multiprocessing.get_start_method() == "forkserver"
    )
