"""KDLoss: what every distillation loss has, and the keys that all of them take.

A method derives from one of four, by what it compares: ``FeatureLoss`` (rows), ``RowSetLoss`` (how the rows of a frame
stand to one another), ``MapLoss`` or ``PredictionLoss``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from pcdet.models.kd.schedule import CONSTANT, ScheduleConfig
from pcdet.models.kd.step import Step


class KDLoss(nn.Module):
    """A distillation step -> a distance between the student and the teacher, and what to log beside it.

    A subclass with keys of its own names them in its constructor and passes the others on as ``**common``; a YAML may
    then have both.

    Args:
        weight: of the loss in the sum.
        schedule: of the weight over the epochs.

    Attributes:
        PRESETS: preset -> kind of feature -> keys of the YAML node. Methods that do not read a feature use
            what the student's head predicts on (``HeadTemplate.PREDICTS``).
        student_taps: what the loss reads of the student.
        teacher_taps: what it reads of the teacher.
        left_out: what the loss cannot compare in this pair of detectors, and why; None: nothing. It is warned of once,
            before the first step.
        free_target: where the loss trains its own target, and nothing keeps that from vanishing, the keys that make it
            so; else None. It is warned of before the first step.
    """

    INJECTED: ClassVar[tuple[str, ...]] = ("pair",)
    PRESETS: ClassVar[Mapping[str, Mapping[str, Mapping]]] = {}

    def __init__(self, *, weight: float = 1.0, schedule: ScheduleConfig = CONSTANT):
        super().__init__()
        if not weight >= 0:
            raise ValueError(f"WEIGHT must be at least 0, got {weight}")
        self.weight = weight
        self.schedule = schedule
        self.student_taps: tuple[str, ...] = ()
        self.teacher_taps: tuple[str, ...] = ()
        self.left_out: str | None = None
        self.free_target: str | None = None

    def forward(self, step: Step, *, diagnose: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss before its weight, and what to log.

        Args:
            step: the outputs of both models.
            diagnose: also compute the diagnostics that cost time.
        """
        raise NotImplementedError

    def is_waited_for(self) -> bool:
        """Whether other processes wait for this one's part of a synchronised norm's statistics and their gradients."""
        return self.training and any(isinstance(module, nn.SyncBatchNorm) for module in self.modules())


def zero_of(*tensors: Tensor) -> Tensor:
    """0 with a path to these outputs of the student, for a batch in which there is nothing to compare."""
    # float32 first: in float16 the sum of a large tensor overflows, and infinity times zero is NaN
    return sum(tensor.float().sum() for tensor in tensors) * 0


def frame_mean(per_row: Tensor, sizes: list[int]) -> Tensor:
    """The mean within each frame, averaged over the frames that have rows: no frame counts more for being dense.

    Args:
        per_row: (n,) frame by frame.
        sizes: rows in each frame, summing to n.
    """
    frames = max(1, sum(size > 0 for size in sizes))
    share = [per_row.new_full((size,), 1 / (size * frames)) for size in sizes if size]
    return (per_row * torch.cat(share)).sum() if share else per_row.sum()


def means_of_frames(per_row: Tensor, frame: Tensor, num_frames: int) -> Tensor:
    """(B,) the mean in each frame; 0 in a frame without rows.

    Args:
        per_row: (n,) in any order.
        frame: (n,) the frame of each.
        num_frames: B.
    """
    of_frame = torch.stack([per_row, torch.ones_like(per_row)], dim=1)
    total, count = per_row.new_zeros(num_frames, 2).index_add_(0, frame, of_frame).unbind(1)
    return total / count.clamp(min=1)


def rows_a_frame(sizes: list[int]) -> Tensor:
    """Mean number of rows in the frames that have any, for the log."""
    return torch.tensor(sum(sizes) / max(1, sum(size > 0 for size in sizes)))
