"""Which rows of a feature are graph centres, and how much each counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pcdet.models.kd.features.feature import Feature
from pcdet.utils.transfer import sizes_of_frames

COUNTS = ("num_points", "log_points")
Measure = Literal["num_points", "log_points", "channel_max", "channel_l2", "score", "foreground", "random"]


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Which rows are graph centres.

    Attributes:
        num: how many in each frame (in the whole batch if the graph is not per frame); fewer where there are fewer.
        by: the importance, measured on the teacher.
        mode: the most important, the least, or half and half.
    """

    num: int = 1000
    by: Measure = "num_points"
    mode: Literal["top", "bottom", "mixed"] = "top"

    def __post_init__(self):
        if self.num < 1:
            raise ValueError(f"NUM: must be at least 1, got {self.num}")


MOST_POINTS = SampleConfig()

# What REWEIGHT.TEMPERATURE is unless it is given, in the unit of each measure. Five of the 32 points of a full pillar;
# logarithms at one weigh in proportion to the points; a target behind a norm is in standard deviations; a tenth of the
# range of a score. The unit of a channel is the teacher's own: one is a start. The number of frames has no temperature.
TEMPERATURES = {
    "num_points": 5.0,
    "log_points": 1.0,
    "channel_max": 1.0,
    "channel_l2": 1.0,
    "score": 0.1,
    "graph_max": 1.0,
    "batch_size": 1.0,
}


@dataclass(frozen=True, kw_only=True)
class ReweightConfig:
    """How much each graph centre counts in the loss.

    Attributes:
        by: what is passed through a softmax over the centres of a frame and scaled to a mean of one; "graph_max" is
            the largest channel of the teacher's target. "batch_size" weighs every centre by the number of frames,
            which is what the released code's softmax over an axis of length one amounts to.
        temperature: in the units of ``by`` (points, for num_points); None: that of ``TEMPERATURES``, filled in here.
    """

    by: Literal["num_points", "log_points", "channel_max", "channel_l2", "score", "graph_max", "batch_size"] = (
        "num_points"
    )
    temperature: float | None = None

    def __post_init__(self):
        if self.temperature is None:
            object.__setattr__(self, "temperature", TEMPERATURES[self.by])
        if not self.temperature > 0:
            raise ValueError(f"TEMPERATURE: must be above 0, got {self.temperature}")


def importance_scores(
    by: str, feature: Feature, score: Tensor | None = None, foreground: Tensor | None = None
) -> Tensor:
    """(M,) how much each row matters.

    Args:
        by: one of ``Measure``.
        feature: the teacher's rows.
        score: (M,) the teacher's best class score where the row stands; for "score".
        foreground: (M,) True inside a ground-truth box; for "foreground", which ranks the foreground first and
            within it, as within the background, by channel norm.

    Raises:
        ValueError: the measure needs something that is not there.
    """
    if by in COUNTS:
        if feature.count is None:
            raise ValueError(f"BY: {by} needs the number of points behind each row, unknown here; try channel_l2")
        return feature.count if by == "num_points" else feature.count.clamp(min=1).log()
    if by == "score":
        return _present(score, by)
    if by == "random":
        return torch.rand(len(feature), device=feature.batch_idx.device)
    x = feature.dense if feature.dense is not None else feature.x
    x = x.detach()
    value = x.amax(dim=1) if by == "channel_max" else torch.linalg.vector_norm(x, dim=1)
    value = value.flatten().float() if value.dtype in (torch.float16, torch.bfloat16) else value.flatten()
    if by == "foreground":
        return _present(foreground, by) + 0.5 * value / (1 + value)
    return value


def sample(value: Tensor, frame_sizes: list[int], num: int, mode: str = "top") -> tuple[Tensor, list[int]]:
    """The ``num`` most important rows of each frame.

    Which of equally important rows come along is up to ``topk``: the same ones for the same values, but neither the
    first nor a fair draw. With counts of points as importance such ties are many.

    Args:
        value: (M,) importance, rows ordered by frame.
        frame_sizes: rows in each frame, summing to M.
        num: wanted in each frame; all rows where there are fewer.
        mode: "top", "bottom" or "mixed" (half of each).

    Returns:
        (n,) int64 rows, frame by frame, most important first for "top"; and how many of them in each frame.
    """
    parts, start = [], 0
    for size in frame_sizes:
        within = value[start : start + size]
        if num >= size:
            order = within.argsort(descending=True, stable=True)
        elif mode == "mixed":
            order = torch.cat([within.topk(num - num // 2).indices, within.topk(num // 2, largest=False).indices])
        else:
            order = within.topk(num, largest=mode == "top").indices
        parts.append(order + start)
        start += size
    rows = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64, device=value.device)
    return rows, [len(p) for p in parts]


def softmax_weights(value: Tensor, frame_sizes: list[int], temperature: float) -> Tensor:
    """(n,) softmax of value / temperature within each frame, scaled to a mean of one in each frame."""
    parts = [(v / temperature).softmax(dim=0) * len(v) for v in value.split(frame_sizes)]
    return torch.cat(parts) if parts else value


def effective_sample_size(weight: Tensor, frame_sizes: list[int]) -> Tensor:
    """Mean over the frames that have rows of (sum w)^2 / sum w^2: how many rows really count."""
    sizes = [w.sum().square() / w.square().sum().clamp(min=1e-12) for w in weight.split(frame_sizes) if len(w)]
    return torch.stack(sizes).mean() if sizes else weight.new_zeros(())


def inside_boxes(xyz: Tensor, batch_idx: Tensor, gt_boxes: Tensor) -> Tensor:
    """(M,) True where a row stands on the ground area of a box of its frame.

    Args:
        xyz: (M, 3) metres, LiDAR frame.
        batch_idx: (M,) int64, non-decreasing: the frame of each row.
        gt_boxes: (B, T, 7 or more) [x, y, z, dx, dy, dz, heading, ...]; rows of zeros are padding.
    """
    parts = []
    sizes = sizes_of_frames(batch_idx, len(gt_boxes))
    for rows, boxes in zip(xyz.split(sizes), gt_boxes, strict=True):
        parts.append((on_boxes(rows, boxes) & (boxes[:, 3] > 0)).any(dim=1))
    return torch.cat(parts)


def on_boxes(xyz: Tensor, boxes: Tensor) -> Tensor:
    """(M, 3) positions and (T, 7 or more) boxes of one frame -> (M, T) whether each stands on each's ground area."""
    offset = xyz[:, None, :2] - boxes[None, :, :2]
    cos, sin = boxes[:, 6].cos(), boxes[:, 6].sin()
    along = offset[..., 0] * cos + offset[..., 1] * sin
    across = offset[..., 1] * cos - offset[..., 0] * sin
    return (along.abs() <= boxes[:, 3] / 2) & (across.abs() <= boxes[:, 4] / 2)


def _present(value: Tensor | None, by: str) -> Tensor:
    if value is None:
        raise ValueError(f"BY: {by} needs {'a dense head' if by == 'score' else 'gt_boxes'}, which is missing here")
    return value.float() if value.dtype in (torch.bool, torch.float16, torch.bfloat16) else value
