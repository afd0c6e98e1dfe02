"""The disk of the output folder is full: a training goes on or ends with a message, and loses no good checkpoint.

A checkpoint of the clock may be left out with a warning; one that must be written ends the training with exit status 1
and the file's name. A signal still ends it within 10 s. With space again the same command goes on to the same end.
"""

from __future__ import annotations

import random
import signal

from soak.compare import unreadable
from soak.lab import START_LIMIT, Lab
from soak.process import Fork
from soak.trial import FINE, STOP_LIMIT, Case, Tally, draw_training

NAME, SHARE, LEAST = "full disk", 3, 0


def draw(rng: random.Random, number: int) -> dict:
    """The room in the folder as a share of what the whole training writes; perhaps a signal in the middle."""
    fault = {"kind": "full", "at": round(rng.uniform(0.0, 0.4), 6)}
    if number % 2:
        fault |= {"stop_at": round(rng.uniform(0.3, 0.9), 6), "stop_signal": rng.choice(("TERM", "INT"))}
    return {**draw_training(rng), "faults": [fault]}


def play(facts: dict, lab: Lab) -> Tally:
    """Plays a case, drawn or kept."""
    case = Case(lab, facts)
    for fault in facts["faults"]:
        (child,) = case.start(fault)
        endure(case, child, fault)
    return case.finish()


def endure(case: Case, child: Fork, fault: dict) -> None:
    """Sees a start on a full disk to its end, and what it leaves."""
    codes = {0, 1}
    if "stop_at" in fault and not child.wait(fault["stop_at"] * case.reference.seconds):
        child.signal(getattr(signal, f"SIG{fault['stop_signal']}"))
        case.tally.kills += 1
        codes |= FINE[fault["stop_signal"]]
        case.expect_end(child, STOP_LIMIT)
    else:
        case.expect_end(child, START_LIMIT)
    case.expect_code(child, codes)
    if child.code == 1:
        case.expect_message(child, str(case.folder))
    case.tally.problems += [f"on a full disk: {problem}" for problem in unreadable(case.folder / "ckpt")]
