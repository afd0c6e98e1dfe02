"""Python commands as forks of one interpreter that has imported torch and pcdet: the same command without the imports.

Each command has an interpreter state as after imports, its own arguments, folder, environment and output, and ends as
every interpreter does. A test whose claim is about the start itself runs ``subprocess`` with ``sys.executable``.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
# What commands import late: the first optimizer of a process imports torch._dynamo.
MODULES = ("torch._dynamo", "torch.distributed", "tensorboardX", "threadpoolctl")
LARGEST = 1 << 20  # bytes of a request
POLL = 0.01  # seconds between two looks at the running commands


class Command:
    """A command that runs or has run.

    Attributes:
        stdout: a stream of what it prints, on stdout and stderr alike; None where that goes to a file.
        returncode: its exit status, minus the signal that ended it; None as long as nobody knows that it has ended.
    """

    def __init__(self, interpreter: WarmPython, pid: int, stdout: IO[str] | None):
        self._interpreter, self.pid, self.stdout, self.returncode = interpreter, pid, stdout, None

    def send_signal(self, number: int) -> None:
        """Sends a signal to the command."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends the command at once."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 300) -> int:
        """Its exit status once it has ended; subprocess.TimeoutExpired after so many seconds."""
        if self.returncode is None:
            self.returncode = self._interpreter.exit_status(self.pid, timeout)
        return self.returncode

    def poll(self) -> int | None:
        """Its exit status if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        if self.stdout is not None:
            self.stdout.close()
        if self.poll() is None:
            self.kill()
            self.wait()


class WarmPython:
    """An interpreter that waits for commands, with everything imported.

    Args:
        launcher: a command that runs the interpreter, such as one that takes its network away first.
        environment: its variables; a command may have others.
    """

    def __init__(self, launcher: Iterable[str] = (), environment: Mapping[str, str] | None = None):
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ended: dict[int, int] = {}
        with theirs:
            self._process = subprocess.Popen(
                [*launcher, sys.executable, __file__, str(theirs.fileno())],
                cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )  # fmt: skip

    def start(
        self, args: Iterable, *, cwd: Path | str, env: Mapping[str, str] | None = None, output: Path | None = None
    ) -> Command:
        """Starts ``python <args>``: a script, ``-m module`` or ``-c code``, with their arguments.

        Args:
            args: what stands behind ``python``.
            cwd: the command's folder.
            env: its environment; this process's if left out.
            output: a file for what it prints, instead of the stream ``stdout``.
        """
        request = {"args": [str(arg) for arg in args], "cwd": str(cwd), "env": dict(os.environ if env is None else env)}
        if output is None:
            ours, theirs = os.pipe()
        else:
            ours, theirs = None, os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            socket.send_fds(self._socket, [json.dumps(request).encode()], [theirs])
        finally:
            os.close(theirs)
        self._socket.settimeout(300)  # the first command waits for the imports
        message = self._receive()
        while "started" not in message:
            message = self._receive()
        stdout = None if ours is None else open(ours, encoding="utf-8", errors="replace")
        return Command(self, message["started"], stdout)

    def exit_status(self, pid: int, timeout: float) -> int:
        """The exit status of a command, as :meth:`Command.wait` gives it."""
        end = time.monotonic() + timeout
        while pid not in self._ended:
            self._socket.settimeout(max(end - time.monotonic(), POLL))
            try:
                self._receive()
            except TimeoutError:
                raise subprocess.TimeoutExpired(f"process {pid}", timeout) from None
        return self._ended.pop(pid)

    def close(self) -> None:
        """Ends the interpreter; its commands are to have ended."""
        self._socket.close()
        self._process.wait(60)

    def _receive(self) -> dict:
        data = self._socket.recv(LARGEST)
        if not data:
            raise RuntimeError(f"the interpreter of warm commands ended with status {self._process.wait(10)}")
        message = json.loads(data)
        if "ended" in message:
            self._ended[message["ended"]] = message["status"]
        return message


@functools.cache
def shared() -> WarmPython:
    """The interpreter of this test process, which starts with the first command; :func:`close_shared` ends it."""
    return WarmPython()


def close_shared() -> None:
    """Ends the shared interpreter, if it was started."""
    if shared.cache_info().currsize:
        shared().close()
        shared.cache_clear()


def import_all() -> None:
    """Imports what commands need, all of pcdet included."""
    for name in MODULES:
        importlib.import_module(name)
    import pcdet

    for module in pkgutil.walk_packages(pcdet.__path__, "pcdet."):
        if module.name.rpartition(".")[2] not in ("_C", "__main__"):  # _C, the ops' library, is loaded by pcdet.ops
            importlib.import_module(module.name)


def serve(connection: socket.socket) -> dict | None:
    """Forks for every request until the other side hangs up; returns the request in the fork, None in the end."""
    running: set[int] = set()
    connection.settimeout(POLL)
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(connection, LARGEST, 1)
        except TimeoutError:
            data = None
        if data == b"":
            return None
        if data:
            pid = os.fork()
            if pid == 0:
                connection.close()
                return json.loads(data) | {"output": descriptors[0]}
            os.close(descriptors[0])
            running.add(pid)
            connection.send(json.dumps({"started": pid}).encode())
        for pid in list(running):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                running.remove(pid)
                connection.send(json.dumps({"ended": pid, "status": os.waitstatus_to_exitcode(status)}).encode())


def become(request: dict, path: list[str]) -> None:
    """Runs the command of a request in this process."""
    import numpy as np

    np.random.seed()  # a fresh interpreter draws its own numbers
    for descriptor in (1, 2):
        os.dup2(request["output"], descriptor)
    os.close(request["output"])
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    what, *arguments = request["args"]
    named = [folder for folder in request["env"].get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[:] = ["" if what in ("-c", "-m") else os.path.dirname(os.path.abspath(what)), *named, *path]
    if what == "-m":
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    elif what == "-c":
        sys.argv = ["-c", *arguments[1:]]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(arguments[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv = request["args"]
        runpy.run_path(what, run_name="__main__")


def main() -> None:
    """The interpreter: imports, then waits; a fork runs its command and ends."""
    path = [folder for folder in sys.path[1:] if folder not in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    sys.path[:] = [str(ROOT), str(ROOT / "tests"), *path]
    connection = socket.socket(fileno=int(sys.argv[1]))
    import_all()
    from support.interpreter_end import run_and_end

    gc.freeze()  # forks leave alone, and so share, what is there now
    request = serve(connection)
    if request is not None:
        run_and_end(lambda: become(request, path))


if __name__ == "__main__":
    main()
