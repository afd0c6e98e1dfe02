"""One of two ranks is killed or asked to stop: the other one ends too, and both resume to the same end."""

from __future__ import annotations

import random
import signal

from soak.lab import START_LIMIT, Lab
from soak.process import Fork, wait_until
from soak.trial import FINE, Case, Tally, last_lines

NAME, SHARE, LEAST = "ranks", 2, 0
END_LIMIT = 30  # seconds that a rank may outlive another
LOST = ("closed by peer", "reset by peer", "Broken pipe", "Connection refused")  # how gloo tells of a lost rank


def draw(rng: random.Random, number: int) -> dict:
    """Which rank gets which signal, after which share of the undisturbed time."""
    faults = [
        {"kind": "rank", "rank": rng.randrange(2), "at": round(rng.betavariate(2, 2), 6), "signal": signal_name}
        for signal_name in rng.sample(("KILL", "TERM"), 2)
    ]
    return {"training": rng.choice(("pointpillar", "distilled")), "ranks": 2, "workers": 0, "faults": faults}


def play(facts: dict, lab: Lab) -> Tally:
    """Plays a case, drawn or kept."""
    case = Case(lab, facts)
    for fault in facts["faults"]:
        disturb(case, fault)
    return case.finish()


def disturb(case: Case, fault: dict) -> None:
    """Starts both ranks and sends one of them a signal."""
    ranks = case.start()
    victim, other = ranks[fault["rank"]], ranks[1 - fault["rank"]]
    # Before the ranks have met, the survivor waits for its launcher, and there is none here to end it.
    wait_until(lambda: "Start logging" in ranks[0].text() or ranks[0].ended(), START_LIMIT)
    if victim.wait(fault["at"] * case.reference.seconds):
        return case.expect_end(other, START_LIMIT)
    victim.signal(getattr(signal, f"SIG{fault['signal']}"))
    case.tally.kills += 1
    for rank in ranks:
        case.expect_end(rank, END_LIMIT)
    case.expect_code(victim, {0, 1} | FINE[fault["signal"]])
    if fault["signal"] == "KILL" and victim.code != 0:
        expect_told(case, other)
    if (victim.code == 0) != (other.code == 0) and victim.code == 0:
        case.tally.problems.append(f"one rank ended well, the other did not: {last_lines(other)}")


def expect_told(case: Case, survivor: Fork) -> None:
    """The rank that is left must fail for the lost one, unless nothing was left to train, and say so."""
    if survivor.code == 0 and case.trained:
        return
    case.expect_code(survivor, {1})
    case.expect_words(survivor, *LOST)
