"""Which anchor learns which object, by axis-aligned overlap (SECOND's rule, as in OpenPCDet).

An anchor of a class is positive if its best overlap with that class's objects reaches the matched threshold, or if it
is the best anchor of some object; background if its best overlap stays below the unmatched threshold; ignored between.

Only pairs that can overlap are ever formed. Anchors stand on a grid, so those around an object are a rectangle of cells
found by bisection; all frames and classes are done in one go. The numbers are those of the full matrix.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from pcdet.models.dense_heads.target_assigner.anchor_generator import AnchorConfig
from pcdet.registry import BOX_CODERS, TARGET_ASSIGNERS
from pcdet.utils import box_utils
from pcdet.utils.transfer import constant

REACH_MARGIN = 1e-3  # metres by which the rectangle of cells is larger than it must be, against rounding


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxCoderConfig:
    """Arguments of the box coder: columns of a box, and whether headings are coded by sine and cosine."""

    code_size: int = 7
    encode_angle_by_sincos: bool = False


def build_coder(name: str, config: BoxCoderConfig | None) -> Any:
    """A box coder of boxes against boxes; without arguments it codes 7 columns."""
    return BOX_CODERS.get(name, "BOX_CODER")(**dataclasses.asdict(config or BoxCoderConfig()))


class AnchorTargets(NamedTuple):
    """What every anchor of a batch should predict.

    Attributes:
        box_cls_labels: (B, N) int32: -1 ignored, 0 background, else the class of the object, counted from 1.
        box_reg_targets: (B, N, code_size); zero where the anchor is not positive.
        reg_weights: (B, N); zero where the anchor is not positive.
    """

    box_cls_labels: Tensor
    box_reg_targets: Tensor
    reg_weights: Tensor


class _Pairs(NamedTuple):
    """Anchors and objects near each other: T pairs."""

    box: Tensor  # (T,) index of the object
    column: Tensor  # (T,) index of the anchor within its cell
    anchor: Tensor  # (T,) index of the anchor within its frame


class NearAnchors(NamedTuple):
    """The anchors near each of M objects of a batch, of the object's class: T pairs. Rows of padding have none.

    Attributes:
        frame: (M,) of each object.
        box: (T,) index of the object.
        anchor: (T,) index of the anchor within its frame.
        overlap: (T,) of the two.
    """

    frame: Tensor
    box: Tensor
    anchor: Tensor
    overlap: Tensor


@TARGET_ASSIGNERS.register
class AxisAlignedTargetAssigner:
    """Targets of the anchors of a dense head.

    Args:
        pos_fraction: must be negative: sub-sampling of anchors, which OpenPCDet leaves unused, is not supported.
        sample_size: only read with a ``pos_fraction``; accepted because OpenPCDet's files name it.
        norm_by_num_examples: divide ``reg_weights`` by the number of anchors of the frame that are not ignored.
        match_height: match by rotated 3D overlap instead of axis-aligned BEV overlap.
        box_coder: name of the coder.
        box_coder_config: its arguments.
        class_names: all classes, in the order of the class ids.
        anchor_configs: classes of anchors, in the order in which they stand in a cell.
    """

    INJECTED = ("class_names", "anchor_configs")

    def __init__(
        self,
        *,
        pos_fraction: float = -1.0,
        sample_size: int = 512,
        norm_by_num_examples: bool = False,
        match_height: bool = False,
        box_coder: Annotated[str, BOX_CODERS] = "ResidualCoder",
        box_coder_config: BoxCoderConfig | None = None,
        class_names: Sequence[str],
        anchor_configs: Sequence[AnchorConfig],
    ):
        if pos_fraction >= 0:
            raise ValueError(f"POS_FRACTION must be negative (no sub-sampling of anchors), got {pos_fraction}")
        unknown = [c.class_name for c in anchor_configs if c.class_name not in class_names]
        if unknown:
            raise ValueError(f"anchors of {unknown} are for none of CLASS_NAMES {list(class_names)}")
        self.norm_by_num_examples = norm_by_num_examples
        self.match_height = match_height
        self.box_coder = build_coder(box_coder, box_coder_config)
        columns = [c for c in anchor_configs for _ in range(c.num_per_location)]
        self._class_id = [list(class_names).index(c.class_name) + 1 for c in columns]
        self._matched = [c.matched_threshold for c in columns]
        self._unmatched = [c.unmatched_threshold for c in columns]

    @classmethod
    def num_codes(cls, config: SimpleNamespace) -> int:
        """Columns of the codes that these arguments' coder makes."""
        return build_coder(config.box_coder, config.box_coder_config).code_size

    @torch.no_grad()
    def assign_targets(self, anchors: Tensor, gt_boxes: Tensor) -> AnchorTargets:
        """Targets of every anchor for every frame.

        Args:
            anchors: (ny, nx, A, 7 + C) LiDAR boxes on a grid: x depends on the second index alone, y on the first,
                everything else on the third.
            gt_boxes: (B, M, 8 + C) LiDAR boxes with the class id, counted from 1, last; rows of class 0 are padding.
        """
        num_frames, num_anchors = gt_boxes.shape[0], anchors.shape[:3].numel()
        frame, boxes = _objects(gt_boxes, anchors.dtype)
        class_id, columns = boxes[:, -1].long(), self._columns(anchors)

        pairs = self._near_pairs(anchors, boxes, class_id, columns)
        overlap = self._overlap(anchors, boxes, pairs)
        key = frame[pairs.box] * num_anchors + pairs.anchor  # the anchor within the batch
        positive, owner = _positives(overlap, key, pairs, columns, len(boxes), num_frames * num_anchors)

        untouched = torch.where(columns.unmatched > 0, 0, -1).int()
        labels = untouched.repeat(num_frames * num_anchors // len(untouched))
        touched = torch.where(overlap >= columns.unmatched[pairs.column], -1, 0).int()
        labels.scatter_reduce_(0, key, touched, "amin")  # no mask's rows are asked for, for which the host would wait
        labels[positive] = class_id[owner].int()
        labels = labels.view(num_frames, num_anchors)

        targets = anchors.new_zeros(num_frames * num_anchors, self.box_coder.code_size)
        matched = anchors.reshape(num_anchors, -1)[positive % num_anchors]
        targets[positive] = self.box_coder.encode(boxes[owner, : matched.shape[1]], matched)
        weights = (labels > 0).to(anchors.dtype)
        if self.norm_by_num_examples:
            weights /= (labels >= 0).sum(1, keepdim=True).clamp(min=1)
        return AnchorTargets(labels, targets.view(num_frames, num_anchors, -1), weights)

    @torch.no_grad()
    def near_anchors(self, anchors: Tensor, gt_boxes: Tensor) -> NearAnchors:
        """The anchors around every object, and their overlaps, by which ``assign_targets`` matches.

        Args:
            anchors: as in ``assign_targets``.
            gt_boxes: as in ``assign_targets``.
        """
        frame, boxes = _objects(gt_boxes, anchors.dtype)
        pairs = self._near_pairs(anchors, boxes, boxes[:, -1].long(), self._columns(anchors))
        return NearAnchors(frame, pairs.box, pairs.anchor, self._overlap(anchors, boxes, pairs))

    def _columns(self, anchors: Tensor) -> _Columns:
        return _Columns(
            constant(self._class_id, anchors.device),
            constant(self._matched, anchors.device, anchors.dtype),
            constant(self._unmatched, anchors.device, anchors.dtype),
        )

    def _near_pairs(self, anchors: Tensor, boxes: Tensor, class_id: Tensor, columns: _Columns) -> _Pairs:
        """Pairs of one class whose BEV outlines (headings rounded to an axis, or any heading) can meet."""
        ny, nx, per_cell = anchors.shape[:3]
        box, column = (class_id[:, None] == columns.class_id).nonzero().unbind(1)
        reach = (self._half_extent(boxes)[box] + self._half_extent(anchors[0, 0])[column]) + REACH_MARGIN
        low, high = (boxes[:, :2][box] - reach).t().contiguous(), (boxes[:, :2][box] + reach).t().contiguous()
        xs, ys = anchors[0, :, 0, 0].contiguous(), anchors[:, 0, 0, 1].contiguous()
        x_first, x_end = torch.searchsorted(xs, low[0]), torch.searchsorted(xs, high[0], right=True)
        y_first, y_end = torch.searchsorted(ys, low[1]), torch.searchsorted(ys, high[1], right=True)

        width = (x_end - x_first).clamp(min=0)
        count = width * (y_end - y_first).clamp(min=0)
        group = torch.repeat_interleave(count)
        place = torch.arange(len(group), device=group.device) - (count.cumsum(0) - count)[group]
        row = torch.div(place, width[group], rounding_mode="floor")
        cell = (y_first[group] + row) * nx + x_first[group] + place - row * width[group]
        return _Pairs(box[group], column[group], cell * per_cell + column[group])

    def _half_extent(self, boxes: Tensor) -> Tensor:
        """(M, 2) how far a box reaches from its centre along x and y."""
        if self.match_height:
            return torch.linalg.vector_norm(boxes[:, 3:5], dim=1, keepdim=True).expand(-1, 2) / 2
        outline = box_utils.boxes3d_lidar_to_aligned_bev_boxes(boxes)
        return (outline[:, 2:] - outline[:, :2]) / 2

    def _overlap(self, anchors: Tensor, boxes: Tensor, pairs: _Pairs) -> Tensor:
        """(T,) overlap of every pair."""
        table = anchors.reshape(-1, anchors.shape[-1])
        if self.match_height:
            from pcdet.ops.iou3d_nms import iou3d_nms_utils

            first, second = table[pairs.anchor, :7].contiguous(), boxes[pairs.box, :7].contiguous()
            return iou3d_nms_utils.paired_boxes_iou3d(first.float(), second.float()).to(anchors.dtype)
        return _paired_iou(
            box_utils.boxes3d_lidar_to_aligned_bev_boxes(table[pairs.anchor, :7]),
            box_utils.boxes3d_lidar_to_aligned_bev_boxes(boxes)[pairs.box],
        )


class _Columns(NamedTuple):
    """The A anchors of a cell."""

    class_id: Tensor  # (A,) counted from 1
    matched: Tensor  # (A,) thresholds
    unmatched: Tensor  # (A,)


def _objects(gt_boxes: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(M,) frame and (M, 8 + C) box of every row of padded (B, T, 8 + C) boxes; no anchor has the class of padding."""
    num_frames, most, _ = gt_boxes.shape
    return torch.arange(num_frames, device=gt_boxes.device).repeat_interleave(most), gt_boxes.flatten(0, 1).to(dtype)


def _paired_iou(first: Tensor, second: Tensor) -> Tensor:
    """(T,) overlap of axis-aligned boxes (T, 4), row by row; bit for bit the entries of ``boxes_iou_normal``."""
    low, high = torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])
    sides = (high - low).clamp(min=0)
    shared = sides[:, 0] * sides[:, 1]
    area = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (first, second)]
    return shared / (area[0] + area[1] - shared).clamp(min=1e-6)


def _positives(
    overlap: Tensor, key: Tensor, pairs: _Pairs, columns: _Columns, num_boxes: int, num_anchors: int
) -> tuple[Tensor, Tensor]:
    """Positive anchors and the object of each, with one wait: for the number of the anchors.

    An anchor that is the best of one object may overlap another object more; it then learns the other, as in OpenPCDet.
    Among equal overlaps the first object counts.

    Returns:
        (K,) ascending indices of anchors within the batch, (K,) indices of objects.
    """
    best_of_box = overlap.new_zeros(num_boxes).scatter_reduce(0, pairs.box, overlap, "amax")
    forced = (overlap == best_of_box[pairs.box]) & (overlap > 0)
    chosen = (forced | (overlap >= columns.matched[pairs.column])).to(torch.uint8)
    positive = chosen.new_zeros(num_anchors).scatter_reduce_(0, key, chosen, "amax").nonzero().squeeze(1)
    if not len(positive):
        return positive, positive

    slot = torch.searchsorted(positive, key).clamp(max=len(positive) - 1)
    rival = positive[slot] == key  # pairs of positive anchors; the others change nothing below
    best = overlap.new_zeros(len(positive)).scatter_reduce(0, slot, torch.where(rival, overlap, 0), "amax")
    winner = rival & (overlap == best[slot])
    owner = torch.full_like(positive, num_boxes)
    return positive, owner.scatter_reduce(0, slot, torch.where(winner, pairs.box, num_boxes), "amin")
