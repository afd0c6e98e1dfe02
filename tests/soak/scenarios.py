"""The scenarios by name. Each is a module: ``NAME``, ``SHARE`` of the time, ``LEAST`` seconds of a whole soak that it
asks for, ``draw(rng, number)`` for a case as plain JSON, and ``play(case, lab)`` for what happened in it.
"""

from __future__ import annotations

import random
from types import ModuleType

from soak import endurance, full_disk, kills, loader_workers, ranks, real_starts, short_reads, small_disk

SCENARIOS = {
    module.NAME: module
    for module in (kills, loader_workers, full_disk, small_disk, short_reads, ranks, real_starts, endurance)
}


def why_left_out(scenario: ModuleType, seconds: float) -> str | None:
    """Why a soak of so many seconds does without a scenario; None where it does not."""
    if seconds < scenario.LEAST:
        return f"needs SECONDS={scenario.LEAST}"
    return scenario.why_not() if hasattr(scenario, "why_not") else None


def draw(scenario: ModuleType, seed: int, number: int, seconds: float) -> dict:
    """Case ``number`` of a scenario: the same for the same seed. ``seconds`` are those that it may take."""
    rng = random.Random(f"{seed}/{scenario.NAME}/{number}")
    if scenario is endurance:
        return {"scenario": scenario.NAME, **endurance.draw(rng, number, seconds)}
    return {"scenario": scenario.NAME, **scenario.draw(rng, number)}
