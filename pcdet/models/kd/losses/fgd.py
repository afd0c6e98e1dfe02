"""FGD (focal and global distillation, CVPR 2022): foreground and background apart, weighed by the teacher's attention.

A map has two attentions, at temperature 0.5: a spatial one, HW * softmax over the cells of the channels' mean |value|,
and one of channels, C * softmax over the channels of the cells' mean |value|. With them, in each frame
    focal = alpha * sum over the foreground of w * d + beta * the same over the background,
    d = sum over the channels of (student - teacher)^2, times both attentions of the teacher,
    attention = gamma * (sum |difference of the spatial attentions| + sum |difference of those of channels|),
    relation = lambda * sum of (R_s(student) - R_t(teacher))^2, where R adds to a map what a trained block of global
    context (GCNet) makes of it.
w is one over the cells of the object, the largest where objects overlap, and one over the cells of the background.
The sums are the source's, and so are its constants for one-stage detectors: 1e-3, 5e-4, 5e-4 and 5e-6, at weight 1.
Ours: an object's cells are those on its rotated ground area; the last layers of the global context begin near zero,
not at zero, so that all layers learn from the first step on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pcdet.models.kd.features.feature import Feature
from pcdet.models.kd.losses.alignment import align_maps
from pcdet.models.kd.losses.map_loss import MapLoss
from pcdet.models.kd.losses.object_cells import object_cells
from pcdet.models.kd.step import Step
from pcdet.ops.edge_conv.terms import full_precision
from pcdet.registry import KD_LOSSES

NEAR_ZERO = 1e-3  # standard deviation of the last layers' first weights


class GlobalContext(nn.Module):
    """A map -> the map plus one vector a frame, made of the cells by attention (GCNet's block).

    Args:
        channels: of the map.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.attend = nn.Conv2d(channels, 1, 1, bias=False)  # a softmax over the cells takes any bias away
        hidden = max(1, channels // 2)
        self.transform = nn.Sequential(
            nn.Linear(channels, hidden), nn.LayerNorm(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels)
        )
        nn.init.normal_(self.transform[-1].weight, std=NEAR_ZERO)
        nn.init.zeros_(self.transform[-1].bias)

    def forward(self, dense: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        share = self.attend(dense).flatten(2).softmax(dim=2)
        context = (dense.flatten(2) * share).sum(dim=2)
        return dense + self.transform(context)[:, :, None, None]


@KD_LOSSES.register
class FGD(MapLoss):
    """Focal and global distillation of a map.

    The student's map goes through a 1x1 convolution first where its width is not the teacher's.

    Args:
        temperature: of the attention.
        alpha: weight of the foreground.
        beta: weight of the background.
        gamma: weight of the difference of the attentions.
        relation: weight of the global relation (lambda).
        **common: see ``MapLoss``.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.5,
        alpha: float = 1e-3,
        beta: float = 5e-4,
        gamma: float = 5e-4,
        relation: float = 5e-6,
        **common: Any,
    ):
        super().__init__(**common)
        if not temperature > 0 or not min(alpha, beta, gamma, relation) >= 0:
            raise ValueError(
                "TEMPERATURE must be above 0, ALPHA, BETA, GAMMA and RELATION at least 0, got "
                f"{temperature}, {alpha}, {beta}, {gamma} and {relation}"
            )
        self.temperature, self.alpha, self.beta, self.gamma, self.relation = temperature, alpha, beta, gamma, relation
        self.student_adapter = align_maps(self.student_channels, self.teacher_channels)
        self.student_context = GlobalContext(self.teacher_channels)
        self.teacher_context = GlobalContext(self.teacher_channels)

    def compare(self, student: Feature, teacher: Feature, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs foreground, background, attention and relation, the four parts.

        Raises:
            ValueError: the batch has no ``gt_boxes``.
        """
        boxes = step.batch.get("gt_boxes")
        if boxes is None:
            raise ValueError("FGD needs gt_boxes, which this batch lacks")
        ours, theirs = self.student_adapter(full_precision(student.dense)), full_precision(teacher.dense)
        parts = self._focal(ours, theirs, object_cells(student, boxes))
        relation = (self.student_context(ours) - self.teacher_context(theirs)).square().sum(dim=(1, 2, 3))
        parts["relation"] = self.relation * relation
        return sum(parts.values()), {name: part.detach().mean() for name, part in parts.items()}

    def _focal(self, ours: Tensor, theirs: Tensor, on: Tensor) -> dict[str, Tensor]:
        """Foreground, background and attention, (B,) each, of two maps and the (B, T, H * W) cells of objects."""
        (cells, channels), (own_cells, own_channels) = self._attention(theirs), self._attention(ours)
        squares = (ours - theirs).flatten(2).square()
        distance = (squares * channels[:, :, None]).sum(dim=1) * cells
        foreground, background = cell_weights(on, distance.dtype)
        apart = (own_cells - cells).abs().sum(dim=1) + (own_channels - channels).abs().sum(dim=1)
        return {
            "foreground": self.alpha * (distance * foreground).sum(dim=1),
            "background": self.beta * (distance * background).sum(dim=1),
            "attention": self.gamma * apart,
        }

    def _attention(self, dense: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> (B, H * W) and (B, C) attention, each with a mean of one in every frame."""
        magnitude = dense.flatten(2).abs()
        cells, channels = (magnitude.mean(dim=dim) / self.temperature for dim in (1, 2))
        return cells.softmax(dim=1) * cells.shape[1], channels.softmax(dim=1) * channels.shape[1]


def cell_weights(on: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(B, T, cells) cells on objects -> (B, cells) weights of the foreground, and of the background."""
    size = on.sum(dim=2, keepdim=True).clamp(min=1).to(dtype)
    foreground = (on / size).amax(dim=1) if on.shape[1] else on.new_zeros((len(on), on.shape[2]), dtype=dtype)
    background = (foreground == 0).to(dtype)
    return foreground, background / background.sum(dim=1, keepdim=True).clamp(min=1)
