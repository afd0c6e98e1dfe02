"""FitNets (ICLR 2015): the student's rows, through a linear map, regress the teacher's.

The simplest feature distillation, and the control for everything that adds graphs. On a map only sampled cells take
part, since most cells of a LiDAR map are empty.
"""

from __future__ import annotations

from torch import Tensor, nn

from pcdet.models.feature_spec import KINDS
from pcdet.models.kd.features.matching import meet
from pcdet.models.kd.features.taps import head_taps
from pcdet.models.kd.graphs.sampling import MOST_POINTS, SampleConfig, sample
from pcdet.models.kd.losses.base import KDLoss, frame_mean, zero_of
from pcdet.models.kd.model_outputs import Pair, RowImportance, View
from pcdet.models.kd.schedule import CONSTANT, ScheduleConfig
from pcdet.registry import KD_LOSSES


@KD_LOSSES.register
class FitNet(KDLoss):
    """Mean squared difference between the teacher's rows and a linear map of the student's.

    Args:
        feature: tap: a batch_dict key or a module path.
        teacher_feature: the teacher's tap where it differs.
        weight: of the loss in the sum.
        schedule: of the weight over the epochs.
        sample: which rows take part.
        pair: both detectors.
    """

    PRESETS = {
        "default": {
            kind: {"SAMPLE": {"NUM": 1000, "BY": "num_points" if kind in ("pillar", "voxel") else "channel_l2"}}
            for kind in KINDS
        }
    }

    def __init__(
        self,
        *,
        feature: str | list[str],
        teacher_feature: str | list[str] | None = None,
        weight: float = 1.0,
        schedule: ScheduleConfig = CONSTANT,
        sample: SampleConfig = MOST_POINTS,
        pair: Pair,
    ):
        super().__init__(weight=weight, schedule=schedule)
        self.feature = feature
        self.teacher_feature = teacher_feature or feature
        self.sample = sample
        self.student_taps = (self.feature,)
        self.teacher_taps = (self.teacher_feature,)
        if sample.by == "score":
            self.teacher_taps += head_taps(pair.teacher, "conv_cls")
        self.student_adapter = nn.Linear(*pair.channels(self.feature, self.teacher_feature))
        pair.check_rows(self.feature, self.teacher_feature, sample.by)

    def forward(self, student: View, teacher: View, *, diagnose: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs nodes (rows a frame), target_var and, where rows differ, matched."""
        taught = teacher.feature(self.teacher_feature)
        met = meet(student.feature(self.feature), taught)
        source, target = met.student, met.teacher
        values = RowImportance(teacher, taught, met.teacher_rows).of(self.sample.by)
        rows, sizes = sample(values, target.frame_sizes(), self.sample.num, self.sample.mode)
        if len(rows) == 0:
            return zero_of(source), {"nodes": values.new_zeros(()), **met.logs}
        wanted = target.take(rows)
        delta = self.student_adapter(source.take(rows)) - wanted
        return frame_mean(delta.square().mean(dim=1), sizes), {
            "nodes": values.new_tensor(len(rows) / max(1, sum(s > 0 for s in sizes))),
            "target_var": wanted.var(dim=0, unbiased=False).mean(),
            **met.logs,
        }
