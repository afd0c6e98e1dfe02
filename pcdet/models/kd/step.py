"""One distillation step: what both models have put out, and what losses ask of both."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pcdet.models.kd.features.feature import Feature
from pcdet.models.kd.features.matching import MatchedFeatures, match_rows
from pcdet.models.kd.graphs.sampling import importance_scores, inside_boxes
from pcdet.models.kd.model_outputs import ModelOutputs


class Step:
    """The outputs of both models for one batch -> their features, matched, and the importance of each match.

    Whatever losses have in common is computed once, by the first that asks for it.

    Args:
        student: after its training forward, with gradients.
        teacher: after its forward, without.
        batch: the batch_dict that both were given; ``gt_boxes`` (B, T, 7 or more) are read.
    """

    def __init__(self, student: ModelOutputs, teacher: ModelOutputs, batch: dict[str, Any]):
        self.student = student
        self.teacher = teacher
        self.batch = batch
        self._teacher_features: dict[str, Feature] = {}
        self._matched: dict[tuple[str, str], MatchedFeatures] = {}
        self._importance: dict[tuple[str, str, str], Tensor] = {}

    def matched(self, student_tap: str, teacher_tap: str) -> MatchedFeatures:
        """Two taps -> the rows of both that stand at the same place.

        Raises:
            ConfigError: a tap has no rows of which it is known where they stand.
            ValueError: rows of these kinds cannot be matched.
        """
        key = student_tap, teacher_tap
        if key not in self._matched:
            self._matched[key] = match_rows(self.student.feature(student_tap), self._teacher_feature(teacher_tap))
        return self._matched[key]

    def importance(self, student_tap: str, teacher_tap: str, measure: str) -> Tensor:
        """Two taps -> (n,) how much each of their matched rows matters, measured on the teacher.

        Args:
            student_tap: of ``matched``.
            teacher_tap: of ``matched``.
            measure: one of ``sampling.Measure``. "random" is drawn anew at every call.

        Raises:
            ValueError: the measure needs something that is not there.
        """
        key = student_tap, teacher_tap, measure
        if key in self._importance:
            return self._importance[key]
        feature, rows = self._teacher_feature(teacher_tap), self.matched(student_tap, teacher_tap).teacher_rows
        score = self.teacher.score_at(feature) if measure == "score" else None
        foreground = self._foreground(feature) if measure == "foreground" else None
        scores = importance_scores(measure, feature, score, foreground)
        scores = scores if rows is None else scores[rows]
        if measure != "random":
            self._importance[key] = scores
        return scores

    def _teacher_feature(self, tap: str) -> Feature:
        """All rows of a teacher's tap."""
        if tap not in self._teacher_features:
            self._teacher_features[tap] = self.teacher.feature(tap)
        return self._teacher_features[tap]

    def _foreground(self, feature: Feature) -> Tensor | None:
        """(M,) True inside a ground-truth box, or None for a batch without boxes."""
        boxes = self.batch.get("gt_boxes")
        return None if boxes is None else inside_boxes(feature.xyz, feature.batch_idx, boxes)
