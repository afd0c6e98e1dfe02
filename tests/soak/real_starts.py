"""Trainings as people start them, alone and with torchrun: the process, a rank or torchrun itself is killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from soak.lab import START_LIMIT, TRAININGS, Lab
from soak.process import TOOLS, Fork, children, wait_until
from soak.trial import Case, Tally, last_lines

NAME, SHARE, LEAST = "real starts", 3, 120  # seconds of the whole soak below which it is left out
END_LIMIT = 60  # seconds that torchrun may take to end its ranks
VICTIMS = ("main", "rank", "torchrun")


def draw(rng: random.Random, number: int) -> dict:
    """Who is killed, and after how many logged iterations."""
    victim = VICTIMS[number % len(VICTIMS)]
    fault = {"kind": victim, "after": rng.randint(0, 5), "rank": rng.randrange(2)}
    return {"training": "pointpillar", "ranks": 1 if victim == "main" else 2, "workers": 0, "faults": [fault]}


class Command(Fork):
    """A command in a process group of its own; what it prints goes to a log."""

    def __init__(self, command: list[str], log: Path):
        with log.open("w") as stream:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(
                command, cwd=TOOLS, stdout=stream, stderr=stream, env=environment, start_new_session=True
            )  # fmt: skip
        super().__init__(self.process.pid, log)

    def ended(self) -> bool:
        """Whether it has ended; then ``code`` is known."""
        self.code = self.process.poll()
        return self.code is not None


def play(facts: dict, lab: Lab) -> Tally:
    """Plays a case, drawn or kept."""
    case = Case(lab, facts)
    for fault in facts["faults"]:
        child = start(case)
        lab.forks.append(child)
        wait_until(lambda: child.ended() or iterations(child) > fault["after"], START_LIMIT)  # noqa: B023
        logged = iterations(child)
        if logged > fault["after"]:
            kill(case, child, fault)
        else:
            case.not_played(f"{logged} iterations were logged, not {fault['after'] + 1}: {last_lines(child)}")
        case.expect_end(child, END_LIMIT)
        case.expect_no_orphans()
    return case.finish()


def iterations(child: Command) -> int:
    """How many iterations a start has logged."""
    return child.text().count("Train:")


def start(case: Case) -> Command:
    """The training's command line."""
    tool, argv = TRAININGS[case.training][0], case.lab.arguments(case.training, case.folder)
    command = [sys.executable]
    if case.ranks > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(case.ranks)]
        argv += ["--launcher", "pytorch", "--batch_size", str(case.ranks)]
    case.starts += 1
    return Command([*command, str(TOOLS / f"{tool}.py"), *argv], case.lab.new_folder("log").with_suffix(".txt"))


def kill(case: Case, child: Command, fault: dict) -> None:
    """Kills the one that the case names, if it still runs."""
    if child.ended():
        return
    victims = sorted(children(child.pid)) if fault["kind"] == "rank" else [child.pid]
    case.tally.kills += 1
    with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
        os.kill(victims[fault["rank"] % len(victims)], signal.SIGKILL)
