"""Samples the proposals that a second stage learns from, and labels them (Fast R-CNN's rule, by 3D overlap)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import torch
from torch import Tensor

from pcdet.models.dense_heads.target_assigner.axis_aligned_target_assigner import BoxCoderConfig
from pcdet.ops.iou3d_nms import iou3d_nms_utils
from pcdet.registry import BOX_CODERS


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProposalTargetConfig:
    """``TARGET_CONFIG`` of a second stage; overlaps are 3D.

    Attributes:
        box_coder: name of the coder.
        box_coder_config: its arguments.
        roi_per_image: proposals a frame.
        fg_ratio: the greatest part of them that may be foreground.
        sample_roi_by_each_class: a proposal belongs to the object of its class that it overlaps most; otherwise of any.
        cls_score_type: ``cls``: the target of the score is 1, 0, or ignored between the two thresholds; ``roi_iou``: it
            rises from 0 to 1 between them.
        cls_fg_thresh, cls_bg_thresh: the two thresholds.
        cls_bg_thresh_lo: overlap from which on background is hard.
        hard_bg_ratio: the part of the background that is hard.
        reg_fg_thresh: overlap above which the box is learned.
    """

    box_coder: Annotated[str, BOX_CODERS] = "ResidualCoder"
    box_coder_config: BoxCoderConfig | None = None
    roi_per_image: int
    fg_ratio: float
    sample_roi_by_each_class: bool = False
    cls_score_type: Literal["cls", "roi_iou"] = "cls"
    cls_fg_thresh: float
    cls_bg_thresh: float
    cls_bg_thresh_lo: float
    hard_bg_ratio: float
    reg_fg_thresh: float

    def __post_init__(self):
        if self.roi_per_image < 1:
            raise ValueError(f"ROI_PER_IMAGE: must be positive, got {self.roi_per_image}")
        for key in ("fg_ratio", "hard_bg_ratio"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"{key.upper()}: must lie in [0, 1], got {getattr(self, key)}")
        if self.cls_bg_thresh > self.cls_fg_thresh:
            raise ValueError(
                f"CLS_BG_THRESH: must not exceed CLS_FG_THRESH ({self.cls_fg_thresh}), got {self.cls_bg_thresh}"
            )


class ProposalTargetLayer:
    """Proposals to learn from, drawn with torch's generator, which the engine seeds for each process."""

    def __init__(self, config: ProposalTargetConfig):
        self.config = config

    @torch.no_grad()
    def __call__(self, batch_dict: dict) -> dict[str, Tensor]:
        """Samples proposals and gives each an object.

        Reads: ``rois`` (B, N, 7 + C), ``roi_scores`` (B, N), ``roi_labels`` (B, N), classes from 1; ``gt_boxes``
        (B, M, 8 + C), the class last, rows of class 0 being padding.

        Returns:
            For R proposals a frame: ``rois`` (B, R, 7 + C), ``roi_scores`` and ``roi_labels`` (B, R); ``gt_of_rois``
            (B, R, 8) the object [7 columns of the box, class], zeros where there is none; ``gt_iou_of_rois`` (B, R);
            ``reg_valid_mask`` (B, R) int64, 1 where the box is learned; ``rcnn_cls_labels`` (B, R), the target of the
            score, -1 ignored.
        """
        gt_boxes = batch_dict["gt_boxes"]
        objects = torch.cat([gt_boxes[..., :7], gt_boxes[..., -1:]], dim=-1)
        objects = torch.where(objects[..., 7:] > 0, objects, 0)
        frames = []
        for index, own in enumerate(objects):
            frame = {key: batch_dict[key][index] for key in ("rois", "roi_scores", "roi_labels")}
            overlap, owner = self._best_object(frame["rois"], frame["roi_labels"], own)
            frame["gt_iou_of_rois"] = overlap
            frame["gt_of_rois"] = own[owner] if len(own) else objects.new_zeros(len(owner), 8)
            frames.append(frame)
        groups = self._groups(torch.stack([frame["gt_iou_of_rois"] for frame in frames]))
        picked: dict[str, list[Tensor]] = {}
        for frame, group in zip(frames, groups, strict=True):
            rows = self.subsample_rois(frame["gt_iou_of_rois"], group)
            for key, value in frame.items():
                picked.setdefault(key, []).append(value[rows])
        targets = {key: torch.stack(values) for key, values in picked.items()}
        overlap = targets["gt_iou_of_rois"]
        targets["reg_valid_mask"] = (overlap > self.config.reg_fg_thresh).long()
        targets["rcnn_cls_labels"] = self._score_targets(overlap)
        return targets

    def _best_object(self, rois: Tensor, labels: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) each proposal's greatest overlap and (N,) the object's index; 0, and a row of padding, without one."""
        if not len(objects):
            return rois.new_zeros(len(rois)), torch.zeros_like(labels, dtype=torch.int64)
        overlaps = iou3d_nms_utils.boxes_iou3d(rois[:, :7].contiguous(), objects[:, :7].to(rois.dtype).contiguous())
        if self.config.sample_roi_by_each_class:
            overlaps = torch.where(labels[:, None] == objects[:, 7], overlaps, -1)
        overlaps = torch.where(objects[:, 7] > 0, overlaps, -2)  # below every object; a mask would make the host wait
        best, owner = overlaps.max(dim=1)
        return best.clamp(min=0), owner

    def _groups(self, overlaps: Tensor) -> list[tuple[Tensor, ...]]:
        """(B, N) greatest overlaps -> for each frame its rows of foreground, hard and easy background, ascending.

        The host waits once for a GPU, for the sizes of all groups.
        """
        config = self.config
        hard = (overlaps < config.reg_fg_thresh) & (overlaps >= config.cls_bg_thresh_lo)
        foreground = overlaps >= min(config.reg_fg_thresh, config.cls_fg_thresh)
        chosen = torch.stack([foreground, hard, overlaps < config.cls_bg_thresh_lo], dim=1)
        rows = chosen.to(torch.uint8).argsort(dim=2, descending=True, stable=True)
        sizes = chosen.sum(dim=2).tolist()
        return [tuple(r[:n] for r, n in zip(*frame, strict=True)) for frame in zip(rows, sizes, strict=True)]

    def subsample_rois(self, max_overlaps: Tensor, groups: tuple[Tensor, ...] | None = None) -> Tensor:
        """(roi_per_image,) rows of a frame, foreground first; background is drawn with replacement.

        Args:
            max_overlaps: (N,) each proposal's greatest overlap with an object; N > 0.
            groups: the rows of foreground, hard and easy background, for a caller who knows.
        """
        config, wanted = self.config, self.config.roi_per_image
        foreground, hard, easy = groups or self._groups(max_overlaps[None])[0]
        if not len(hard) and not len(easy):
            return _draw(foreground, wanted)
        most = min(round(config.fg_ratio * wanted), len(foreground))
        if most < len(foreground):
            foreground = foreground[torch.randperm(len(foreground), device=foreground.device)[:most]]
        background = wanted - most
        if not len(easy):
            from_hard = background
        else:
            from_hard = min(int(background * config.hard_bg_ratio), len(hard))
        return torch.cat([foreground, _draw(hard, from_hard), _draw(easy, background - from_hard)])

    def _score_targets(self, overlap: Tensor) -> Tensor:
        low, high = self.config.cls_bg_thresh, self.config.cls_fg_thresh
        if self.config.cls_score_type == "cls":
            labels = (overlap > high).long()
            return torch.where((overlap > low) & (overlap < high), -1, labels)
        return ((overlap - low) / max(high - low, 1e-6)).clamp(0, 1)


def _draw(rows: Tensor, count: int) -> Tensor:
    """``count`` of the rows at random, with replacement."""
    if not count:
        return rows[:0]
    return rows[torch.randint(0, len(rows), (count,), device=rows.device)]
