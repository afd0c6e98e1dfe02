"""How a command ends: known mistakes with their message alone, a requested stop with the signal's exit code."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence

from pcdet.datasets.errors import DataError
from pcdet.engine.dist import end_dist
from pcdet.engine.trainer import Interrupted, NonFiniteError
from pcdet.registry import ConfigError
from pcdet.utils.checkpoint_reader import CheckpointError
from pcdet.utils.folder_lock import FolderInUseError
from pcdet.utils.native_ops import NoKernelError
from pcdet.utils.safe_files import WriteError
from pcdet.utils.weights import MisfitError

KNOWN_ERRORS = (
    ConfigError, CheckpointError, DataError, FolderInUseError, NoKernelError, NonFiniteError, FileNotFoundError,
    WriteError,
)  # fmt: skip


def run(body: Callable[[], None]) -> None:
    """Calls a command's body and ends the process with what it raises, if that is known.

    Args:
        body: of the command; its arguments are in ``sys.argv``.

    Raises:
        SystemExit: for a known mistake or a requested stop. Everything else passes, with its traceback.
    """
    faulthandler.enable()  # a crash in native code says where it was called from
    try:
        body()
    except KNOWN_ERRORS as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except Interrupted as stop:
        print(f"Interrupted by {stop}; {how_to_go_on(sys.argv)} goes on from here", file=sys.stderr)
        sys.exit(128 + stop.signal_number)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    finally:
        end_dist()


def how_to_go_on(command: Sequence[str]) -> str:
    """Which command resumes a stopped one; with ``--ckpt`` a training begins at that file again."""
    given = any(word == "--ckpt" or word.startswith("--ckpt=") for word in command)
    return "the same command without --ckpt" if given else "the same command"


@contextlib.contextmanager
def naming_unwritable(path: str | os.PathLike) -> Iterator[None]:
    """Turns an OSError of what is written to ``path`` into a WriteError that names it."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"{error.filename or path} cannot be written: {error.strerror or error}; make room, or give --output_dir "
            "where this user may write"
        ) from error


@contextlib.contextmanager
def naming_allow_partial(given: bool) -> Iterator[None]:
    """Ends the message on a checkpoint that does not fit with the flag that takes what does, unless it was given."""
    try:
        yield
    except MisfitError as error:
        if given:
            raise
        raise MisfitError(f"{error}\n--allow_partial takes what fits") from error
