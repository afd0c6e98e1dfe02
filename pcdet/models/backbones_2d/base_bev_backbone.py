"""The BEV backbone of SECOND and PointPillars: stages of 3x3 convolutions, each upsampled, then concatenated."""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

from pcdet.registry import BACKBONES_2D

BN_EPS = 1e-3
BN_MOMENTUM = 0.01


@BACKBONES_2D.register
class BaseBEVBackbone(nn.Module):
    """Multi-scale BEV features.

    Args:
        layer_nums: further convolutions of each stage, after its strided one.
        layer_strides: stride of each stage.
        num_filters: channels of each stage.
        upsample_strides: upsampling after each stage; below one it is a strided convolution. One more than there are
            stages upsamples the concatenated map.
        num_upsample_filters: channels after each upsampling.
        use_conv_for_no_stride: a plain instead of a transposed convolution where an upsampling stride is 1.
        input_channels: channels of the map that comes in.
    """

    def __init__(
        self,
        *,
        layer_nums: list[int] | None = None,
        layer_strides: list[int] | None = None,
        num_filters: list[int] | None = None,
        upsample_strides: list[float] | None = None,
        num_upsample_filters: list[int] | None = None,
        use_conv_for_no_stride: bool = False,
        input_channels: int,
    ):
        super().__init__()
        nums, strides, filters = layer_nums or [], layer_strides or [], num_filters or []
        up_strides, up_filters = upsample_strides or [], num_upsample_filters or []
        if not len(nums) == len(strides) == len(filters):
            raise ValueError(
                "LAYER_NUMS, LAYER_STRIDES and NUM_FILTERS must be of one length, got "
                f"{len(nums)}, {len(strides)} and {len(filters)}"
            )
        if len(up_strides) != len(up_filters) or len(up_strides) not in (0, len(nums), len(nums) + 1):
            raise ValueError(
                "UPSAMPLE_STRIDES and NUM_UPSAMPLE_FILTERS must have an item for each stage (and one for the whole, if "
                f"wanted), got {len(up_strides)} and {len(up_filters)} for {len(nums)} stages"
            )
        self.blocks, self.deblocks = nn.ModuleList(), nn.ModuleList()
        before = [input_channels, *filters]
        for i in range(len(nums)):
            self.blocks.append(_stage(before[i], filters[i], strides[i], nums[i]))
            if up_strides:
                self.deblocks.append(_upsample(filters[i], up_filters[i], up_strides[i], use_conv_for_no_stride))
        joined = sum(up_filters[: len(nums)]) if up_strides else sum(filters) if len(filters) > 1 else before[-1]
        if len(up_strides) > len(nums):
            self.deblocks.append(_upsample(joined, joined, up_strides[-1], False))
        self.num_bev_features = joined

    def forward(self, batch_dict: dict) -> dict:
        """Runs the stages.

        Reads: ``spatial_features`` (B, C, H, W).
        Writes: ``spatial_features_2d`` (B, num_bev_features, H', W').
        """
        x = batch_dict["spatial_features"]
        if len(self.blocks):
            x = _in_format_of(self.blocks[0][1].weight, x)
        ups: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            ups.append(self.deblocks[i](x) if len(self.deblocks) else x)
        if ups:
            x = ups[0] if len(ups) == 1 else torch.cat(ups, dim=1)
        if len(self.deblocks) > len(self.blocks):
            x = self.deblocks[-1](x)
        batch_dict["spatial_features_2d"] = x
        return batch_dict


def _in_format_of(weight: Tensor, x: Tensor) -> Tensor:
    """``x`` in channels-last memory if the weights are (``model.to(memory_format=torch.channels_last)``), else dense.

    PyTorch's batch normalisation is the faster with channels last on a CPU, and a little less accurate.
    """
    return x.contiguous(memory_format=torch.contiguous_format if weight.is_contiguous() else torch.channels_last)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


def _stage(in_channels: int, channels: int, stride: int, num_layers: int) -> nn.Sequential:
    """Strided convolution, then ``num_layers`` more, each with normalisation and ReLU."""
    # OpenPCDet pads in a layer of its own; padding in the convolution is the same without the copy, and the
    # placeholder keeps the indices that name the weights.
    layers: list[nn.Module] = [
        nn.Identity(),
        nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False),
        _norm(channels),
        nn.ReLU(inplace=True),
    ]
    for _ in range(num_layers):
        layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), _norm(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _upsample(in_channels: int, channels: int, stride: float, conv_for_no_stride: bool) -> nn.Sequential:
    """Up by a whole ``stride``, or down by 1 / stride where that is below one; with normalisation and ReLU."""
    if stride > 1 or (stride == 1 and not conv_for_no_stride):
        size = round(stride)
        resample: nn.Module = nn.ConvTranspose2d(in_channels, channels, size, stride=size, bias=False)
    else:
        size = round(1 / stride)
        resample = nn.Conv2d(in_channels, channels, size, stride=size, bias=False)
    return nn.Sequential(resample, _norm(channels), nn.ReLU(inplace=True))
