"""The BEV backbone of SECOND and PointPillars: stages of 3x3 convolutions, each upsampled, then concatenated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace

import torch
import torch.nn as nn
from torch import Tensor

from pcdet.models.channel_flow import ChannelFlow, Parts, join
from pcdet.models.feature_spec import Entries, FeatureSpec, NotDescribedError, SlotModule
from pcdet.registry import BACKBONES_2D, Count, CountOrZero, Positive

BN_EPS = 1e-3
BN_MOMENTUM = 0.01
WHOLE = 1e-3  # how far a stride may be from a whole number


@BACKBONES_2D.register
class BaseBEVBackbone(SlotModule):
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

    READS = "spatial_features"
    CHANNEL_KEYS = ("NUM_FILTERS", "NUM_UPSAMPLE_FILTERS")

    def __init__(
        self,
        *,
        layer_nums: list[CountOrZero] | None = None,
        layer_strides: list[Count] | None = None,
        num_filters: list[Count] | None = None,
        upsample_strides: list[Positive] | None = None,
        num_upsample_filters: list[Count] | None = None,
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

    @classmethod
    def outputs(cls, config: SimpleNamespace, inputs: Entries) -> dict[str, FeatureSpec]:
        """``spatial_features_2d``: the stages, up-sampled and concatenated."""
        layers, given = cls.layers(config, inputs), inputs[cls.READS]
        stages, ups = len(config.num_filters or ()), len(config.num_upsample_filters or ())
        ends = [layers[f"deblocks.{i}" if i < ups else f"blocks.{i}"] for i in range(stages)]
        if ups > stages:
            made = layers[f"deblocks.{stages}"]
        elif ends:
            parts = tuple(end.channels for end in ends)
            made = replace(ends[0], channels=sum(parts), joined=parts if len(parts) > 1 else ())
        else:
            made = given
        return {"spatial_features_2d": replace(made, kind="map")}

    @classmethod
    def layers(cls, config: SimpleNamespace, inputs: Entries) -> dict[str, FeatureSpec]:
        """Every stage, and every up-sampling."""
        if list(_length_problems(config)):
            raise NotDescribedError(cls.__name__)
        spec, found = replace(inputs[cls.READS], joined=()), {}
        strides, filters = config.layer_strides or [], config.num_filters or []
        ups, up_filters = config.upsample_strides or [], config.num_upsample_filters or []
        for i, (stride, channels) in enumerate(zip(strides, filters, strict=True)):
            spec = replace(_resampled(spec, 1 / stride), kind="stage", channels=channels)
            found[f"blocks.{i}"] = spec
            if ups:
                found[f"deblocks.{i}"] = replace(_resampled(spec, ups[i]), kind="map", channels=up_filters[i])
        stages = len(strides)
        if len(ups) > stages:
            last = found.get(f"deblocks.{stages - 1}", spec)
            joined = sum(up_filters[:stages])
            found[f"deblocks.{stages}"] = replace(_resampled(last, ups[-1]), kind="map", channels=joined)
        return found

    @classmethod
    def problems(cls, config: SimpleNamespace, inputs: Entries) -> Iterator[str]:
        """An item for every stage, and all stages at one stride behind their up-sampling."""
        yield from _length_problems(config)
        strides, ups = config.layer_strides or [], config.upsample_strides or []
        if len(ups) in (0, len(strides), len(strides) + 1):
            yield from _meeting_problems(strides, ups, inputs[cls.READS].stride[1])

    def channel_flow(self, flow: ChannelFlow, path: str, entries: Mapping[str, Parts]) -> dict[str, Parts]:
        """Stage after stage; what leaves them side by side, perhaps brought together once more."""
        return {"spatial_features_2d": self.flow_through(flow, path, entries[self.READS])}

    def flow_through(self, flow: ChannelFlow, path: str, parts: Parts) -> Parts:
        """The channels of the map that comes in -> those of the map that leaves."""
        ends = []
        for i, block in enumerate(self.blocks):
            parts = flow.sequence(f"{path}.blocks.{i}", block, parts)
            ends.append(flow.sequence(f"{path}.deblocks.{i}", self.deblocks[i], parts) if len(self.deblocks) else parts)
        parts = join(ends) if ends else parts
        if len(self.deblocks) > len(self.blocks):
            last = len(self.blocks)
            parts = flow.sequence(f"{path}.deblocks.{last}", self.deblocks[last], parts)
        return parts

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


def _resampled(spec: FeatureSpec, factor: float) -> FeatureSpec:
    """The spec of a map with ``factor`` times as many cells along x and y."""
    down = 1 / factor
    z, y, x = spec.stride
    grid = spec.grid
    if grid is not None and factor >= 1:
        grid = (grid[0], grid[1] * round(factor), grid[2] * round(factor))
    elif grid is not None:
        grid = (grid[0], -(-grid[1] // round(down)), -(-grid[2] // round(down)))
    return replace(spec, stride=(z, y * down, x * down), grid=grid)


def _length_problems(config: SimpleNamespace) -> Iterator[str]:
    """Sentences on lists that have not an item for every stage."""
    nums, strides, filters = config.layer_nums or [], config.layer_strides or [], config.num_filters or []
    ups, up_filters = config.upsample_strides or [], config.num_upsample_filters or []
    if not len(nums) == len(strides) == len(filters):
        yield (
            f"an item for each stage is needed in LAYER_NUMS ({len(nums)}), LAYER_STRIDES ({len(strides)}), "
            f"NUM_FILTERS ({len(filters)})"
        )
    if len(ups) not in (0, len(strides), len(strides) + 1):
        yield f"UPSAMPLE_STRIDES: an item for each of the {len(strides)} stages is needed, got {_plain(ups)}"
    elif len(ups) != len(up_filters):
        yield f"NUM_UPSAMPLE_FILTERS: has {len(up_filters)} items, UPSAMPLE_STRIDES has {len(ups)}"


def _meeting_problems(strides: list[int], ups: list[float], start: float) -> Iterator[str]:
    """Sentences on up-sampling strides that are no whole numbers, or behind which the stages do not meet."""
    for i, up in enumerate(ups):
        factor = up if up >= 1 else 1 / up
        if abs(factor - round(factor)) > WHOLE:
            yield f"UPSAMPLE_STRIDES[{i}]: must be a whole number or one over a whole number, got {up!r}"
    reached, total = [], start
    for i, stride in enumerate(strides):
        total *= stride
        reached.append(total / ups[i] if i < len(ups) else total)
    if reached and max(reached) - min(reached) > WHOLE:
        yield (
            f"UPSAMPLE_STRIDES: the stages must meet at one stride, but LAYER_STRIDES {strides} and {_plain(ups)} end "
            f"at {', '.join(f'{r:g}' for r in reached)}"
        )


def _plain(numbers: list[float]) -> str:
    """A list as a file has it, without the points of whole numbers."""
    return f"[{', '.join(f'{n:g}' for n in numbers)}]"


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
