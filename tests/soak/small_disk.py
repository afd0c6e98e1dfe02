"""As the full disk, with a real one: the output folder is a tmpfs of a few hundred KiB. Needs the right to mount."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from soak import full_disk
from soak.lab import Lab
from soak.trial import Case, Tally

NAME, SHARE, LEAST = "small tmpfs", 2, 0
PAGE = 4096


def why_not() -> str | None:
    """Why this machine cannot play it; None where it can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]  # ends with the namespace
    done = subprocess.run(command, capture_output=True, text=True)
    return f"mounting is not allowed: {done.stderr.strip()}" if done.returncode else None


def draw(rng: random.Random, number: int) -> dict:
    """As for the full disk."""
    return full_disk.draw(rng, number)


def play(facts: dict, lab: Lab) -> Tally:
    """Plays a case, drawn or kept: the first start on a small disk, the last on the same one with space."""
    case = Case(lab, facts)
    (fault,) = facts["faults"]
    with mounted(case.folder, max(PAGE, int(fault["at"] * case.reference.counts["bytes"]))):
        (child,) = case.start()
        full_disk.endure(case, child, fault)
        mount("-o", "remount,size=256m", str(case.folder))
        return case.finish()


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[None]:
    """A tmpfs of so many bytes at a folder, which is made."""
    folder.mkdir()
    mount("-t", "tmpfs", "-o", f"size={size}", "soak", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mount(*arguments: str) -> None:
    """Calls ``mount``; its message is the error's."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"mount {' '.join(arguments)}: {done.stderr.strip()}")
