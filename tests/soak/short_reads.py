"""A file is cut short, before a training starts or while it runs: what reads it names it, and nothing else is lost.

A damaged newest checkpoint must not block the resume: the training goes on from the newest good one, to the same end.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from soak.lab import START_LIMIT, Lab
from soak.trial import Case, Tally, last_lines

NAME, SHARE, LEAST = "short reads", 2, 0
READ_ONLY = ("points", "infos", "teacher")  # what a training reads and does not write
MIDWAY = {"kind": "operation", "at": 0.7, "signal": "KILL"}  # where a run folder has several checkpoints


def draw(rng: random.Random, number: int) -> dict:
    """Which file is cut, what share of it stays, and when: at 0 before the start, else while the training runs."""
    what = ("checkpoint", "points", "infos", "teacher", "run.json")[number % 5]
    at = round(rng.random(), 6) if what == "points" and rng.random() < 0.5 else 0
    fault = {"kind": "cut", "what": what, "keep": round(rng.uniform(0.0, 0.3), 6), "at": at}
    training = "distilled" if what == "teacher" else "pointpillar"
    return {"training": training, "workers": rng.choice((0, 2)), "faults": [fault], "file": rng.randrange(4)}


def play(facts: dict, lab: Lab) -> Tally:
    """Plays a case, drawn or kept."""
    case = Case(lab, facts)
    case.play(MIDWAY)
    for fault in facts["faults"]:
        (cut_input if fault["what"] in READ_ONLY else cut_result)(case, fault)
    return case.finish()


def cut_input(case: Case, fault: dict) -> None:
    """Cuts what a training reads, for one start, which must name the file."""
    data = case.lab.data
    if fault["what"] == "points":
        frames = (data / "ImageSets/train.txt").read_text().split()
        file = data / f"training/velodyne/{frames[case.facts['file'] % len(frames)]}.bin"
    elif fault["what"] == "infos":
        file = data / "kitti_infos_train.pkl"
    else:
        file = case.lab.teacher()
    if not fault["at"]:
        with cut(file, fault["keep"]):
            (child,) = case.start()
            case.expect_end(child, START_LIMIT)
        case.expect_code(child, {1})
    else:
        (child,) = case.start()
        child.wait(fault["at"] * case.reference.seconds)
        with cut(file, fault["keep"]):
            case.expect_end(child, START_LIMIT)
        case.expect_code(child, {0, 1})
    if child.code:
        case.expect_message(child, file.name)


def cut_result(case: Case, fault: dict) -> None:
    """Cuts a file of the run: the training goes on without it and says so; of facts alone it may also stop."""
    if fault["what"] == "checkpoint":
        files = sorted((case.folder / "ckpt").glob("*.pth"), key=lambda file: file.stat().st_mtime_ns)
        if len(files) < 2:
            return case.not_played(f"{case.folder.name}/ckpt has {len(files)} checkpoints, at least 2 are needed")
        file = files[-1]
    else:
        file = case.folder / fault["what"]
        if not file.is_file():
            return case.not_played(f"{case.folder.name} has no {file.name}")
    shutil.copy2(file, kept := case.lab.new_folder("kept"))
    os.truncate(file, int(file.stat().st_size * fault["keep"]))
    (child,) = case.start()
    case.expect_end(child, START_LIMIT)
    if fault["what"] == "checkpoint" and child.code:
        case.tally.problems.append(f"did not go on from an older checkpoint: {last_lines(child)}")
    case.expect_code(child, {0, 1})
    case.expect_message(child, file.name)
    if child.code:
        shutil.copy2(kept, file)


@contextlib.contextmanager
def cut(file: Path, keep: float) -> Iterator[None]:
    """A file with only the first share of its bytes, never whole points; whole again after the block."""
    content = file.read_bytes()
    os.truncate(file, int(len(content) * keep) // 16 * 16 + 6)
    try:
        yield
    finally:
        file.write_bytes(content)
