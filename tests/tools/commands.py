"""Runs the commands of tools/ for the tests beside this file."""

import subprocess
import sys


def run(args, *, cwd, code=0):
    """Output of a Python command that ends with ``code``."""
    done = subprocess.run([sys.executable, *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-12000:]
    return done.stdout + done.stderr
