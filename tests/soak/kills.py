"""A training is killed at random instants and started again until it ends: it must be the undisturbed one, bit by bit.

Instants: after a share of the undisturbed time, in the middle of a write, and just before a file is moved, deleted or
flushed. Signals: SIGKILL, SIGTERM and SIGINT.
"""

from __future__ import annotations

import random

from soak.lab import TRAININGS, Lab
from soak.trial import Case, Tally, draw_training

NAME, SHARE, LEAST = "kills", 8, 0


def draw(rng: random.Random, number: int) -> dict:
    """A training and the faults of its starts. The first cases are those of every training without workers."""
    names = tuple(TRAININGS)
    first = {"training": names[number // 2], "workers": number % 2 * 2} if number < 4 else draw_training(rng, names)
    return {**first, "faults": [draw_fault(rng) for _ in range(rng.randint(4, 10))]}


def draw_fault(rng: random.Random) -> dict:
    """A kill; ``at`` is a share of the undisturbed training's seconds, bytes or file operations."""
    kind = rng.choice(("time", "time", "bytes", "operation"))
    at = rng.betavariate(1, 3)  # mostly early: a resumed training has less before it than the undisturbed one
    return {"kind": kind, "at": round(at, 6), "signal": rng.choice(("KILL", "KILL", "TERM", "INT"))}


def play(facts: dict, lab: Lab) -> Tally:
    """Plays a case, drawn or kept."""
    case = Case(lab, facts)
    for fault in facts["faults"]:
        if case.play(fault).code == 0:
            break
    return case.finish()
