"""The end of an interpreter, for forks: the steps that others can see, without the clearing of every module."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import NoReturn


def run_and_end(call: Callable[[], object]) -> NoReturn:
    """Calls, waits for threads, runs what is registered with atexit, and ends this process as an interpreter does."""
    code = 1
    try:
        code = exit_code(call)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        if code == -signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(code)


def exit_code(call: Callable[[], object]) -> int:
    """The exit status of a program that consists of this call; what an error says goes to stderr."""
    try:
        call()
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        traceback.print_exc()
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0
