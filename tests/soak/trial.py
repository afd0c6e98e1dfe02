"""One case: starts of a training, each with what goes wrong in it, and the rules that hold for every end."""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass, field

from soak.lab import EPOCHS, START_LIMIT, Lab
from soak.process import Fork, children, orphans, wait_until

STOP_LIMIT = 10  # seconds from SIGTERM or SIGINT to the end
ORPHAN_LIMIT = 5  # seconds that loader workers may outlive their killed process
IN_CHILD = ("bytes", "operation", "full", "count")  # the faults of soak.faults
FINE = {"KILL": {-9}, "TERM": {-15, 128 + 15}, "INT": {-2, 128 + 2}}  # how a signal may end a start


@dataclass
class Tally:
    """Counts of one case or of many, and what was wrong, in words."""

    runs: int = 0
    kills: int = 0
    resumes: int = 0
    hangs: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Adds another tally to this one."""
        for name in ("runs", "kills", "resumes", "hangs"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.problems += other.problems

    def hang(self, problem: str) -> None:
        """Notes a process that did not end."""
        self.hangs += 1
        self.problems.append(problem)


class Case:
    """Plays starts of one training in one folder.

    Attributes:
        facts: the case as it is drawn, kept and replayed: plain JSON, with ``training`` and ``workers``.
        folder: the training's output folder.
        tally: what has happened so far.
    """

    def __init__(self, lab: Lab, facts: dict):
        self.lab, self.facts, self.tally = lab, facts, Tally()
        self.folder, self.training, self.ranks = lab.new_folder(), facts["training"], facts.get("ranks", 1)
        self.reference = lab.reference(self.training, self.ranks)
        self.starts = 0

    @property
    def trained(self) -> bool:
        """Whether the last epoch's checkpoint is there: a start then has nothing left to train."""
        return (self.folder / "ckpt" / f"checkpoint_epoch_{EPOCHS}.pth").is_file()

    def start(self, fault: dict | None = None) -> list[Fork]:
        """Starts the training's command once more, one fork a rank; a fault in the process begins with it."""
        inside = self.absolute(fault) if fault and fault["kind"] in IN_CHILD else None
        self.tally.resumes += self.starts > 0
        self.starts += 1
        workers = self.facts.get("workers", 0)
        return self.lab.start(self.training, self.folder, workers=workers, fault=inside, ranks=self.ranks)

    def play(self, fault: dict | None = None) -> Fork:
        """One start of one process to its end, with a fault from inside or a signal from outside."""
        (child,) = self.start(fault)
        if fault and fault["kind"] == "time":
            if not child.wait(fault["at"] * self.reference.seconds):
                child.signal(getattr(signal, f"SIG{fault['signal']}"))
        self.expect_end(child, STOP_LIMIT if fault and fault["kind"] == "time" else START_LIMIT)
        if fault and "signal" in fault:
            self.tally.kills += child.code != 0
            self.expect_code(child, {0} | FINE[fault["signal"]])
        return child

    def absolute(self, fault: dict) -> dict:
        """A fault with its place as a number of bytes or operations: drawn ones hold a share of the reference's."""
        counts = {"bytes": "bytes", "operation": "operations", "full": "bytes"}
        if fault["kind"] not in counts:
            return fault
        return {**fault, "at": max(1, int(fault["at"] * self.reference.counts[counts[fault["kind"]]]))}

    def expect_end(self, child: Fork, seconds: float) -> None:
        """Notes a hang, and ends it, where a start does not end in time."""
        if not child.wait(seconds):
            self.tally.hang(f"still ran after {seconds} s: {last_lines(child)}")
            child.end()

    def expect_code(self, child: Fork, codes: set[int]) -> None:
        """Notes an exit status that is none of ``codes``."""
        if child.code not in codes:
            self.tally.problems.append(f"exit status {child.code}, not one of {sorted(codes)}: {last_lines(child)}")

    def expect_words(self, child: Fork, *words: str) -> None:
        """Notes an output that does not hold one of the words."""
        if not any(word in child.text() for word in words):
            self.tally.problems.append(f"the output names none of {words}: {last_lines(child)}")

    def expect_message(self, child: Fork, *words: str) -> None:
        """Notes an output that does not hold one of the words, or that holds a traceback."""
        self.expect_words(child, *words)
        if "Traceback (most recent call last)" in child.text():
            self.tally.problems.append(f"a traceback instead of a message: {last_lines(child)}")

    def not_played(self, why: str) -> None:
        """Notes a fault that could not be brought about: without it, a good end shows nothing."""
        self.tally.problems.append(f"the fault could not be played: {why}")

    def expect_no_orphans(self) -> None:
        """Notes processes that outlive the training; no start may run now."""
        left = orphans(ORPHAN_LIMIT)
        if left:
            self.tally.hang(f"{len(left)} processes still ran {ORPHAN_LIMIT} s after the end of their training")

    def finish(self) -> Tally:
        """Starts the command until it has ended undisturbed, compares, and returns what happened."""
        from soak.compare import differences

        started = self.start()
        for child in started:
            self.expect_end(child, START_LIMIT)
            self.expect_code(child, {0})
        self.tally.runs += 1
        self.tally.problems += differences(self.reference.folder, self.folder)
        self.expect_no_orphans()
        return self.tally


def workers_of(child: Fork, wanted: int, seconds: float) -> list[int]:
    """The loader workers of a start, as soon as it has so many; empty where it ends before or never has them."""
    found: list[int] = []

    def there() -> bool:
        found[:] = children(child.pid)
        return len(found) >= wanted or child.ended()

    wait_until(there, seconds)
    return found if len(found) >= wanted else []


def last_lines(child: Fork, lines: int = 4) -> str:
    """The end of what a start has printed."""
    return " | ".join(child.text().strip().splitlines()[-lines:])[-800:] or "(it printed nothing)"


def draw_training(rng: random.Random, choices: tuple[str, ...] = ("pointpillar", "distilled")) -> dict:
    """A training and its number of workers."""
    return {"training": rng.choice(choices), "workers": rng.choice((0, 2))}
