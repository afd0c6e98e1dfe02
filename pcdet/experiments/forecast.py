"""How much work a plan still holds in the stages that come, for the time to go: before their runs are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pcdet.experiments.choices import STEP
from pcdet.experiments.plan import PLAIN

if TYPE_CHECKING:
    from pcdet.experiments.laboratory import Laboratory

DISTILLED = 1.5  # cost of a distilled step against a plain one, until it is measured


def work_after(stage: str, laboratory: Laboratory) -> float:
    """Multiply-accumulates of the trainings in the stages after this one, about."""
    stages = list(FORECASTS)
    later = stages[stages.index(stage) + 1 :] if stage in stages else []
    return sum(FORECASTS[name](laboratory, student) for name in later for student in laboratory.plan.students)


def _costs(laboratory: Laboratory, student: str) -> float:
    return 0.0  # seconds, beside hours


def _search(laboratory: Laboratory, student: str) -> float:
    plan = laboratory.plan
    if plan.search is None:
        return 0.0
    methods = sum(plan.has_losses(student, method) for method in plan.methods)
    return methods * len(plan.search.factors) * plan.search.epochs * _epoch(laboratory, student) * DISTILLED


def _screening(laboratory: Laboratory, student: str) -> float:
    plan = laboratory.plan
    lengths = len(plan.methods) * plan.seeds.screening * DISTILLED + sum(plan.lengths) * plan.seeds.curves
    return lengths * plan.students[student].epochs * _epoch(laboratory, student)


def _finals(laboratory: Laboratory, student: str) -> float:
    plan = laboratory.plan
    number = min(plan.finalists.best + len(plan.finalists.always), len(plan.methods))
    new_seeds = max(0, plan.seeds.finals - plan.seeds.screening)
    methods = number * (new_seeds + (sum(plan.lengths) - 1) * plan.seeds.curves) * DISTILLED
    controls = 2 * (new_seeds + (DISTILLED + STEP) * plan.seeds.finals + plan.lengths[-1] * new_seeds)
    return (methods + controls) * plan.students[student].epochs * _epoch(laboratory, student)


def _epoch(laboratory: Laboratory, student: str) -> float:
    """Of the plain student."""
    return laboratory.measures.macs_per_sample(student, PLAIN) * laboratory.splits.counts["train"]


FORECASTS: dict[str, Callable[[Laboratory, str], float]] = {
    "teachers": _costs,
    "costs of the methods": _costs,
    "weights": _search,
    "screening": _screening,
    "finals": _finals,
}
