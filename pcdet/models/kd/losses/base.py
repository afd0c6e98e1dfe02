"""The contract of a distillation loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from pcdet.models.kd.features.feature import Feature
from pcdet.models.kd.model_outputs import View
from pcdet.models.kd.schedule import ScheduleConfig


class KDLoss(nn.Module):
    """A distance between what a student and a teacher show in their taps.

    Attributes:
        PRESETS: preset -> kind of feature -> keys of the YAML node. Methods that do not read a feature use kind "".
        student_taps: what the loss reads of the student.
        teacher_taps: what it reads of the teacher.

    A YAML may list several taps under FEATURE; each is a loss of its own by the time a constructor runs.
    """

    INJECTED: ClassVar[tuple[str, ...]] = ("pair",)
    PRESETS: ClassVar[Mapping[str, Mapping[str, Mapping]]] = {}

    def __init__(self, *, weight: float, schedule: ScheduleConfig):
        super().__init__()
        if not weight >= 0:
            raise ValueError(f"WEIGHT must be at least 0, got {weight}")
        self.weight = weight
        self.schedule = schedule
        self.student_taps: tuple[str, ...] = ()
        self.teacher_taps: tuple[str, ...] = ()

    def forward(self, student: View, teacher: View, *, diagnose: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss before its weight, and what to log beside it.

        Args:
            student: after its training forward, with gradients.
            teacher: after its forward, without.
            diagnose: also compute the diagnostics that cost time.
        """
        raise NotImplementedError


def frame_mean(per_row: Tensor, sizes: list[int]) -> Tensor:
    """The mean within each frame, averaged over the frames that have rows: no frame counts more for being dense.

    Args:
        per_row: (n,) frame by frame.
        sizes: rows in each frame, summing to n.
    """
    frames = max(1, sum(size > 0 for size in sizes))
    share = [per_row.new_full((size,), 1 / (size * frames)) for size in sizes if size]
    return (per_row * torch.cat(share)).sum() if share else per_row.sum()


def zero_of(feature: Feature) -> Tensor:
    """0 with a path to the network, for a batch in which there is nothing to compare."""
    return feature.source.float().sum() * 0
