"""Runs the commands of tools/ for the tests beside this file."""

import subprocess
import sys

from support import warm_python


def run(args, *, cwd, code=0, fresh=False):
    """Output of a Python command that ends with ``code``; ``fresh`` starts an interpreter, which imports anew."""
    if fresh:
        done = subprocess.run([sys.executable, *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=300)
        status, text = done.returncode, done.stdout + done.stderr
    else:
        command = start(args, cwd=cwd)
        text = command.stdout.read()
        status = command.wait()
    assert status == code, text[-12000:]
    return text


def start(args, *, cwd):
    """A Python command that runs, with what it prints in its ``stdout``."""
    return warm_python.shared().start(args, cwd=cwd)
