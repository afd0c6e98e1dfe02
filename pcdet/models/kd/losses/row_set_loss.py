"""RowSetLoss: the base of methods that compare how the rows of a frame stand to one another.

``FeatureLoss.compare_rows`` gets the rows of all frames in one table and compares each with its match. A Gram matrix, a
matrix of distances, an attention over the frame and a contrast between rows need the rows of one frame together, and
none of another's: here they come frame by frame, in one tensor, so that no loop over frames waits for the device.
A method whose rows are made in another way puts them together with ``RowSets.of``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pcdet.models.kd.diagnostics import target_variance
from pcdet.models.kd.features.matching import MatchedFeatures
from pcdet.models.kd.graphs.sampling import sample
from pcdet.models.kd.losses.base import rows_a_frame, zero_of
from pcdet.models.kd.losses.feature_loss import FeatureLoss, Importance
from pcdet.utils.transfer import constant

NO_LENGTH = 1e-12  # a shorter row has no direction
NO_ROW = -1e30  # before a softmax, of a row that is not there: unlike infinity it leaves no NaN in a frame without rows


@dataclass(frozen=True)
class RowSets:
    """The sampled rows of each frame, filled up with zeros to the largest number of rows.

    Attributes:
        student: (B, N, C), or (B, N) for numbers.
        teacher: (B, N, C'), likewise, at the same places.
        valid: (B, N) False where there is no row.
    """

    student: Tensor
    teacher: Tensor
    valid: Tensor

    @classmethod
    def of(cls, student: Tensor, teacher: Tensor, sizes: list[int]) -> RowSets:
        """(n, C) and (n, C') rows frame by frame, and how many of them each frame has."""
        valid = torch.arange(max(sizes), device=teacher.device) < constant(sizes, teacher.device)[:, None]
        return cls(padded(student, sizes), padded(teacher, sizes), valid)

    @property
    def count(self) -> Tensor:
        """(B,) rows of each frame; 1 where there is none, to divide by."""
        return self.valid.sum(dim=1).clamp(min=1)

    def total(self, per_row: Tensor) -> Tensor:
        """(B, N, ...) -> (B, ...) the sum over the rows that there are."""
        return (per_row * self._aligned(self.valid, per_row)).sum(dim=1)

    def mean(self, per_row: Tensor) -> Tensor:
        """(B, N, ...) -> (B, ...) the mean over the rows that there are; 0 in a frame without."""
        total = self.total(per_row)
        return total / self._aligned(self.count, total)

    @torch.no_grad()
    def variance(self, per_row: Tensor) -> Tensor:
        """(B, N, C) -> the variance over the rows of all frames, mean over the channels, without picking the rows."""
        count = self.valid.sum().clamp(min=1)
        mean = self.total(per_row).sum(dim=0) / count
        return (self.total((per_row - mean).square()).sum(dim=0) / count).mean()

    def over_frames(self, per_frame: Tensor) -> Tensor:
        """(B,) -> the mean over the frames that have rows; 0 where none has."""
        present = self.valid.any(dim=1)
        return (per_frame * present).sum() / present.sum().clamp(min=1)

    @staticmethod
    def _aligned(value: Tensor, like: Tensor) -> Tensor:
        """With as many axes as another tensor."""
        return value.reshape(value.shape + (1,) * (like.dim() - value.dim()))


class RowSetLoss(FeatureLoss):
    """A distance between two sets of rows at the same places. A method defines ``compare_sets``.

    Args:
        **common: see ``FeatureLoss``.
    """

    def compare(
        self, matched: MatchedFeatures, importance: Importance, *, diagnose: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class: the mean over the frames that have rows. Logs what ``compare_sets`` logs, too."""
        sizes = matched.teacher.frame_sizes()
        rows, sizes = sample(importance(self.sample.by), sizes, self.sample.num, self.sample.mode)
        if len(rows) == 0:
            return zero_of(matched.student.source), {"nodes": rows_a_frame(sizes)}
        target = matched.teacher.take(rows)
        sets = RowSets.of(matched.student.take(rows), target, sizes)
        loss, logs = self.compare_sets(sets, diagnose=diagnose)
        logs = {key: sets.over_frames(value.detach()) if value.dim() else value for key, value in logs.items()}
        return sets.over_frames(loss), {"nodes": rows_a_frame(sizes), "target_var": target_variance(target), **logs}

    def compare_sets(self, sets: RowSets, *, diagnose: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """The distance of each frame, and what to log.

        Args:
            sets: the rows of both sides, float32 at least.
            diagnose: also compute the diagnostics that cost time.

        Returns:
            (B,) distances, finite in a frame without rows too; logs that are (B,), of which the mean over the frames
            with rows is logged, or numbers.
        """
        raise NotImplementedError


def unit_length(rows: Tensor) -> Tensor:
    """(..., C) rows scaled to length one. A row of zeros stays as it is, and gets no gradient."""
    length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    has_length = length > NO_LENGTH
    return torch.where(has_length, rows, 0) / torch.where(has_length, length, 1)


def root(value: Tensor) -> Tensor:
    """The square root, whose slope at 0 is taken for 0."""
    positive = value > 0
    return torch.where(positive, value, 1).sqrt() * positive


def padded(rows: Tensor, sizes: list[int]) -> Tensor:
    """(n, C) rows frame by frame, or (n,) numbers -> (B, N, C) or (B, N), filled up with zeros."""
    if min(sizes) == max(sizes):
        return rows.unflatten(0, (len(sizes), sizes[0]))
    return torch.nn.utils.rnn.pad_sequence(rows.split(sizes), batch_first=True)
