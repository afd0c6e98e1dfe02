"""What every writer of simulated data does: claims its folder, writes whole files, and works in several processes."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pcdet.utils.parent_death import die_with_parent

SETTINGS_FILE, NOTE_FILE = "simulated.json", "README.txt"


def claim_folder(
    out: Path, settings: Mapping[str, Any], *, command: str, note: str, others: Sequence[str], defaults: Mapping
) -> None:
    """Leaves settings and a note in the folder, or checks that the settings found there are the same.

    Args:
        out: the folder, made if need be.
        settings: all that the files depend on.
        command: the command line that makes them.
        note: the text of ``NOTE_FILE``.
        others: names of files or folders that a data set of another origin would have there.
        defaults: values of settings that older folders do not name.

    Raises:
        ValueError: the folder was made with other settings or holds another data set.
    """
    record = out / SETTINGS_FILE
    if record.exists():
        found = {**defaults, **json.loads(record.read_text())}
        names = {**settings, **{k: None for k in found if k != "command"}}
        other = [
            f"{k}: {found.get(k)} there, {settings.get(k)} asked for" for k in names if found.get(k) != settings.get(k)
        ]
        if other:
            raise ValueError(
                f"{out} holds simulated data made with other settings ({'; '.join(other)}). "
                f"Give another --out, delete the folder, or repeat its own command: {found.get('command')}"
            )
        return
    if any((out / name).exists() for name in others):
        raise ValueError(f"{out} holds a data set that this simulator did not write; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_whole(record, json.dumps({**settings, "command": command}, indent=2).encode() + b"\n")
    write_whole(out / NOTE_FILE, note.encode())


def write_whole(path: Path, data: bytes) -> None:
    """Writes the whole file or nothing, so that a file that exists is complete."""
    if path.exists() and path.read_bytes() == data:
        return
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_bytes(data)
    os.replace(scratch, path)


def map_in_processes(function: Callable, items: Sequence, workers: int | None, *, share: int) -> Iterable:
    """Calls ``function`` for each item, in any order.

    Args:
        function: can be pickled.
        items: its arguments.
        workers: processes; None for one per core, 0 or 1 to stay in this one.
        share: a process is not worth starting for fewer items.
    """
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers, len(items) // share)
    if workers <= 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")  # forking after torch started threads is unsafe
    with context.Pool(workers, initializer=die_with_parent) as pool:
        yield from pool.imap_unordered(function, items, chunksize=max(share // 2, 1))
