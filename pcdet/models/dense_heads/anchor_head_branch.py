"""A branch of a multi-head anchor head: what it predicts for its own group of classes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn as nn
from torch import Tensor

from pcdet.models.backbones_2d.base_bev_backbone import BaseBEVBackbone
from pcdet.models.channel_flow import ChannelFlow, Parts
from pcdet.models.dense_heads.anchor_head_single import PRIOR_PROBABILITY
from pcdet.registry import Count, CountOrZero, Positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class RPNHeadConfig:
    """A branch: an entry of ``RPN_HEAD_CFGS``. All but its classes are arguments of its own ``BaseBEVBackbone``."""

    head_cls_name: list[str]
    layer_nums: list[CountOrZero] | None = None
    layer_strides: list[Count] | None = None
    num_filters: list[Count] | None = None
    upsample_strides: list[Positive] | None = None
    num_upsample_filters: list[Count] | None = None
    use_conv_for_no_stride: bool = False

    def __post_init__(self):
        if not self.head_cls_name:
            raise ValueError("HEAD_CLS_NAME: must name at least one class, got []")

    def backbone(self) -> dict:
        """Arguments of the branch's backbone."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k != "head_cls_name"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeparateRegConfig:
    """``SEPARATE_REG_CONFIG``: convolutions of their own for the classes and for each group of columns of a box code.

    Attributes:
        num_middle_conv: 3x3 convolutions before the one that predicts.
        num_middle_filter: their channels.
        reg_list: ``"name:columns"`` of each group, in the order of the box code.
    """

    num_middle_conv: CountOrZero
    num_middle_filter: Count
    reg_list: list[str]

    def __post_init__(self):
        if not self.reg_list or not all(_is_group(entry) for entry in self.reg_list):
            raise ValueError(f"REG_LIST: must be entries like 'size:3', got {self.reg_list}")

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Name and columns of each group."""
        return [(name, int(columns)) for name, columns in (entry.split(":") for entry in self.reg_list)]


def _is_group(entry: str) -> bool:
    name, colon, columns = entry.partition(":")
    return bool(name and colon) and columns.isdigit() and int(columns) > 0


class BranchPredictions(NamedTuple):
    """What a branch predicts for its N anchors, ordered by class, size, rotation, y, x."""

    cls_preds: Tensor  # (B, N, classes) logits
    box_preds: Tensor  # (B, N, code_size)
    dir_cls_preds: Tensor | None  # (B, N, bins)


class SingleHead(BaseBEVBackbone):
    """A branch: optional stages of its own, then a convolution for each kind of prediction.

    Args:
        config: the branch.
        input_channels: channels of the shared map.
        num_class: classes that it tells apart.
        num_anchors: anchors in a cell.
        code_size: columns of a box code.
        num_dir_bins: directions that it tells apart; 0 for none.
        label_indices: ids, counted from 1, of its classes.
        separate_reg: separate convolutions; None for one 1x1 convolution of each kind.
    """

    def __init__(
        self,
        config: RPNHeadConfig,
        *,
        input_channels: int,
        num_class: int,
        num_anchors: int,
        code_size: int,
        num_dir_bins: int,
        label_indices: Sequence[int],
        separate_reg: SeparateRegConfig | None,
    ):
        super().__init__(**config.backbone(), input_channels=input_channels)
        self.num_class, self.num_anchors_per_location, self.code_size = num_class, num_anchors, code_size
        self.num_dir_bins = num_dir_bins
        self.register_buffer("head_label_indices", torch.tensor(label_indices, dtype=torch.int64))
        channels = self.num_bev_features
        if separate_reg is None:
            self.conv_cls: nn.Module = nn.Conv2d(channels, num_anchors * num_class, 1)
            self.conv_box: nn.Module = nn.Conv2d(channels, num_anchors * code_size, 1)
        else:
            columns = sum(n for _, n in separate_reg.groups)
            if columns != code_size:
                raise ValueError(
                    f"SEPARATE_REG_CONFIG.REG_LIST must have the {code_size} columns of a box code, got {columns} in "
                    f"{separate_reg.reg_list}"
                )
            self.conv_box = nn.ModuleDict(
                {f"conv_{name}": _tower(channels, num_anchors * n, separate_reg) for name, n in separate_reg.groups}
            )
            self.conv_cls = _tower(channels, num_anchors * num_class, separate_reg)
        self.conv_dir_cls = nn.Conv2d(channels, num_anchors * num_dir_bins, 1) if num_dir_bins else None
        self.init_weights()

    def init_weights(self) -> None:
        """Starts with objects being rare; separate box convolutions as He et al. (2015) by their outputs."""
        last = self.conv_cls[-1] if isinstance(self.conv_cls, nn.Sequential) else self.conv_cls
        nn.init.constant_(last.bias, -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY))
        if isinstance(self.conv_box, nn.ModuleDict):
            for layer in self.conv_box.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[BranchPredictions, tuple[int, int]]:
        """Predictions from the shared map (B, C, H, W), and the size (H', W') of the map that they stand on."""
        features = super().forward({"spatial_features": features})["spatial_features_2d"]
        if isinstance(self.conv_box, nn.ModuleDict):
            boxes = torch.cat([conv(features) for conv in self.conv_box.values()], dim=1)
        else:
            boxes = self.conv_box(features)
        classes = self._by_anchor(self.conv_cls(features), self.num_class)
        directions = None
        if self.conv_dir_cls is not None:
            directions = self._by_anchor(self.conv_dir_cls(features), self.num_dir_bins)
        return BranchPredictions(classes, self._by_anchor(boxes, self.code_size), directions), tuple(boxes.shape[2:])

    def flow_to_predictions(self, flow: ChannelFlow, path: str, parts: Parts) -> None:
        """Its stages, then all its predictions; ``parts`` are those of the map that comes in."""
        parts = self.flow_through(flow, path, parts)
        for name in ("conv_cls", "conv_box", "conv_dir_cls"):
            flow.branches(f"{path}.{name}", getattr(self, name), parts)

    def _by_anchor(self, x: Tensor, columns: int) -> Tensor:
        """(B, A * H * W, columns) of a map (B, A * columns, H, W)."""
        return x.unflatten(1, (self.num_anchors_per_location, columns)).permute(0, 1, 3, 4, 2).flatten(1, 3)


def _tower(in_channels: int, out_channels: int, config: SeparateRegConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(config.num_middle_conv):
        layers.append(nn.Conv2d(in_channels, config.num_middle_filter, 3, padding=1, bias=False))
        layers += [nn.BatchNorm2d(config.num_middle_filter), nn.ReLU(inplace=True)]
        in_channels = config.num_middle_filter
    return nn.Sequential(*layers, nn.Conv2d(in_channels, out_channels, 3, padding=1))
