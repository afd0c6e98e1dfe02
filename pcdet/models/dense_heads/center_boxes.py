"""From the maps of a centre head to final boxes: peaks, boxes at their cells, suppression within each branch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pcdet.models.dense_heads.target_assigner.center_assigner import CenterMap
from pcdet.models.model_utils.model_nms_utils import NMS_TYPES, NMSConfig, circle_nms, class_agnostic_nms
from pcdet.registry import Count, Positive
from pcdet.utils.loss_utils import at_least_float32
from pcdet.utils.transfer import constant, rows_where

CIRCLE, BY_CLASS = "circle_nms", "class_specific_nms"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CenterNMSConfig:
    """``NMS_CONFIG`` of a centre head, whose boxes compete within their branch.

    Attributes:
        nms_type: ``nms_gpu`` and ``nms_normal_gpu`` as in other detectors; ``class_specific_nms``, rotated, within each
            class; ``circle_nms`` by the distance of centres.
        nms_thresh: BEV overlap above which the lower score goes; with ``class_specific_nms`` one for each class.
        nms_pre_maxsize, nms_post_maxsize: how many enter and how many leave; one for each class as above.
        score_thresh: with ``class_specific_nms``, the score, exclusive, of what enters; one for all or for each class.
        min_radius: with ``circle_nms``, for each branch the squared distance in square metres up to which the lower
            score goes; the name and the values are CenterPoint's.
        multi_classes_nms: must be False; named in some of OpenPCDet's files.
    """

    nms_type: str = "nms_gpu"
    nms_thresh: float | list[float] | None = None
    nms_pre_maxsize: Count | list[Count] | None = None
    nms_post_maxsize: Count | list[Count]
    score_thresh: float | list[float] | None = None
    min_radius: list[Positive] | None = None
    multi_classes_nms: bool = False

    def __post_init__(self):
        known = (*NMS_TYPES, BY_CLASS, CIRCLE)
        if self.nms_type not in known:
            raise ValueError(f"NMS_TYPE: must be one of {', '.join(known)}, got {self.nms_type!r}")
        if self.multi_classes_nms:
            raise ValueError(f"MULTI_CLASSES_NMS: must be False for a centre head; NMS_TYPE {BY_CLASS} is its like")
        needed = ("min_radius",) if self.nms_type == CIRCLE else ("nms_thresh", "nms_pre_maxsize")
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"{name.upper()}: missing; {self.nms_type} needs it")
        for name in ("nms_thresh", "nms_pre_maxsize", "nms_post_maxsize", "score_thresh"):
            value, listed = getattr(self, name), self.nms_type == BY_CLASS
            if value is not None and isinstance(value, list) != listed and name != "score_thresh":
                kind = "a list with an item for each class" if listed else "one number"
                raise ValueError(f"{name.upper()}: must be {kind} for {self.nms_type}, got {value}")
            if name == "score_thresh" and value is not None and not listed:
                raise ValueError(f"SCORE_THRESH: only {BY_CLASS} reads it here; set that of POST_PROCESSING instead")

    def counts(self) -> dict[str, tuple[int, str]]:
        """Key -> how many items its list has, and of what there must be as many: "classes" or "branches"."""
        lists = {key: value for key, value in dataclasses.asdict(self).items() if isinstance(value, list)}
        return {k.upper(): (len(v), "branches" if k == "min_radius" else "classes") for k, v in lists.items()}

    def of_class(self, index: int | None) -> NMSConfig:
        """The rule for a class counted from 0, or None for all of a branch together."""
        return NMSConfig(
            nms_type="nms_gpu" if index is not None else self.nms_type,
            **{
                name: value if index is None else value[index]
                for name in ("nms_thresh", "nms_pre_maxsize", "nms_post_maxsize")
                for value in [getattr(self, name)]
            },
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CenterPostProcessingConfig:
    """``POST_PROCESSING`` of a centre head.

    Attributes:
        score_thresh: lowest score, exclusive, of a final box.
        post_center_limit_range: [x, y, z, x, y, z] metres, where a final box's centre may be.
        max_obj_per_sample: peaks of a branch that become boxes.
        use_iou_to_rectify_score: must be False; it needs a branch of overlaps, which is not covered.
        iou_rectifier: read by nothing; named in some of OpenPCDet's files beside ``use_iou_to_rectify_score``.
        nms_config: see its class.
    """

    score_thresh: float | None = None
    post_center_limit_range: list[float]
    max_obj_per_sample: Count = 500
    use_iou_to_rectify_score: bool = False
    iou_rectifier: float | list[float] | None = None
    nms_config: CenterNMSConfig

    def __post_init__(self):
        if self.use_iou_to_rectify_score:
            raise ValueError("USE_IOU_TO_RECTIFY_SCORE: must be False: CenterHead has no branch of overlaps")
        limits = self.post_center_limit_range
        if len(limits) != 6 or any(low >= high for low, high in zip(limits[:3], limits[3:], strict=False)):
            raise ValueError(f"POST_CENTER_LIMIT_RANGE: expected [x, y, z, x, y, z], low before high, got {limits}")


@dataclasses.dataclass(frozen=True)
class Peaks:
    """The best peaks of a branch's heat maps in each frame, by descending score.

    Attributes:
        scores: (B, K) probabilities.
        boxes: (B, K, 7 + C) LiDAR boxes.
        labels: (B, K) class ids, counted from 1.
    """

    scores: Tensor
    boxes: Tensor
    labels: Tensor


def values_at(maps: Sequence[Tensor], cells: Tensor) -> Tensor:
    """What several maps (B, C_i, H, W) hold at cells (B, K), y * W + x: (B, K, sum of C_i), float32 at least."""
    taken = [m.flatten(2).gather(2, cells[:, None].expand(-1, m.shape[1], -1)) for m in maps]
    return at_least_float32(torch.cat(taken, dim=1)).transpose(1, 2)


def decode_boxes(codes: Tensor, cells: Tensor, place: CenterMap) -> Tensor:
    """LiDAR boxes (..., 7 + C) of box codes (..., 8 + C) at cells (...), y * W + x."""
    width = place.shape[1]
    row = torch.div(cells, width, rounding_mode="floor")
    x = place.metres((cells - row * width) + codes[..., 0], 0)
    y = place.metres(row + codes[..., 1], 1)
    heading = torch.atan2(codes[..., 7], codes[..., 6])
    centre = torch.stack([x, y, codes[..., 2]], dim=-1)
    return torch.cat([centre, codes[..., 3:6].exp(), heading[..., None], codes[..., 8:]], dim=-1)


def find_peaks(
    predictions: Mapping[str, Tensor], order: Sequence[str], class_ids: Tensor, place: CenterMap, count: int
) -> Peaks:
    """The ``count`` best cells of a branch's heat maps, over all its classes, as boxes.

    Args:
        predictions: of the branch, by name.
        order: names of the columns of a box code.
        class_ids: (classes,) ids, counted from 1, of its heat maps.
        place: of the cells.
        count: how many; all, where the maps have fewer cells.
    """
    heat = at_least_float32(predictions["hm"]).flatten(1)
    logits, index = torch.topk(heat, min(count, heat.shape[1]))
    size = place.shape[0] * place.shape[1]
    column = torch.div(index, size, rounding_mode="floor")
    cells = index - column * size
    codes = values_at([predictions[name] for name in order], cells)
    return Peaks(torch.sigmoid(logits), decode_boxes(codes, cells, place), class_ids[column])


def suppressed_boxes(
    branches: Sequence[Peaks], classes: Sequence[Sequence[int]], config: CenterPostProcessingConfig
) -> list[dict[str, Tensor]]:
    """The final boxes of each frame, branch after branch.

    The host waits for the GPU three times, however many frames and branches there are; with circles as often as
    ``circle_nms`` says.

    Args:
        branches: their peaks.
        classes: ids, counted from 1, of the classes of each.
        config: what may stay.

    Returns:
        For each frame ``pred_boxes`` (K, 7 + C), ``pred_scores`` (K,), ``pred_labels`` (K,) int64, counted from 1.

    Raises:
        ValueError: boxes or scores that take part are not finite.
    """
    frames, nms = len(branches[0].scores), config.nms_config
    limits = constant(config.post_center_limit_range, branches[0].boxes.device, branches[0].boxes.dtype)
    masks = [_eligible(branch, limits, config.score_thresh) for branch in branches]
    by_class = nms.nms_type == BY_CLASS
    competing = [[i - 1 for i in ids] if by_class else [None] for ids in classes]
    groups = [(b, f, k) for f in range(frames) for b in range(len(branches)) for k in competing[b]]
    rows = rows_where([_of_class(branches[b], masks[b], f, k, nms) for b, f, k in groups])
    sets = [(branches[b].scores[f, r], branches[b].boxes[f, r]) for (b, f, _), r in zip(groups, rows, strict=True)]
    if nms.nms_type == CIRCLE:
        kept = circle_nms(sets, [nms.min_radius[b] for b, _, _ in groups], nms.nms_pre_maxsize, nms.nms_post_maxsize)
    else:
        kept = [rows for rows, _ in class_agnostic_nms(sets, [nms.of_class(k) for _, _, k in groups])]
    found: list[list[tuple[Tensor, ...]]] = [[] for _ in range(frames)]
    for (b, f, _), r, keep, (scores, boxes) in zip(groups, rows, kept, sets, strict=True):
        found[f].append((boxes[keep], scores[keep], branches[b].labels[f, r][keep]))
    keys = ("pred_boxes", "pred_scores", "pred_labels")
    return [dict(zip(keys, map(torch.cat, zip(*parts, strict=True)), strict=True)) for parts in found]


def _eligible(branch: Peaks, limits: Tensor, score_thresh: float | None) -> Tensor:
    """(B, K) whose score is high enough and whose centre lies within the limits."""
    centre = branch.boxes[..., :3]
    eligible = ((centre >= limits[:3]) & (centre <= limits[3:])).all(dim=-1)
    return eligible if score_thresh is None else eligible & (branch.scores > score_thresh)


def _of_class(branch: Peaks, mask: Tensor, frame: int, index: int | None, nms: CenterNMSConfig) -> Tensor:
    """(K,) which peaks of a frame enter: those of ``mask``, and of a class counted from 0 unless that is None."""
    if index is None:
        return mask[frame]
    entering = mask[frame] & (branch.labels[frame] == index + 1)
    thresh = nms.score_thresh[index] if isinstance(nms.score_thresh, list) else nms.score_thresh
    return entering if thresh is None else entering & (branch.scores[frame] > thresh)
