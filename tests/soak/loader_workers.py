"""A loader's worker or the training it works for is killed: nothing hangs or stays behind, and the training resumes."""

from __future__ import annotations

import os
import random
import signal
import time

from soak.lab import START_LIMIT, Lab
from soak.process import Fork
from soak.trial import Case, Tally, last_lines, workers_of

NAME, SHARE, LEAST = "workers", 2, 0
END_LIMIT = 15  # seconds from a worker's death to the end of the training


def draw(rng: random.Random, number: int) -> dict:
    """Who is killed, and how many seconds after two workers are there."""
    victims = [("worker", "main")[(number + i) % 2] for i in range(2)]
    faults = [{"kind": victim, "at": round(rng.expovariate(5), 4), "which": rng.randrange(2)} for victim in victims]
    return {"training": "pointpillar", "workers": 2, "faults": faults}


def play(facts: dict, lab: Lab) -> Tally:
    """Plays a case, drawn or kept."""
    case = Case(lab, facts)
    for fault in facts["faults"]:
        if case.trained:  # by the start before, whose worker had done its work when it was killed
            break
        (child,) = case.start()
        workers = workers_of(child, 2, START_LIMIT)
        if workers:
            time.sleep(fault["at"])
            {"worker": kill_worker, "main": kill_main}[fault["kind"]](case, child, workers[fault["which"]])
        else:
            case.not_played(f"no two loader workers were seen: {last_lines(child)}")
        case.expect_end(child, START_LIMIT)
    return case.finish()


def kill_worker(case: Case, child: Fork, worker: int) -> None:
    """Kills a worker: the training must end, and say why."""
    try:
        os.kill(worker, signal.SIGKILL)
    except ProcessLookupError:  # the epoch has ended with its workers
        return
    case.tally.kills += 1
    case.expect_end(child, END_LIMIT)
    if child.code != 0 and "DataLoader worker" not in child.text():  # 0: the worker was not needed any more
        case.tally.problems.append(f"the output does not tell of the dead worker: {last_lines(child)}")


def kill_main(case: Case, child: Fork, worker: int) -> None:
    """Kills the training: its workers must end by themselves."""
    child.signal(signal.SIGKILL)
    case.tally.kills += 1
    case.expect_end(child, END_LIMIT)
    case.expect_no_orphans()
