"""DKD (decoupled knowledge distillation, CVPR 2022) in a binary form, for heads of sigmoids.

The source splits the divergence of two softmaxes into that of the target class against all others (TCKD) and that
among the others (NCKD), and weighs the two by alpha and beta. A head of sigmoids asks one yes-or-no question for each
class, so that here, for an anchor whose object has class t, with KL the divergence of two coins, T the temperature:
    T^2 * (alpha * KL(teacher_t || student_t) + beta * sum over the other classes k of KL(teacher_k || student_k)).
The constants are those for detection: alpha 1, beta 0.5, T 1. Ours, beside the binary form: the anchors are those
assigned to an object, as in PivotalLogit; the mean over those of a frame, then over the frames; and the weight, which
makes the loss about a tenth of the detection loss at the start, on the simulated PointPillars.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pcdet.models.kd.losses.base import means_of_frames, zero_of
from pcdet.models.kd.losses.prediction_loss import HeadOutputs, PredictionLoss
from pcdet.registry import KD_LOSSES


@KD_LOSSES.register
class DKD(PredictionLoss):
    """Binary divergences of class scores at the anchors of objects, the object's class and the others weighed apart.

    Args:
        alpha: weight of the score of the object's class.
        beta: weight of the scores of the others.
        temperature: of the logits.
        weight: of the loss in the sum.
        **common: see ``PredictionLoss``.
    """

    def __init__(
        self, *, alpha: float = 1.0, beta: float = 0.5, temperature: float = 1.0, weight: float = 0.2, **common: Any
    ):
        super().__init__(weight=weight, **common)
        if not temperature > 0 or not alpha >= 0 or not beta >= 0:
            raise ValueError(
                f"TEMPERATURE must be above 0, ALPHA and BETA at least 0, got {temperature}, {alpha} and {beta}"
            )
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    @property
    def reads_boxes(self) -> bool:
        """See the base class."""
        return False

    def compare_predictions(self, student: HeadOutputs, teacher: HeadOutputs) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs pivots (anchors a frame), target and others, the two parts."""
        labels = student.labels
        if labels is None:
            raise ValueError(
                "DKD needs the student head's targets in its forward_ret_dict, found none; use PivotalLogit with "
                "PIVOT score"
            )
        where, num_frames = (labels > 0).nonzero(as_tuple=True), len(labels)
        if len(where[0]) == 0:
            return zero_of(*student.maps), {"pivots": torch.zeros(())}
        divergence = self._divergence(student.classes_at(where), teacher.classes_at(where))
        target = torch.zeros_like(divergence)
        target.scatter_(1, labels[where].long().clamp(max=self.num_class)[:, None] - 1, 1.0)
        parts = [
            weight * means_of_frames((divergence * of_part).sum(dim=1), where[0], num_frames).mean()
            for weight, of_part in ((self.alpha, target), (self.beta, 1 - target))
        ]
        logs = {"target": parts[0].detach(), "others": parts[1].detach()}
        return sum(parts), {"pivots": torch.tensor(len(where[0]) / num_frames), **logs}

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(n, classes) logits -> (n, classes) T^2 KL(teacher || student), each class a coin."""
        ours, theirs = student / self.temperature, teacher / self.temperature
        yes = theirs.sigmoid() * (logsigmoid(theirs) - logsigmoid(ours))
        no = (-theirs).sigmoid() * (logsigmoid(-theirs) - logsigmoid(-ours))
        return self.temperature**2 * (yes + no)
