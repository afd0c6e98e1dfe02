"""TapLoss: what methods that compare a tap of each side have in common, on rows or on maps."""

from __future__ import annotations

from typing import Any

from pcdet.models.kd.losses.base import KDLoss
from pcdet.models.kd.model_outputs import ModelPair


class TapLoss(KDLoss):
    """A distance between a tap of the student's and one of the teacher's, matched by position.

    Args:
        feature: tap: a batch_dict key (pillar_features, spatial_features_2d, point_features) or a module path. Of
            several in a YAML, each makes a loss of its own.
        teacher_feature: the teacher's tap where it differs.
        pair: both detectors.
        **common: see ``KDLoss``.

    Attributes:
        student_channels: of the student's tap; adapters are sized by it.
        teacher_channels: of the teacher's.

    Raises:
        ValueError: a tap is none, or it is known that the two cannot be matched.
    """

    def __init__(
        self,
        *,
        feature: str | list[str],
        teacher_feature: str | list[str] | None = None,
        pair: ModelPair,
        **common: Any,
    ):
        super().__init__(**common)
        self.feature = feature
        self.teacher_feature = teacher_feature or feature
        self.student_taps = (self.feature,)
        self.teacher_taps = (self.teacher_feature,)
        self.student_channels, self.teacher_channels = pair.channels(self.feature, self.teacher_feature)
        pair.check_rows(self.feature, self.teacher_feature)
