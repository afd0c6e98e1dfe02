"""What point heads share: fully connected layers, the targets of points, losses, and boxes from predictions."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
import torch.nn as nn
from torch import Tensor

from pcdet.models.model_utils.head_template import CodeWeights, HeadTemplate, check_code_weights
from pcdet.models.model_utils.precision import full_precision
from pcdet.ops.roiaware_pool3d import roiaware_pool3d_utils
from pcdet.utils import loss_utils
from pcdet.utils.box_coder_utils import PointResidualCoder
from pcdet.utils.transfer import constant, sizes_of_frames


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointCoderConfig:
    """Arguments of ``PointResidualCoder``."""

    code_size: int = 8
    use_mean_size: bool = True
    mean_size: list[list[float]] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointTargetConfig:
    """``TARGET_CONFIG`` of a point head.

    Attributes:
        gt_extra_width: metres added to a box's length, width and height; points that only the larger box holds are
            ignored.
        box_coder: name of the coder.
        box_coder_config: its arguments.
    """

    gt_extra_width: list[float]
    box_coder: Literal["PointResidualCoder"] = "PointResidualCoder"
    box_coder_config: PointCoderConfig = dataclasses.field(default_factory=PointCoderConfig)

    def __post_init__(self):
        if len(self.gt_extra_width) != 3 or min(self.gt_extra_width) < 0:
            raise ValueError(f"GT_EXTRA_WIDTH: expected three lengths from 0 on, got {self.gt_extra_width}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointLossWeights(CodeWeights):
    """Weights of the parts of the loss."""

    point_cls_weight: float = 1.0
    point_box_weight: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointLossConfig:
    """``LOSS_CONFIG`` of a point head."""

    loss_reg: Literal["WeightedSmoothL1Loss", "WeightedL1Loss"] = "WeightedSmoothL1Loss"
    loss_weights: PointLossWeights


class PointHeadTemplate(HeadTemplate):
    """Classes and boxes of single points: targets, losses and decoding.

    Subclasses predict in ``forward`` and put ``point_cls_preds`` (B * N, num_class) and ``point_box_preds`` (B * N,
    code_size) into ``forward_ret_dict``, in training with the targets of ``assign_targets``.

    Attributes:
        forward_ret_dict: predictions of the last forward, and in training its targets.
    """

    CHANNEL_KEYS = ("CLS_FC", "REG_FC")

    def __init__(self, *, target_config: PointTargetConfig, loss_config: PointLossConfig, num_class: int):
        super().__init__()
        self.num_class = num_class
        self.gt_extra_width = target_config.gt_extra_width
        coder = target_config.box_coder_config
        if coder.use_mean_size and len(coder.mean_size or ()) < num_class:
            raise ValueError(
                f"TARGET_CONFIG.BOX_CODER_CONFIG.mean_size must have a row for each of {num_class} classes, got "
                f"{len(coder.mean_size or ())}"
            )
        self.box_coder = PointResidualCoder(**dataclasses.asdict(coder))
        weights = loss_config.loss_weights
        check_code_weights(weights.code_weights, self.box_coder.code_size)
        self.loss_weights = weights
        self.reg_loss_func = getattr(loss_utils, loss_config.loss_reg)(code_weights=weights.code_weights)

    @torch.no_grad()
    def assign_targets(self, point_coords: Tensor, gt_boxes: Tensor) -> dict[str, Tensor]:
        """What every point should predict: the first object that holds it.

        Args:
            point_coords: (sum N, 4) [frame, x, y, z], frame after frame.
            gt_boxes: (B, M, 8 + C) LiDAR boxes with the class id, counted from 1, last; rows of class 0 are padding.

        Returns:
            ``point_cls_labels`` (sum N,) int64: -1 ignored, 0 background, else the class; ``point_box_labels``
            (positives, code_size), codes of the objects of the positive points in the order of the points.
        """
        frame, points = point_coords[:, 0].long(), point_coords[:, 1:4]
        # row 0 stands for "no object", and rows of padding, whose class is 0 too, mean the same
        boxes = torch.cat([gt_boxes.new_zeros(len(gt_boxes), 1, gt_boxes.shape[2]), gt_boxes], dim=1)
        classes = boxes[..., -1].long().clamp(min=0, max=self.num_class)
        larger = gt_boxes.clone()
        larger[..., 3:6] += constant(self.gt_extra_width, gt_boxes.device, gt_boxes.dtype)
        counts = sizes_of_frames(frame, len(gt_boxes))
        inside = _first_boxes(points, counts, gt_boxes)
        labels = classes[frame, inside]
        around = classes[frame, _first_boxes(points, counts, larger)] > 0
        labels = torch.where((labels == 0) & around, -1, labels)
        rows = (labels > 0).nonzero().squeeze(1)
        owner = boxes[frame[rows], inside[rows], :7]
        codes = self.box_coder.encode(owner, points[rows].to(owner), labels[rows])
        return {"point_cls_labels": labels, "point_box_labels": codes}

    @torch.no_grad()
    def generate_predicted_boxes(self, points: Tensor, cls_preds: Tensor, box_preds: Tensor) -> Tensor:
        """Boxes (N, 7) that the codes (N, code_size) of points (N, 3) mean, for their best class of (N, num_class)."""
        classes = cls_preds.argmax(dim=-1) + 1
        return self.box_coder.decode(loss_utils.at_least_float32(box_preds), points, classes)

    def get_loss(self, tb_dict: dict | None = None) -> tuple[Tensor, dict]:
        """Loss of the last forward, and as numbers ``point_loss_{cls,box}`` and ``point_pos_num``."""
        out, weights = self.forward_ret_dict, self.loss_weights
        labels = out["point_cls_labels"]
        positive = labels > 0
        with full_precision(labels.device):
            count = positive.sum()
            share = 1.0 / count.clamp(min=1).to(out["point_box_labels"].dtype)
            rows = positive.nonzero().squeeze(1)
            cls_loss = loss_utils.sigmoid_focal_sum(out["point_cls_preds"][None], labels[None], share[None], rows=rows)
            # the other points cost nothing
            codes = loss_utils.at_least_float32(out["point_box_preds"][rows])
            box_loss = self.reg_loss_func(codes, out["point_box_labels"]).sum() * share
            cls_loss, box_loss = cls_loss * weights.point_cls_weight, box_loss * weights.point_box_weight
        values = torch.stack([cls_loss, count.to(cls_loss.dtype), box_loss]).detach().tolist()
        tb_dict = {} if tb_dict is None else tb_dict
        tb_dict.update(zip(("point_loss_cls", "point_pos_num", "point_loss_box"), values, strict=True))
        return cls_loss + box_loss, tb_dict


def _first_boxes(points: Tensor, counts: list[int], boxes: Tensor) -> Tensor:
    """One more than the index, within its frame, of the first box that holds each point; 0 for none.

    Args:
        points: (sum N, 3), frame after frame.
        counts: points of each frame.
        boxes: (B, M, 7 + C).
    """
    found = [
        roiaware_pool3d_utils.points_in_boxes_gpu(p.float().contiguous()[None], b[None, :, :7].float().contiguous())[0]
        for p, b in zip(points.split(counts), boxes, strict=True)
    ]
    return torch.cat(found).long() + 1


def make_fc_layers(channels: list[int], input_channels: int, output_channels: int) -> nn.Sequential:
    """Linear layers with batch normalisation and ReLU, and a last, plain one."""
    layers: list[nn.Module] = []
    for width in channels:
        layers += [nn.Linear(input_channels, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        input_channels = width
    return nn.Sequential(*layers, nn.Linear(input_channels, output_channels))
