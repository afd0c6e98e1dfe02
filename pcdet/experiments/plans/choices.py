"""What a plan decides from numbers of its search split, and from counted costs: pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

Key = TypeVar("Key")

STEP = 0.25  # of a length, to which the control at equal compute is rounded up: few lengths, in the control's favour
STOPPED = 1.0  # points of the main score: a longer training that gains less has stopped improving


def best(values: Mapping[Key, float]) -> Key:
    """The key of the largest value; of equal ones the first."""
    return max(values, key=lambda key: values[key])


def stopped_improving(values: Sequence[float]) -> bool:
    """Whether the last of some trainings of rising length gains less than a point over the one before it."""
    return len(values) > 1 and values[-1] - values[-2] < STOPPED


def equal_length(cost: float, length: float = 1.0) -> float:
    """The length at which a control has cost as much as a method, or up to ``STEP`` more.

    Args:
        cost: multiply-accumulates of the method's training for one sample, over the control's.
        length: of the method's training.
    """
    return max(length, math.ceil(round(cost * length / STEP, 6)) * STEP)


def whole_length(length: float, epochs: int) -> float:
    """A length in whole epochs, parts of one rounded up: no control is cheaper than asked for, or trained twice.

    Args:
        length: of a control, as a multiple of the student's epochs.
        epochs: of the student.
    """
    return max(1, math.ceil(round(length * epochs, 6))) / epochs


def whole_epochs(epochs: float) -> int:
    """At least one; half ones are rounded up."""
    return max(1, math.floor(epochs + 0.5))


def finalists(means: Mapping[str, float], number: int, always: Sequence[str]) -> list[str]:
    """The ``number`` best methods and those that go on in any case, in the order of ``means``."""
    ranked = sorted(means, key=lambda name: -means[name])[:number]
    return [name for name in means if name in ranked or name in always]


def mean(values: Sequence[float]) -> float:
    """The mean."""
    return sum(values) / len(values)
