"""The anchor head of SECOND and PointPillars: one 1x1 convolution for each kind of prediction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from pcdet.models.channel_flow import ChannelFlow, Parts
from pcdet.models.dense_heads.anchor_head_template import AnchorHeadTemplate
from pcdet.models.feature_spec import Entries, FeatureSpec
from pcdet.registry import DENSE_HEADS

PRIOR_PROBABILITY = 0.01  # of an object at an anchor, before training (Lin et al., 2017, section 4.1)


@DENSE_HEADS.register
class AnchorHeadSingle(AnchorHeadTemplate):
    """Classes, boxes and directions of all anchors from one map.

    Args:
        input_channels: channels of ``spatial_features_2d``.
        num_class: number of classes.
        **common: see ``AnchorHeadTemplate``.
    """

    score_taps = ("conv_cls",)
    box_taps = ("conv_box",)

    def __init__(self, *, input_channels: int, num_class: int, **common: Any):
        super().__init__(num_class=num_class, **common)
        per_cell = self.num_anchors_per_location
        self.conv_cls = nn.Conv2d(input_channels, per_cell * num_class, 1)
        self.conv_box = nn.Conv2d(input_channels, per_cell * self.box_coder.code_size, 1)
        self.conv_dir_cls = (
            nn.Conv2d(input_channels, per_cell * self.directions.num_bins, 1) if self.directions else None
        )
        self.init_weights()

    @classmethod
    def layers(cls, config: SimpleNamespace, inputs: Entries) -> dict[str, FeatureSpec]:
        """The maps of raw predictions."""
        per_cell = sum(anchors.num_per_location for anchors in config.anchor_generator_config)
        spec = replace(inputs[cls.READS], kind="map", joined=())
        found = {
            "conv_cls": spec,
            "conv_box": spec,
            "conv_dir_cls": replace(spec, channels=per_cell * config.num_dir_bins),
        }
        return found if config.use_direction_classifier else {path: found[path] for path in ("conv_cls", "conv_box")}

    def channel_flow(self, flow: ChannelFlow, path: str, entries: Mapping[str, Parts]) -> dict[str, Parts]:
        """Every convolution reads the whole map."""
        for name in ("conv_cls", "conv_box", "conv_dir_cls"):
            flow.branches(f"{path}.{name}", getattr(self, name), entries[self.READS])
        return {}

    def init_weights(self) -> None:
        """Starts with objects being rare, and boxes equal to their anchors."""
        nn.init.constant_(self.conv_cls.bias, -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY))
        nn.init.normal_(self.conv_box.weight, mean=0, std=0.001)

    def forward(self, batch_dict: dict) -> dict:
        """Predicts for every anchor.

        Reads: ``spatial_features_2d`` (B, C, H, W); ``gt_boxes`` in training.
        Writes: in evaluation ``batch_cls_preds``, ``batch_box_preds``, ``cls_preds_normalized``; see ``finish``.
        """
        features = batch_dict["spatial_features_2d"]
        self.forward_ret_dict = {
            "cls_preds": self.conv_cls(features).permute(0, 2, 3, 1).contiguous(),
            "box_preds": self.conv_box(features).permute(0, 2, 3, 1).contiguous(),
            "dir_cls_preds": None,
        }
        if self.conv_dir_cls is not None:
            self.forward_ret_dict["dir_cls_preds"] = self.conv_dir_cls(features).permute(0, 2, 3, 1).contiguous()
        if self.training:
            self.forward_ret_dict["spatial_features_2d"] = features
        return self.finish(batch_dict)

    def predictions_at(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Box codes and directions of a few anchors, computed again from the features of their cells.

        The gradient of a map of predictions is zero but in a few hundred cells, yet its convolution's backward pass
        goes over the whole map. Through these it stays in those cells; the maps keep their graph for other losses.
        """
        per_cell, (height, width) = self.num_anchors_per_location, self.map_shape
        cell = torch.div(rows, per_cell, rounding_mode="floor")
        frame, cell = torch.div(cell, height * width, rounding_mode="floor"), cell % (height * width)
        features = self.forward_ret_dict["spatial_features_2d"].permute(0, 2, 3, 1)
        features = features[frame, torch.div(cell, width, rounding_mode="floor"), cell % width]
        taken = []
        for conv in (self.conv_box, self.conv_dir_cls):
            if conv is not None:
                values = F.linear(features.to(conv.weight.dtype), conv.weight.flatten(1), conv.bias)
                values = values.view(len(rows), per_cell, conv.out_channels // per_cell)
                taken.append(values[torch.arange(len(rows), device=rows.device), rows % per_cell])
        return taken[0], taken[1] if len(taken) > 1 else None
