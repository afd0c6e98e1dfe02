"""Non-maximum suppression of predictions, over all classes together or class by class."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from pcdet.registry import Count
from pcdet.utils.transfer import constant, rows_where

NMS_TYPES = ("nms_gpu", "nms_normal_gpu")  # OpenPCDet's names; both run on any device


@dataclasses.dataclass(frozen=True, kw_only=True)
class NMSConfig:
    """``NMS_CONFIG``.

    Attributes:
        multi_classes_nms: suppress within each class; otherwise each box has its best class and all compete.
        nms_type: ``nms_gpu`` by rotated overlap, ``nms_normal_gpu`` by overlap of the boxes without their headings.
        nms_thresh: BEV overlap above which the lower score goes.
        nms_pre_maxsize: how many of the best enter.
        nms_post_maxsize: how many leave at most.
    """

    multi_classes_nms: bool = False
    nms_type: str = "nms_gpu"
    nms_thresh: float
    nms_pre_maxsize: Count
    nms_post_maxsize: Count

    def __post_init__(self):
        if self.nms_type not in NMS_TYPES:
            raise ValueError(f"NMS_TYPE: must be one of {', '.join(NMS_TYPES)}, got {self.nms_type!r}")


def class_agnostic_nms(
    sets: Sequence[tuple[Tensor, Tensor]],
    nms_config: NMSConfig | Sequence[NMSConfig],
    score_thresh: float | Sequence[float] | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """The boxes that survive in each of several sets, such as the frames of a batch, which do not touch each other.

    The host waits for the GPU once, and twice more for the thresholds, however many sets there are.

    Args:
        sets: for each (N,) scores and (N, 7 + C) LiDAR boxes.
        nms_config: how to suppress; one for all sets, or one for each.
        score_thresh: only scores from here on take part; one for all sets, or one for each; None for all scores.

    Returns:
        For each set (K,) indices into it by descending score, and (K,) their scores.

    Raises:
        ValueError: boxes or scores that take part are not finite; there are not as many thresholds as sets.
    """
    configs = [nms_config] * len(sets) if isinstance(nms_config, NMSConfig) else nms_config
    candidates = _above(sets, score_thresh)
    ranked = []
    for (scores, _), rows, config in zip(sets, candidates, configs, strict=True):
        best, order = torch.topk(scores[rows], min(config.nms_pre_maxsize, len(rows)))
        ranked.append((rows[order], best))
    kept = _suppress([(boxes[rows, :7], best) for (_, boxes), (rows, best) in zip(sets, ranked, strict=True)], configs)
    return [(rows[keep], best[keep]) for keep, (rows, best) in zip(kept, ranked, strict=True)]


def _above(sets: Sequence[tuple[Tensor, Tensor]], score_thresh: float | Sequence[float] | None) -> list[Tensor]:
    """(n,) rows of each set whose scores reach the threshold."""
    if score_thresh is None:
        return [torch.arange(len(scores), device=scores.device) for scores, _ in sets]
    thresholds = score_thresh if isinstance(score_thresh, Sequence) else [score_thresh] * len(sets)
    return rows_where([scores >= threshold for (scores, _), threshold in zip(sets, thresholds, strict=True)])


def _suppress(ranked: Sequence[tuple[Tensor, Tensor]], configs: Sequence[NMSConfig]) -> list[Tensor]:
    """(K,) rows that survive in each set of (n, 7) boxes and (n,) descending scores; one wait."""
    from pcdet.ops.iou3d_nms import iou3d_nms_utils

    results = [
        iou3d_nms_utils.nms_counted(boxes, scores, config.nms_thresh, config.nms_type == "nms_gpu")
        for (boxes, scores), config in zip(ranked, configs, strict=True)
    ]
    counts = iou3d_nms_utils.kept_counts([count for _, count in results])
    return [
        keep[: min(count, config.nms_post_maxsize)]
        for (keep, _), count, config in zip(results, counts, configs, strict=True)
    ]


def circle_nms(
    sets: Sequence[tuple[Tensor, Tensor]],
    squared_radii: Sequence[float],
    pre_maxsize: int | None,
    post_maxsize: int,
) -> list[Tensor]:
    """The boxes that survive suppression by the distance of centres on the ground (CenterPoint's circle NMS).

    Greedy, as other NMS: the best box stays, those near it go, and so on. All sets take part at once. Each round
    settles boxes that the rounds before leave open; there are as many as the longest chain of boxes of which each would
    suppress the next, and the host waits for the GPU once a round.

    Args:
        sets: for each (N,) scores and (N, 7 + C) LiDAR boxes.
        squared_radii: for each the squared distance, square metres, up to which the lower score goes.
        pre_maxsize: how many of the best of a set enter; None for all.
        post_maxsize: how many leave at most.

    Returns:
        For each set (K,) indices into it by descending score (ties: the smaller index first).

    Raises:
        ValueError: scores or centres are not finite.
    """
    orders = [scores.argsort(descending=True, stable=True)[:pre_maxsize] for scores, _ in sets]
    most = max(map(len, orders), default=0)
    if most == 0:
        return orders
    like = sets[0][1]
    # centres that are not there are not a number, and so near nothing
    centres = like.new_full((len(sets), most, 2), torch.nan)
    for row, order, (_, boxes) in zip(centres, orders, sets, strict=True):
        row[: len(order)] = boxes[order, :2]
    finite = torch.stack([(s.isfinite() & b[:, :2].isfinite().all(dim=1)).all() for s, b in sets]).all()
    squared = (centres[:, :, None] - centres[:, None]).square().sum(dim=-1)
    near = squared <= constant(list(squared_radii), like.device, like.dtype)[:, None, None]
    near &= torch.ones_like(near[0]).triu(diagonal=1)  # [set, i, j]: i would suppress j, which comes behind it
    kept, before = ~near.any(dim=1), None
    while before is None or not torch.equal(kept, before):
        kept, before = ~(near & kept[:, :, None]).any(dim=1), kept
    if not finite:
        raise ValueError("boxes and scores must be finite, but hold NaN or infinity")
    rows = rows_where([row[: len(order)] for row, order in zip(kept, orders, strict=True)])
    return [order[row][:post_maxsize] for order, row in zip(orders, rows, strict=True)]


def multi_classes_nms(
    sets: Sequence[tuple[Tensor, Tensor]],
    nms_config: NMSConfig,
    score_thresh: float | Sequence[float] | None = None,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The boxes that survive among those of their class, in each of several sets; a box may do so in several classes.

    The host waits as for ``class_agnostic_nms``, however many sets and classes there are.

    Args:
        sets: for each (N, num_class) scores and (N, 7 + C) LiDAR boxes.
        nms_config: how to suppress.
        score_thresh: only scores from here on take part; one for all classes, or one for each.

    Returns:
        For each set (K,) indices into it, (K,) scores, (K,) classes counted from 0; class by class, each by descending
        score.

    Raises:
        ValueError: as ``class_agnostic_nms``; or there are not as many thresholds as classes.
    """
    if isinstance(score_thresh, Sequence):
        for scores, _ in sets:
            if scores.shape[1] != len(score_thresh):
                raise ValueError(
                    f"score_thresh must be one number, or one for each of {scores.shape[1]} classes, got "
                    f"{len(score_thresh)}"
                )
        score_thresh = list(score_thresh) * len(sets)
    columns = [(scores[:, k], boxes) for scores, boxes in sets for k in range(scores.shape[1])]
    survivors = iter(class_agnostic_nms(columns, nms_config, score_thresh))
    results = []
    for scores, _ in sets:
        selected, kept = zip(*itertools.islice(survivors, scores.shape[1]), strict=True)
        labels = [torch.full_like(rows, k) for k, rows in enumerate(selected)]
        results.append((torch.cat(selected), torch.cat(kept), torch.cat(labels)))
    return results
