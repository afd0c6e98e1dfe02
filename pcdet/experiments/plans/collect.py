"""From a plan that is carried out to the content of its ``results.json``: runs, choices, gains over every control."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from pcdet.datasets.frame_scores import FrameScores
from pcdet.datasets.kitti.metrics import KITTI_METRICS
from pcdet.datasets.metrics import Metric
from pcdet.experiments.plans.laboratory import Laboratory
from pcdet.experiments.plans.runs import Run
from pcdet.experiments.plans.statistics import Bootstrap, holm, paired_gain
from pcdet.experiments.results.schema import PLAIN, SLICES, TEACHER, RunFacts

RESAMPLES = 1000

T = TypeVar("T")


def collect(laboratory: Laboratory, plan_content: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ``results.json``.

    Args:
        laboratory: whose stages are done.
        plan_content: the plan's file.
        facts: of the machine and the versions.
    """
    plan, counts, metrics = laboratory.plan, laboratory.splits.counts, laboratory.metrics
    return {
        "schema": 1,
        "name": plan.name,
        "title": plan.title,
        "plan": plan_content,
        "facts": facts,
        "classes": laboratory.classes,
        "metric": metrics.main.named,
        "metrics": None if metrics == KITTI_METRICS else metrics.to_json(),
        "frames": {name: counts[name] for name in ("train", "search", "report")},
        "runs": [_run_entry(laboratory, run) for run in _shown(laboratory.wanted.values(), "scoring the runs")],
        "choices": laboratory.choices,
        "comparisons": Comparisons(laboratory).entries(),
    }


def _shown(things: Iterable[T], label: str) -> Iterable[T]:
    """The same, under a bar while they are gone through: hundreds of runs take minutes."""
    return tqdm(list(things), desc=label, leave=False, dynamic_ncols=True, disable=None)


def _run_entry(laboratory: Laboratory, run: Run) -> dict[str, Any]:
    record, measured = laboratory.runs.record(run), laboratory.measures.of(run.subject, run.method)
    is_teacher, file = run.method == TEACHER, laboratory.runs.result_file(run)
    scores = laboratory.report.scores(file) if laboratory.is_reported(run) else None
    return {
        "id": run.id,
        "teacher": run.subject if is_teacher else laboratory.plan.students[run.subject].teacher,
        "student": None if is_teacher else run.subject,
        "method": run.method,
        "length": run.length,
        "epochs": run.epochs,
        "seed": run.seed,
        "factor": _factor(laboratory, run),
        "stage": run.stage,
        "folder": run.id,
        "run": vars(RunFacts.of(record)),
        "training_macs": round(laboratory.training_macs(run)),
        "train_cpu_s": record.get("train_cpu_s"),
        "train_wall_s": record.get("train_wall_s"),
        "params": measured["params"]["student"],
        "macs": round(sum(measured["macs_by_pass"]["student_forward"].values())),
        "search": {laboratory.metrics.main.column: laboratory.found(run)},
        "report": scores and {key: scores[key] for key in laboratory.metrics.kept_keys(laboratory.classes)},
    }


def _factor(laboratory: Laboratory, run: Run) -> float | None:
    """Of the method's weight: the trial's, or the chosen one; None where none was searched for."""
    if run.factor is not None or run.method == TEACHER:
        return run.factor
    entry = laboratory.choices["weights"].get(run.subject, {}).get(run.method)
    return None if entry is None else entry["chosen"]


class Comparisons:
    """Paired gains of every method over its controls.

    Args:
        laboratory: whose stages are done.
    """

    def __init__(self, laboratory: Laboratory):
        self.laboratory, self.plan = laboratory, laboratory.plan
        self.score_of = cache(self._score_of)
        self.frames_of = cache(self._frames_of)
        self.bootstrap = Bootstrap(RESAMPLES)
        self._seeds: dict[tuple[str, str, float], list[int]] = {}
        for run in laboratory.wanted.values():
            if run.method != TEACHER and laboratory.is_reported(run):
                self._seeds.setdefault((run.subject, run.method, run.length), []).append(run.seed)

    def entries(self) -> list[dict[str, Any]]:
        """All of them, with Holm's correction over the finalists of each control and score."""
        scores, cases = self.laboratory.metrics.scores, _shown(self._cases(), "comparing with controls")
        entries = [entry for case in cases for score in scores if (entry := self._entry(*case, score))]
        families: dict[tuple, list[dict]] = {}
        for entry in entries:
            if entry["length"] == 1 and entry["method"] in self.laboratory.choices["finalists"][entry["student"]]:
                key = entry["student"], entry["control"], entry["metric"]
                families.setdefault(key, []).append(entry)
        for family in families.values():
            for entry, p in zip(family, holm([entry["p"] for entry in family]), strict=True):
                entry["p_holm"] = p
        return entries

    def _cases(self) -> Iterator[tuple[str, str, float, str, str, float]]:
        """(student, method, length, what the control is called, control, its length)."""
        for student, method, length in self._seeds:
            if method == PLAIN:
                continue
            for own, other in self.plan.pairs:
                if own == method:
                    yield student, method, length, other, other, length
            for row in self.laboratory.self_trained(student, [method]):
                yield student, method, length, row, row, length
            for control in (PLAIN, SLICES):
                if control == method or (control == SLICES and not self.plan.begins_with_weights(student, method)):
                    continue
                yield student, method, length, control, control, length
                if equal := self.laboratory.choices["equal_length"][student].get(method, {}).get(control):
                    if length == 1:
                        yield student, method, length, f"{control} at equal compute", control, equal
                kind = "best_length" if control == PLAIN else "slices_best_length"
                best = self.laboratory.choices[kind][student]["chosen"]
                yield student, method, length, f"{control} at its best length", control, best

    def _entry(
        self, student: str, method: str, length: float, called: str, control: str, control_length: float, score: Metric
    ) -> dict[str, Any] | None:
        """One comparison; None where no seed is common."""
        own, base = (student, method, length), (student, control, control_length)
        seeds = sorted(set(self._seeds.get(own, ())) & set(self._seeds.get(base, ())))
        if not seeds:
            return None
        sides = [[self.score_of(*side, seed, score) for seed in seeds] for side in (own, base)]
        resampled = None
        if len(seeds) > 1:
            frames = [[self.frames_of(*side, seed, score) for seed in seeds] for side in (own, base)]
            resampled = self.bootstrap.gains(*frames)
        gain = paired_gain(*sides, bootstrap=resampled)
        cost = [self.laboratory.training_macs(self._run(*side, seeds[0])) for side in (own, base)]
        return {
            "student": student,
            "method": method,
            "length": length,
            "control": called,
            "control_length": control_length,
            "metric": score.name,
            "seeds": len(seeds),
            "gains": list(gain.differences),
            "mean": gain.mean,
            "interval": gain.interval and list(gain.interval),
            "bootstrap": gain.bootstrap and list(gain.bootstrap),
            "p": gain.p,
            "p_holm": None,
            "p_least": gain.p_least,
            "shown": gain.shown,
            "cost": cost[0] / cost[1],
        }

    def _run(self, student: str, method: str, length: float, seed: int) -> Run:
        return self.laboratory.run(student, method, length, seed)

    def _score_of(self, student: str, method: str, length: float, seed: int, score: Metric) -> float:
        return self.laboratory.report.score(self._result_file(student, method, length, seed), score)

    def _frames_of(self, student: str, method: str, length: float, seed: int, score: Metric) -> FrameScores:
        return self.laboratory.report.frame_scores(self._result_file(student, method, length, seed), score)

    def _result_file(self, student: str, method: str, length: float, seed: int) -> Path:
        return self.laboratory.runs.result_file(self._run(student, method, length, seed))
