"""Several processes of one training, without a launcher: forks of the shared warm interpreter."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from support import warm_python

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def environment_of(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What torchrun tells a rank."""
    facts = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", **{key: str(value) for key, value in facts.items()}}


def call_in_ranks(function: Callable, *args: object, ranks: int = 2, seconds: float = 300) -> None:
    """Calls ``function(rank, port, *args)`` in so many processes at once, and waits for all of them.

    Args:
        function: of a test file; its file is imported anew.
        args: plain values.
        ranks: number of processes.
        seconds: that they may take.

    Raises:
        AssertionError: a process failed or took too long; the others are ended then.
    """
    file, port = Path(sys.modules[function.__module__].__file__), free_port()
    path = os.pathsep.join(map(str, (file.parent, ROOT / "tests", ROOT)))
    values = ", ".join(map(repr, args))
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, f"{rank}.txt") for rank in range(ranks)]
        commands = [
            warm_python.shared().start(
                ["-c", f"from {file.stem} import {function.__name__} as call; call({rank}, {port}, {values})"],
                cwd=file.parent,
                env={**os.environ, "PYTHONPATH": path, **environment_of(rank, ranks, port)},
                output=output,
            )
            for rank, output in enumerate(outputs)
        ]
        end = time.monotonic() + seconds
        while (codes := {c.poll() for c in commands}) <= {None, 0} and None in codes and time.monotonic() < end:
            pass
        for command in commands:
            command.__exit__()
        said = "\n".join(f"rank {rank}:\n{output.read_text()[-3000:]}" for rank, output in enumerate(outputs))
    assert codes == {0}, said
