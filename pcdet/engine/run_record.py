"""``run.json``: the facts of a run, its sessions with their times, and its results."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pcdet.engine.run_facts import cpu_seconds, differences, jsonable, now
from pcdet.engine.trainer import Hook
from pcdet.utils import commu_utils
from pcdet.utils.safe_files import WriteError, put_aside, replacing

NUMBER = (int, float)
OF_MACHINE = ("git_commit", "versions", "device", "config.ROOT_DIR")  # of what computes, not of what is computed
TOLD = 5  # changes that the log names
TIMES = [("epoch", int), ("position", NUMBER), ("wall_s", NUMBER), ("cpu_s", NUMBER)]
SESSION = (  # (name, type) of what a session must have, and of what it may have, null as if it were not there
    [("from_epoch", int)],
    [("wall_s", NUMBER), ("cpu_s", NUMBER), ("to_epoch", int), ("times", list)],
)


class RunRecord:
    """The content of ``run.json``, gathered over the sessions (start, kill, resume) of one run.

    ``train_wall_s`` and ``train_cpu_s`` are sums over the sessions; a session's CPU time covers this process, its ended
    loader workers, and all ranks. A killed session counts up to its last finished epoch. What a session does over,
    since it begins before the end of an earlier one, no longer counts.

    A file that cannot be used is put aside, with a warning.

    Args:
        path: the file; what an earlier session wrote there is kept.
        facts: of this process, from :mod:`pcdet.engine.run_facts`. They become the run's when a session begins, or
            where the file has none yet.
        logger: warned.
    """

    def __init__(self, path: str | Path, facts: Mapping[str, Any], logger: logging.Logger | None = None):
        self.path, self.facts = Path(path), jsonable(facts)
        self.logger = logger or logging.getLogger("pcdet")
        self.content: dict[str, Any] = self._read() or {"sessions": [], "results": {}}
        self.session: dict[str, Any] | None = None

    def begin_session(self, epoch: int, it: int, iters_per_epoch: int) -> None:
        """Opens the entry of a training that begins after ``it`` iterations; its times come with :meth:`add_time`.

        A training from the beginning gets a record of its own; the old file is kept as ``run-old<N>.json``.
        """
        if it == 0 and (self.content["sessions"] or self.content["results"]):
            if self.path.is_file():
                self.logger.warning(f"{self.path} is of another training: kept as {put_aside(self.path)}")
            self.content = {"sessions": [], "results": {}}
        self._forget_after(epoch, it / iters_per_epoch)
        changed = differences(self.content, self.facts) if self.content["sessions"] else {}
        self._tell_of(changed)
        self.describe()
        own = {name: value for name, value in self.facts.items() if name != "config"}
        self.session = {**own, "started": now(), "from_epoch": epoch, "changed": changed, "times": []}
        _sum_up(self.session)
        self.content["sessions"].append(self.session)

    def describe(self) -> None:
        """Makes the facts of this process those of the run."""
        self.content.update(self.facts)

    def add_time(self, epoch: int, it: int, iters_per_epoch: int, wall_s: float, cpu_s: float) -> None:
        """Adds training time up to the end of ``epoch`` epochs and ``it`` iterations; :meth:`write` it."""
        part = {"epoch": epoch, "iteration": it, "position": it / iters_per_epoch}
        self.session["times"].append({**part, "wall_s": round(wall_s, 3), "cpu_s": round(cpu_s, 3)})
        self.session["ended"] = now()
        _sum_up(self.session)
        self._add_up()

    def add_result(self, epoch: int | str, result: Mapping[str, float]) -> None:
        """Keeps an evaluation's metrics and writes the file."""
        self.content["results"][str(epoch)] = jsonable(result)
        self.write()

    def set_best(self, metric: str, value: float, epoch: int) -> None:
        """Keeps which evaluation was the best so far and writes the file."""
        self.content["best"] = {"metric": metric, "value": value, "epoch": epoch}
        self.write()

    def write(self) -> None:
        """Writes the file, whole or not at all.

        Raises:
            WriteError: the disk is full, or the folder cannot be written to.
        """
        if not self.facts.keys() & self.content.keys():
            self.describe()
        try:
            with replacing(self.path) as stream:
                stream.write((json.dumps(self.content, indent=2) + "\n").encode())
        except OSError as error:
            raise WriteError(
                f"the run's record {self.path} cannot be written: {error.strerror or error}; make room, and start the "
                "same command again"
            ) from error

    def _tell_of(self, changed: Mapping[str, Sequence]) -> None:
        """Warns of what a training goes on with that its last session did not have: data, settings, a seed."""
        told = [
            _change(name, *values)
            for name, values in changed.items()
            if name not in OF_MACHINE and name.partition(".")[0] not in OF_MACHINE
        ]
        if told:
            more = f", and {len(told) - TOLD} more; {self.path} names them all" if len(told) > TOLD else ""
            self.logger.warning(f"This training goes on with other settings: {'; '.join(told[:TOLD])}{more}")

    def _read(self) -> dict[str, Any] | None:
        if not self.path.is_file():
            return None
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            problem = f"is not JSON ({error})"
        else:
            problem = misfit(content)
        if problem is not None:
            self.logger.warning(f"{self.path} {problem}: kept as {put_aside(self.path)}, and a new one is begun")
            return None
        for name, empty in (("results", {}), ("sessions", [])):
            content[name] = content.get(name) or empty
        for session in content["sessions"]:
            if session.get("times") is None:
                session["times"] = _even_times(session)
            _sum_up(session)
        return content

    def _forget_after(self, epoch: int, position: float) -> None:
        """Drops what was recorded beyond a number of epochs, whole ones and as a fraction."""
        kept = []
        for session in self.content["sessions"]:
            before, session["times"] = session["times"], [t for t in session["times"] if t["position"] <= position]
            if session["from_epoch"] <= epoch and (session["times"] or not before):
                kept.append(session)
            if len(before) > len(session["times"]):
                session["times_dropped"] = session.get("times_dropped", 0) + len(before) - len(session["times"])
                _sum_up(session)
        self.content["sessions"] = kept
        self.content["results"] = {
            name: result
            for name, result in self.content["results"].items()
            if not name.isdecimal() or int(name) <= epoch
        }
        if self.content.get("best") is not None and self.content["best"]["epoch"] > epoch:
            del self.content["best"]
        self._add_up()

    def _add_up(self) -> None:
        for total, part in (("train_wall_s", "wall_s"), ("train_cpu_s", "cpu_s")):
            self.content[total] = round(sum(s[part] for s in self.content["sessions"]), 3)


class RecordTimes(Hook):
    """Keeps a :class:`RunRecord`'s times, from epoch to epoch; what other hooks do in between is not counted.

    All ranks need it (others than rank 0 pass ``None``). Put it after Checkpoint and before Evaluate. A record that
    cannot be written on the way is warned of, and written with the next epoch.
    """

    def __init__(self, record: RunRecord | None):
        self.record = record
        self._since: tuple[float, float] | None = None  # wall and CPU clock at the beginning of a span not yet added

    def before_train(self, trainer) -> None:  # noqa: D102
        if self.record is not None:
            self.record.begin_session(trainer.epoch, trainer.it, trainer.iters_per_epoch)

    def before_epoch(self, trainer) -> None:  # noqa: D102
        self._since = time.perf_counter(), cpu_seconds()

    def after_epoch(self, trainer) -> None:  # noqa: D102
        shares = commu_utils.gather_to_main(cpu_seconds() - self._since[1])
        if self.record is None:
            return
        self._add(trainer, sum(shares))
        try:
            self.record.write()
        except WriteError as error:
            if trainer.epoch == trainer.epochs:
                raise
            trainer.logger.warning(f"{error}. Training goes on; the next epoch is another try")

    def on_interrupt(self, trainer) -> None:  # noqa: D102
        if self.record is not None and self._since is not None:  # None: no iteration since the last epoch's end
            self._add(trainer, cpu_seconds() - self._since[1])  # other ranks may be gone: this process alone is counted
            self.record.write()

    def _add(self, trainer, cpu_s: float) -> None:
        wall_s, self._since = time.perf_counter() - self._since[0], None
        self.record.add_time(trainer.epoch, trainer.it, trainer.iters_per_epoch, wall_s, cpu_s)


def misfit(content: Any) -> str | None:
    """What keeps JSON from being a run's record, as the rest of a sentence; None if nothing does."""
    if not isinstance(content, dict):
        return f"must hold an object, got {type(content).__name__}"
    for name, kind, needed, possible in (("sessions", list, *SESSION), ("results", dict, (), ())):
        value = kind() if content.get(name) is None else content[name]
        if not isinstance(value, kind):
            return f"must hold a {kind.__name__} as {name}, got {type(value).__name__}"
        for entry in value.values() if kind is dict else value:
            if not _has(entry, needed, possible):
                return f"has an entry of {name} that is none: {str(entry)[:80]}"
    times = [part for session in content.get("sessions") or () for part in session.get("times") or ()]
    if not all(_has(part, TIMES) for part in times):
        return "has times without epoch, position, wall_s and cpu_s"
    best = content.get("best")
    if best is not None and not is_best(best):
        return f"has a best that lacks metric, value or epoch: {str(best)[:80]}"
    return None


def is_best(entry: Any) -> bool:
    """Whether an entry says which evaluation was the best: metric, value and epoch."""
    return _has(entry, [("metric", str), ("value", NUMBER), ("epoch", int)])


def _has(entry: Any, needed: Sequence[tuple], possible: Sequence[tuple] = ()) -> bool:
    return (
        isinstance(entry, dict)
        and all(isinstance(entry.get(name), kind) for name, kind in needed)
        and all(isinstance(entry[name], kind) for name, kind in possible if entry.get(name) is not None)
    )


def _change(name: str, before: Any, after: Any) -> str:
    """One change for the log, its values cut short; the name alone where they differ only further on."""
    short_before, short_after = f"{before!s:.60}", f"{after!s:.60}"
    return name if short_before == short_after else f"{name}: {short_before}, now {short_after}"


def _sum_up(session: dict) -> None:
    """Fills a session's totals and its end from its times."""
    times = session["times"]
    for part in ("wall_s", "cpu_s"):
        session[part] = round(sum(t[part] for t in times), 3)
    if times:
        session.update(to_epoch=times[-1].get("epoch"), to_iteration=times[-1].get("iteration"))


def _even_times(session: Mapping) -> list[dict]:
    """The times of a session of an older file, which has their sum alone: as if all its epochs had taken equally."""
    first, last = session["from_epoch"], session.get("to_epoch")
    if last is None:
        return []
    count = max(last - first, 1)
    shares = {part: (session.get(part) or 0.0) / count for part in ("wall_s", "cpu_s")}
    ends = range(first + 1, last + 1) if last > first else (last,)
    times = [{"epoch": end, "iteration": None, "position": end, **shares} for end in ends]
    times[-1]["iteration"] = session.get("to_iteration")
    return times
