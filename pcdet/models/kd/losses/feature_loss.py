"""FeatureLoss: the base of methods that compare the rows of two taps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from pcdet.models.kd.diagnostics import target_variance
from pcdet.models.kd.features.matching import MatchedFeatures
from pcdet.models.kd.features.taps import head_taps
from pcdet.models.kd.graphs.sampling import MOST_POINTS, SampleConfig, sample
from pcdet.models.kd.losses.base import frame_mean, rows_a_frame, zero_of
from pcdet.models.kd.losses.tap_loss import TapLoss
from pcdet.models.kd.model_outputs import ModelPair
from pcdet.models.kd.step import Step

Importance = Callable[[str], Tensor]  # measure -> (n,) importance of the matched rows


class FeatureLoss(TapLoss):
    """A distance between the rows of two taps that stand at the same place.

    A method defines ``compare_rows``, its distance between sampled rows, or ``compare`` where it needs all of them.

    Args:
        sample: which rows take part.
        pair: both detectors.
        **common: see ``TapLoss``.
    """

    def __init__(self, *, sample: SampleConfig = MOST_POINTS, pair: ModelPair, **common: Any):
        super().__init__(pair=pair, **common)
        self.sample = sample
        self.read_importance(sample.by, pair)

    def read_importance(self, measure: str, pair: ModelPair) -> None:
        """Taps what a measure of importance needs, for a constructor.

        Raises:
            ValueError: the rows do not match, or the teacher cannot give the measure.
        """
        if measure == "score":
            self.teacher_taps = tuple(dict.fromkeys((*self.teacher_taps, *head_taps(pair.teacher, scores_only=True))))
        pair.check_rows(self.feature, self.teacher_feature, measure)

    def forward(self, step: Step, *, diagnose: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs matched where rows differ, and what ``compare`` logs."""
        matched = step.matched(self.feature, self.teacher_feature)
        importance = partial(step.importance, self.feature, self.teacher_feature)
        loss, logs = self.compare(matched, importance, diagnose=diagnose)
        return loss, logs | matched.logs

    def compare(
        self, matched: MatchedFeatures, importance: Importance, *, diagnose: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean distance of the most important rows, in each frame and over the frames.

        Logs nodes (rows a frame) and target_var.

        Args:
            matched: the rows of both sides.
            importance: gives that of the matched rows by a measure.
            diagnose: also compute the diagnostics that cost time.
        """
        sizes = matched.teacher.frame_sizes()
        rows, sizes = sample(importance(self.sample.by), sizes, self.sample.num, self.sample.mode)
        if len(rows) == 0 and not self.is_waited_for():
            return zero_of(matched.student.source), {"nodes": rows_a_frame(sizes)}
        target = matched.teacher.take(rows)
        loss = frame_mean(self.compare_rows(matched.student.take(rows), target), sizes)
        return loss, {"nodes": rows_a_frame(sizes), "target_var": target_variance(target)}

    def compare_rows(self, student_rows: Tensor, teacher_rows: Tensor) -> Tensor:
        """(n, C) and (n, C') rows at the same places, float32 at least -> (n,) their distances."""
        raise NotImplementedError
