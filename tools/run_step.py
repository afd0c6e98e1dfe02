"""Runs a command behind one line: its label, ninja's progress and the seconds it took.

python3 tools/run_step.py LABEL COMMAND [ARGUMENT ...]. Ninja's echo of command lines only moves the progress; whatever
else the command prints is shown after it has ended, whether it failed or not. The exit status is the command's.

Needs nothing but Python: it runs before anything is installed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time

PROGRESS = re.compile(r"\[(\d+/\d+)\] ")


def run_step(label: str, command: list[str]) -> int:
    """Label and command -> the command's exit status; the step's line, then the command's messages, are printed."""
    start, progress, messages = time.monotonic(), "", []
    live = sys.stdout.isatty()
    print(f"{label} ...", end="", flush=True)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in process.stdout:
            if step := PROGRESS.match(line):
                progress = f" {step[1]}"
                if live:
                    print(f"\r{label}{progress} ...", end="", flush=True)
            else:
                messages.append(line)
    seconds = f"{time.monotonic() - start:.0f} s"
    verdict = seconds if process.returncode == 0 else f"FAILED after {seconds}"
    print(f"\r{label}{progress} ... {verdict}" if live else f"{progress} {verdict}")
    print("".join(messages), end="", flush=True)
    return process.returncode


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"{sys.argv[0]} needs a label and a command: run_step.py LABEL COMMAND [ARGUMENT ...]")
    sys.exit(run_step(sys.argv[1], sys.argv[2:]))
