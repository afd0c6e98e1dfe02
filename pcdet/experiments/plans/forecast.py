"""How much work a plan still holds in the stages that come, for the time to go: before their runs are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pcdet.experiments.plans.choices import STEP
from pcdet.experiments.plans.plan import Plan

DISTILLED = 1.5  # cost of a distilled step against a plain one, until it is measured


def work_after(stage: str, plan: Plan, epochs: Mapping[str, float]) -> float:
    """Multiply-accumulates of the trainings in the stages after this one, about.

    Args:
        stage: that is about to begin.
        plan: of all stages.
        epochs: student -> multiply-accumulates of one epoch of the plain student.
    """
    stages = list(FORECASTS)
    later = stages[stages.index(stage) + 1 :] if stage in stages else stages
    return sum(FORECASTS[name](plan, student) * macs for name in later for student, macs in epochs.items())


def _no_trainings(plan: Plan, student: str) -> float:
    return 0.0


def _search(plan: Plan, student: str) -> float:
    """Epochs of the weight search, in those of the plain student."""
    if plan.search is None:
        return 0.0
    methods = sum(plan.has_losses(student, method) for method in plan.methods)
    return methods * len(plan.search.factors) * plan.search.epochs * DISTILLED


def _screening(plan: Plan, student: str) -> float:
    lengths = len(plan.methods) * plan.seeds.screening * DISTILLED + sum(plan.lengths) * plan.seeds.curves
    return lengths * plan.students[student].epochs


def _finals(plan: Plan, student: str) -> float:
    number = min(plan.finalists.best + len(plan.finalists.always), len(plan.methods))
    number += len({plan.base_of(student, method) for method in plan.unlabelled})  # self-training
    methods = number * (plan.seeds.finals + (sum(plan.lengths) - 1) * plan.seeds.curves) * DISTILLED
    controls = 2 * (1 + DISTILLED + STEP + plan.lengths[-1]) * plan.seeds.finals
    return (methods + controls) * plan.students[student].epochs


FORECASTS: dict[str, Callable[[Plan, str], float]] = {
    "teachers": _no_trainings,
    "labels": _no_trainings,
    "costs of the methods": _no_trainings,
    "weights": _search,
    "screening": _screening,
    "finals": _finals,
}
