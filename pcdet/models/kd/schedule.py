"""How a loss's weight changes over the epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """A factor on a loss's weight.

    Attributes:
        name: "constant"; "ramp", 1 / ``epochs`` in the first epoch, as much more in each, and 1 from number ``epochs``
            on; "gaussian", exp(-5 (1 - t / ``epochs``)^2) after t epochs, and 1 after ``epochs``; "cosine", half a
            cosine from 1 in the first epoch towards 0, which it would reach in the epoch after the last; "stop", 1 for
            the first ``epochs``, then 0.
        epochs: for "ramp", "gaussian" and "stop".
    """

    name: Literal["constant", "ramp", "gaussian", "cosine", "stop"] = "constant"
    epochs: int | None = None

    def __post_init__(self):
        if self.name in ("ramp", "gaussian", "stop") and (self.epochs is None or self.epochs < 1):
            raise ValueError(f"EPOCHS: {self.name} needs a number of epochs, at least 1; got {self.epochs}")

    def at(self, epoch: int, total_epochs: int) -> float:
        """The factor during ``epoch`` (from 0) of ``total_epochs``."""
        if self.name == "ramp":
            return min(1.0, (epoch + 1) / self.epochs)
        if self.name == "gaussian":
            return math.exp(-5 * (1 - min(1.0, epoch / self.epochs)) ** 2)
        if self.name == "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(epoch, total_epochs) / max(total_epochs, 1)))
        if self.name == "stop":
            return 1.0 if epoch < self.epochs else 0.0
        return 1.0


CONSTANT = ScheduleConfig()
