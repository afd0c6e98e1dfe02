"""The anchor head of SECOND and PointPillars: one 1x1 convolution for each kind of prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from pcdet.models.dense_heads.anchor_head_template import AnchorHeadTemplate, AnchorLossConfig, DirectionBins
from pcdet.models.dense_heads.target_assigner.anchor_generator import AnchorConfig
from pcdet.registry import DENSE_HEADS, TARGET_ASSIGNERS

PRIOR_PROBABILITY = 0.01  # of an object at an anchor, before training (Lin et al., 2017, section 4.1)


@DENSE_HEADS.register
class AnchorHeadSingle(AnchorHeadTemplate):
    """Classes, boxes and directions of all anchors from one map.

    Args:
        class_agnostic: one class for all; the detector then gives ``num_class`` 1.
        use_direction_classifier: tell the two directions of a box apart by a classifier. False means none (in OpenPCDet
            the key's mere presence means one).
        dir_offset, dir_limit_offset, num_dir_bins: see ``DirectionBins``.
        anchor_generator_config: anchors of each class.
        target_assigner_config: node of the target assigner, which names the box coder.
        loss_config: weights of the loss.
        input_channels: channels of ``spatial_features_2d``.
        num_class, class_names, grid_size, point_cloud_range: what the data set says.
        predict_boxes_when_training: decode boxes in training too, for a second stage.
    """

    def __init__(
        self,
        *,
        class_agnostic: bool = False,
        use_direction_classifier: bool = False,
        dir_offset: float = 0.0,
        dir_limit_offset: float = 0.0,
        num_dir_bins: int = 2,
        anchor_generator_config: list[AnchorConfig],
        target_assigner_config: Annotated[dict, TARGET_ASSIGNERS],
        loss_config: AnchorLossConfig,
        input_channels: int,
        num_class: int,
        class_names: Sequence[str],
        grid_size: Sequence[int],
        point_cloud_range: Sequence[float],
        predict_boxes_when_training: bool = False,
    ):
        bins = DirectionBins(num_dir_bins, dir_offset, dir_limit_offset) if use_direction_classifier else None
        super().__init__(
            anchor_configs=anchor_generator_config,
            target_assigner_config=target_assigner_config,
            loss_config=loss_config,
            directions=bins,
            num_class=num_class,
            class_names=class_names,
            grid_size=grid_size,
            point_cloud_range=point_cloud_range,
            predict_boxes_when_training=predict_boxes_when_training,
        )
        per_cell = self.num_anchors_per_location
        self.conv_cls = nn.Conv2d(input_channels, per_cell * num_class, 1)
        self.conv_box = nn.Conv2d(input_channels, per_cell * self.box_coder.code_size, 1)
        self.conv_dir_cls = nn.Conv2d(input_channels, per_cell * num_dir_bins, 1) if bins else None
        self.init_weights()

    def init_weights(self) -> None:
        """Starts with objects being rare, and boxes equal to their anchors."""
        nn.init.constant_(self.conv_cls.bias, -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY))
        nn.init.normal_(self.conv_box.weight, mean=0, std=0.001)

    def forward(self, batch_dict: dict) -> dict:
        """Predicts for every anchor.

        Reads: ``spatial_features_2d`` (B, C, H, W); ``gt_boxes`` in training.
        Writes: in evaluation ``batch_cls_preds``, ``batch_box_preds``, ``cls_preds_normalized``; see ``finish``.
        """
        names = ("cls_preds", "box_preds", "dir_cls_preds")
        convs = (self.conv_cls, self.conv_box, self.conv_dir_cls)
        maps = _joint_conv1x1(batch_dict["spatial_features_2d"], [conv for conv in convs if conv is not None])
        self.forward_ret_dict = dict(zip(names, [*maps, None], strict=False))
        return self.finish(batch_dict)


def _joint_conv1x1(x: Tensor, convs: Sequence[nn.Conv2d]) -> list[Tensor]:
    """What each 1x1 convolution makes of ``x`` (B, C, H, W), as (B, H, W, channels).

    They run as one convolution, which reads the map once instead of once each, in the backward pass too; singly where
    somebody listens to one by a forward hook.
    """
    if any(conv._forward_hooks or conv._forward_pre_hooks for conv in convs):
        return [conv(x).permute(0, 2, 3, 1).contiguous() for conv in convs]
    weight, bias = torch.cat([conv.weight for conv in convs]), torch.cat([conv.bias for conv in convs])
    joint = F.conv2d(x, weight, bias).permute(0, 2, 3, 1)
    return [part.contiguous() for part in joint.split([conv.out_channels for conv in convs], dim=-1)]
