"""What second stages share: proposals from a first stage, their targets, losses, and the boxes they are refined to."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pcdet.models.dense_heads.target_assigner.axis_aligned_target_assigner import build_coder
from pcdet.models.model_utils.head_template import CodeWeights, HeadTemplate, check_code_weights
from pcdet.models.model_utils.model_nms_utils import NMSConfig, class_agnostic_nms
from pcdet.models.model_utils.precision import full_precision
from pcdet.models.roi_heads.target_assigner import ProposalTargetLayer
from pcdet.models.roi_heads.target_assigner.proposal_target_layer import ProposalTargetConfig
from pcdet.utils import loss_utils
from pcdet.utils.common_utils import limit_period, rotate_points_along_z
from pcdet.utils.transfer import sizes_of_frames

BOX_COLUMNS = 7
NO_PROPOSAL_LOGIT = -100.0  # of the empty rows behind a frame's proposals: a probability of zero


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProposalNMSConfig:
    """``NMS_CONFIG`` of a second stage: how proposals are suppressed in training and in testing."""

    train: NMSConfig
    test: NMSConfig

    def __post_init__(self):
        for key in ("train", "test"):
            if getattr(self, key).multi_classes_nms:
                raise ValueError(f"{key.upper()}.MULTI_CLASSES_NMS: must be False, proposals compete across classes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoILossWeights(CodeWeights):
    """Weights of the parts of the loss."""

    rcnn_cls_weight: float = 1.0
    rcnn_reg_weight: float = 1.0
    rcnn_corner_weight: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoILossConfig:
    """``LOSS_CONFIG`` of a second stage.

    Attributes:
        cls_loss: of the score.
        reg_loss: of the box codes.
        corner_loss_regularization: add the distance of the corners.
        loss_weights: of the parts.
    """

    cls_loss: Literal["BinaryCrossEntropy"] = "BinaryCrossEntropy"
    reg_loss: Literal["smooth-l1"] = "smooth-l1"
    corner_loss_regularization: bool = False
    loss_weights: RoILossWeights


class RoIHeadTemplate(HeadTemplate):
    """Refines proposals.

    Subclasses call ``proposal_layer``, in training ``assign_targets``, predict ``rcnn_cls`` (B * R, 1) and ``rcnn_reg``
    (B * R, code_size), and either put them into ``forward_ret_dict`` with the targets or hand them to
    ``generate_predicted_boxes``.

    Attributes:
        forward_ret_dict: predictions and targets of the last forward in training.
    """

    def __init__(
        self,
        *,
        nms_config: ProposalNMSConfig,
        target_config: ProposalTargetConfig,
        loss_config: RoILossConfig,
        num_class: int,
    ):
        super().__init__()
        self.num_class = num_class
        self.nms_config, self.loss_config = nms_config, loss_config
        if num_class != 1:  # the target says how well a proposal fits its object, of whichever class
            raise ValueError(
                f"CLASS_AGNOSTIC: must be True, a proposal has one score whatever its class, got {num_class} scores"
            )
        self.box_coder = build_coder(target_config.box_coder, target_config.box_coder_config)
        if self.box_coder.code_size != BOX_COLUMNS:
            raise ValueError(
                f"TARGET_CONFIG.BOX_CODER_CONFIG: a second stage refines codes of {BOX_COLUMNS} columns, got "
                f"{self.box_coder.code_size}"
            )
        weights = loss_config.loss_weights.code_weights
        check_code_weights(weights, BOX_COLUMNS)
        self.reg_loss_func = loss_utils.WeightedSmoothL1Loss(code_weights=weights)
        self.proposal_target_layer = ProposalTargetLayer(target_config)

    @torch.no_grad()
    def proposal_layer(self, batch_dict: dict) -> dict:
        """The first stage's best boxes, suppressed; ``rois`` that are there already stay.

        Reads: ``batch_size``; ``batch_cls_preds`` (B * N, C) with ``batch_index``, or (B, N, C); ``batch_box_preds``.
        Writes: for R proposals a frame ``rois`` (B, R, 7), ``roi_scores`` (B, R) logits, ``roi_labels`` (B, R) int64
        from 1, by descending score; behind them rows of zero boxes with label 1; ``has_class_labels``. ``batch_index``
        is taken away: what follows counts proposals.
        """
        index, frames = batch_dict.pop("batch_index", None), int(batch_dict["batch_size"])
        if batch_dict.get("rois") is not None:
            return batch_dict
        config = self.nms_config.train if self.training else self.nms_config.test
        cls_preds, box_preds = batch_dict["batch_cls_preds"], batch_dict["batch_box_preds"]
        rois = box_preds.new_zeros(frames, config.nms_post_maxsize, box_preds.shape[-1])
        scores = cls_preds.new_zeros(rois.shape[:2])
        labels = torch.ones(rois.shape[:2], dtype=torch.int64, device=rois.device)
        cls_preds, box_preds = cls_preds.view(-1, cls_preds.shape[-1]), box_preds.view(-1, box_preds.shape[-1])
        best, column = cls_preds.max(dim=1)
        usable = _usable_rows(best, box_preds, index, frames)
        survivors = class_agnostic_nms([(best[rows], box_preds[rows]) for rows in usable], config)
        for frame, (rows, (selected, kept)) in enumerate(zip(usable, survivors, strict=True)):
            rois[frame, : len(selected)] = box_preds[rows[selected]]
            scores[frame, : len(selected)] = kept
            labels[frame, : len(selected)] = column[rows[selected]] + 1
        batch_dict.update(rois=rois, roi_scores=scores, roi_labels=labels, has_class_labels=cls_preds.shape[-1] > 1)
        return batch_dict

    @torch.no_grad()
    def assign_targets(self, batch_dict: dict) -> dict[str, Tensor]:
        """Proposals to learn from, and their objects as each proposal sees them.

        Returns:
            What ``ProposalTargetLayer`` returns, with ``gt_of_rois`` in the frames of the proposals (origin at the
            centre, x along the heading; heading within a quarter turn, as an object and its reverse look alike) and
            ``gt_of_rois_src`` in the LiDAR frame.
        """
        targets = self.proposal_target_layer(batch_dict)
        rois, source = targets["rois"], targets["gt_of_rois"]
        heading = rois[..., 6] % (2 * torch.pi)
        offset = (source[..., :3] - rois[..., :3]).view(-1, 1, 3)
        local = rotate_points_along_z(offset, -heading.view(-1)).view(*rois.shape[:2], 3)
        turn = limit_period(source[..., 6] - heading, 0.5, torch.pi)
        targets["gt_of_rois"] = torch.cat([local, source[..., 3:6], turn[..., None], source[..., 7:]], dim=-1)
        targets["gt_of_rois_src"] = source
        return targets

    def generate_predicted_boxes(self, rois: Tensor, rcnn_cls: Tensor, rcnn_reg: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and boxes of refined proposals.

        Args:
            rois: (B, R, 7) proposals; zero boxes stand for none.
            rcnn_cls: (B * R, 1) logits.
            rcnn_reg: (B * R, code_size).

        Returns:
            (B, R, 1) logits, so low where there is no proposal that nothing comes of it, and (B, R, 7) boxes.
        """
        frames, count = rois.shape[:2]
        with full_precision(rois.device):
            logits = loss_utils.at_least_float32(rcnn_cls).view(frames, count, -1)
            boxes = self.decode(loss_utils.at_least_float32(rcnn_reg), rois.view(frames * count, -1))
        empty = (rois[..., 3:6] == 0).all(dim=-1, keepdim=True)
        return logits.masked_fill(empty, NO_PROPOSAL_LOGIT), boxes.view(frames, count, -1)

    def decode(self, codes: Tensor, rois: Tensor) -> Tensor:
        """Boxes (N, 7) in the LiDAR frame of codes (N, code_size) in the frames of proposals (N, 7)."""
        anchors = torch.cat([torch.zeros_like(rois[:, :3]), rois[:, 3:]], dim=1)
        local = self.box_coder.decode(codes, anchors)
        centre = rotate_points_along_z(local[:, None, :3], rois[:, 6])[:, 0] + rois[:, :3]
        return torch.cat([centre, local[:, 3:]], dim=1)

    def get_loss(self, tb_dict: dict | None = None) -> tuple[Tensor, dict]:
        """Loss of the last forward, and as numbers ``rcnn_loss_{cls,reg,corner}`` and ``rcnn_loss``.

        ``rcnn_loss_corner`` is absent from a batch without a proposal whose box is learned.
        """
        with full_precision(self.forward_ret_dict["rois"].device):
            parts = {"rcnn_loss_cls": self._cls_loss(), **self._box_losses()}
        total = sum(parts.values())
        values = torch.stack([*parts.values(), total]).detach().tolist()
        tb_dict = {} if tb_dict is None else tb_dict
        tb_dict.update(zip((*parts, "rcnn_loss"), values, strict=True))
        return total, tb_dict

    def _cls_loss(self) -> Tensor:
        labels = self.forward_ret_dict["rcnn_cls_labels"].view(-1)
        logits = loss_utils.at_least_float32(self.forward_ret_dict["rcnn_cls"])
        valid = (labels >= 0).to(logits.dtype)
        # an ignored proposal weighs nothing, but torch refuses targets below 0
        target = labels.clamp(min=0).to(logits.dtype)
        loss = F.binary_cross_entropy_with_logits(logits.view(-1), target, reduction="none")
        return (loss * valid).sum() / valid.sum().clamp(min=1) * self.loss_config.loss_weights.rcnn_cls_weight

    def _box_losses(self) -> dict[str, Tensor]:
        out, weights = self.forward_ret_dict, self.loss_config.loss_weights
        rows = (out["reg_valid_mask"].view(-1) > 0).nonzero().squeeze(1)
        codes = loss_utils.at_least_float32(out["rcnn_reg"])[rows]
        rois, local, source = (
            out[key].flatten(0, 1)[rows, :BOX_COLUMNS] for key in ("rois", "gt_of_rois", "gt_of_rois_src")
        )
        anchors = torch.cat([torch.zeros_like(rois[:, :3]), rois[:, 3:6], torch.zeros_like(rois[:, 6:])], dim=1)
        loss = self.reg_loss_func(codes, self.box_coder.encode(local, anchors)).sum() / max(len(rows), 1)
        losses = {"rcnn_loss_reg": loss * weights.rcnn_reg_weight}
        if self.loss_config.corner_loss_regularization and len(rows):
            corner_loss = loss_utils.get_corner_loss_lidar(self.decode(codes, rois), source)
            losses["rcnn_loss_corner"] = corner_loss.mean() * weights.rcnn_corner_weight
        return losses


def _usable_rows(scores: Tensor, boxes: Tensor, index: Tensor | None, frames: int) -> tuple[Tensor, ...]:
    """The rows of each frame whose score and box are finite, ascending: (N,), (N, 7) and the frame of each row.

    Without ``index`` the rows are in order, and as many in each frame.
    """
    rows = (scores.isfinite() & boxes.isfinite().all(dim=1)).nonzero().squeeze(1)
    if index is None:
        return rows.split(sizes_of_frames(rows // max(len(scores) // frames, 1), frames))
    frame, order = index[rows].sort(stable=True)
    return rows[order].split(sizes_of_frames(frame, frames))
