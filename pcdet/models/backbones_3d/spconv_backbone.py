"""The sparse 3D backbones of SECOND (Yan et al., Sensors 2018): stages of strides 1, 2, 4 and 8, then height alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from pcdet.models.channel_flow import ChannelFlow, Parts
from pcdet.models.feature_spec import Entries, FeatureSpec, NotDescribedError, SlotModule, scale_channels
from pcdet.registry import BACKBONES_3D, Count, Positive
from pcdet.utils.spconv_utils import is_sparse_convolution, load_spconv, replace_feature

BN_EPS = 1e-3
BN_MOMENTUM = 0.01
STRIDES = {"x_conv1": 1, "x_conv2": 2, "x_conv3": 4, "x_conv4": 8}
ENCODED_STRIDE = 8
PADDINGS = {2: 1, 3: 1, 4: (0, 1, 1)}  # of the strided convolution that begins a stage


class RowNorm(nn.BatchNorm1d):
    """Batch normalisation of rows (V, C) that takes a single one in training, of which PyTorch's makes an error.

    A row alone is its own mean and has no variance: it is normalised by the running statistics, which it leaves alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(V, C) normalised."""
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, eps=self.eps)
        return super().forward(x)


class SparseSequential(nn.Sequential):
    """Modules one after the other on a sparse tensor; those that know no sparse tensors get its features (N, C)."""

    def forward(self, x: Any) -> Any:
        """The sparse tensor that leaves the last module; ``x`` keeps its features."""
        for module in self:
            if is_sparse_convolution(module) or isinstance(module, (SparseSequential, SparseBasicBlock)):
                x = module(x)
            else:
                x = replace_feature(x, module(x.features))
        return x


class SparseBasicBlock(nn.Module):
    """Two submanifold convolutions and a shortcut (He et al., 2016, in the sparse form of OpenPCDet).

    Args:
        channels: in and out.
        bias: of the convolutions.
        indice_key: under which the neighbours are found again.
    """

    def __init__(self, channels: int, *, bias: bool, indice_key: str):
        super().__init__()
        spconv = load_spconv()
        self.conv1 = spconv.SubMConv3d(channels, channels, 3, padding=1, bias=bias, indice_key=indice_key)
        self.bn1 = _norm(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = spconv.SubMConv3d(channels, channels, 3, padding=1, bias=bias, indice_key=indice_key)
        self.bn2 = _norm(channels)

    def flow_through(self, flow: ChannelFlow, path: str, parts: Parts) -> Parts:
        """The channels that leave are those that come in, since the two are added."""
        inner = flow.norm(f"{path}.bn1", flow.layer(f"{path}.conv1", self.conv1, parts))
        (shortcut,) = parts
        return flow.norm(f"{path}.bn2", flow.layer(f"{path}.conv2", self.conv2, inner, group=shortcut.group))

    def forward(self, x: Any) -> Any:
        """A sparse tensor with as many channels at the same places."""
        out = self.conv1(x)
        out = replace_feature(out, self.relu(self.bn1(out.features)))
        out = self.conv2(out)
        return replace_feature(out, self.relu(self.bn2(out.features) + x.features))


class _VoxelBackbone(SlotModule):
    """What both backbones share: widths, strided layers and the forward pass.

    Args:
        num_filters: channels of the four stages. The first is also that of the layer before them.
        out_channels: channels of what leaves; 128 unless given.
        width: factor on those of the two that are not given.
        last_pad: padding of the last convolution, which halves the height.
        input_channels: channels of a voxel.
        grid_size: cells, [x, y, z].

    Attributes:
        STAGE_CHANNELS: of the stages at width 1.
        OUT_CHANNELS: of what leaves at width 1.
    """

    READS = "voxel_features"
    CHANNEL_KEYS = ("NUM_FILTERS", "OUT_CHANNELS")
    STAGE_CHANNELS: ClassVar[tuple[int, ...]]
    OUT_CHANNELS: ClassVar[int] = 128

    def __init__(
        self,
        *,
        num_filters: list[Count] | None = None,
        out_channels: Count | None = None,
        width: Positive = 1.0,
        last_pad: int | list[int] = 0,
        input_channels: int,
        grid_size: Sequence[int],
    ):
        super().__init__()
        filters, out_channels = self._widths(num_filters, out_channels, width)
        if len(filters) != len(STRIDES) or min(filters) < 1:
            raise ValueError(f"NUM_FILTERS must be {len(STRIDES)} positive numbers, one for each stage, got {filters}")
        spconv = load_spconv()
        # one layer more in height than the grid has: 41 halves to 21, 11, 5, 2
        self.sparse_shape = [int(grid_size[2]) + 1, int(grid_size[1]), int(grid_size[0])]
        self.conv_input = _sparse_layer(spconv.SubMConv3d, input_channels, filters[0], 3, padding=1, indice_key="subm1")
        self.conv1 = SparseSequential(*self.stage_layers(filters[0], "subm1"))
        for i, padding in PADDINGS.items():
            before, channels = filters[i - 2 : i]
            keys = {"stride": 2, "padding": padding, "indice_key": f"spconv{i}"}
            down = _sparse_layer(spconv.SparseConv3d, before, channels, 3, **keys)
            self.add_module(f"conv{i}", SparseSequential(down, *self.stage_layers(channels, f"subm{i}")))
        keys = {"stride": (2, 1, 1), "padding": last_pad, "indice_key": "spconv_down2"}
        self.conv_out = _sparse_layer(spconv.SparseConv3d, filters[-1], out_channels, (3, 1, 1), **keys)
        self.num_point_features = out_channels
        self.backbone_channels = dict(zip(STRIDES, filters, strict=True))

    def stage_layers(self, channels: int, key: str) -> list[nn.Module]:
        """The submanifold layers of a stage, from its channels and the key under which neighbours are found again."""
        raise NotImplementedError

    @classmethod
    def _widths(cls, num_filters: list[int] | None, out_channels: int | None, width: float) -> tuple[list[int], int]:
        """Channels of the stages and of what leaves; the factor is on those that are not named."""
        filters = list(num_filters or scale_channels(list(cls.STAGE_CHANNELS), width))
        return filters, scale_channels(cls.OUT_CHANNELS, width) if out_channels is None else out_channels

    @classmethod
    def outputs(cls, config: SimpleNamespace, inputs: Entries) -> dict[str, FeatureSpec]:
        """``encoded_spconv_tensor``, and the stages as ``multi_scale_3d_features.x_conv1`` to ``x_conv4``."""
        layers = cls.layers(config, inputs)
        stages = {f"multi_scale_3d_features.{name}": layers[name.removeprefix("x_")] for name in STRIDES}
        return {"encoded_spconv_tensor": layers["conv_out"], **stages}

    @classmethod
    def layers(cls, config: SimpleNamespace, inputs: Entries) -> dict[str, FeatureSpec]:
        """The stages, and the layers before and behind them."""
        filters, out_channels = cls._widths(config.num_filters, config.out_channels, config.width)
        if list(cls.problems(config, inputs)):
            raise NotDescribedError(cls.__name__)
        before = inputs[cls.READS].grid if cls.READS in inputs else None
        grid = None if before is None else (before[0] + 1, *before[1:])
        spec = FeatureSpec(kind="voxel", channels=filters[0], grid=grid)
        found = {"conv_input": spec, "conv1": spec}
        for (i, padding), channels in zip(PADDINGS.items(), filters[1:], strict=False):
            spec = _strided(spec, channels, kernel=(3, 3, 3), stride=(2, 2, 2), padding=padding)
            found[f"conv{i}"] = spec
        kernel, stride = (3, 1, 1), (2, 1, 1)
        found["conv_out"] = _strided(spec, out_channels, kernel=kernel, stride=stride, padding=config.last_pad)
        return found

    @classmethod
    def problems(cls, config: SimpleNamespace, inputs: Entries) -> Iterator[str]:
        """Channels for every stage, and a padding for every axis."""
        if config.num_filters and len(config.num_filters) != len(STRIDES):
            yield f"NUM_FILTERS: {len(STRIDES)} numbers are needed, one for each stage, got {config.num_filters}"
        if isinstance(config.last_pad, list) and len(config.last_pad) != 3:
            yield f"last_pad: one number, or one for each of z, y, x, is needed, got {config.last_pad}"

    def channel_flow(self, flow: ChannelFlow, path: str, entries: Mapping[str, Parts]) -> dict[str, Parts]:
        """Layer after layer."""
        parts, written = flow.sequence(f"{path}.conv_input", self.conv_input, entries[self.READS]), {}
        for name in STRIDES:
            stage = name.removeprefix("x_")
            parts = flow.sequence(f"{path}.{stage}", self.get_submodule(stage), parts)
            written[f"multi_scale_3d_features.{name}"] = parts
        return {**written, "encoded_spconv_tensor": flow.sequence(f"{path}.conv_out", self.conv_out, parts)}

    @classmethod
    def scaled(cls, node: Mapping, width: float, before: Entries, after: Entries) -> Any:
        """Channels that the node does not name are scaled by a factor of its own."""
        scaled = super().scaled(node, width, before, after)
        if not set(cls.CHANNEL_KEYS) <= node.keys():
            scaled["WIDTH"] = width * node.get("WIDTH", 1.0)
        return scaled

    def forward(self, batch_dict: dict) -> dict:
        """Runs the stages.

        Reads: ``voxel_features`` (V, C), ``voxel_coords`` (V, 4) [frame, z, y, x], ``batch_size``.
        Writes: ``encoded_spconv_tensor``, a sparse tensor of ``num_point_features`` channels on the grid of
        ``encoded_spconv_tensor_stride`` 8; ``multi_scale_3d_features``, the stages' sparse tensors ``x_conv1`` to
        ``x_conv4``, and their strides in ``multi_scale_3d_strides``. Float32 on a CPU, whatever autocast says.
        """
        x = load_spconv().SparseConvTensor(
            features=batch_dict["voxel_features"],
            indices=batch_dict["voxel_coords"].int().contiguous(),
            spatial_shape=self.sparse_shape,
            batch_size=int(batch_dict["batch_size"]),
        )
        x = self.conv_input(x)
        scales = {}
        for name in STRIDES:
            x = self.get_submodule(name.removeprefix("x_"))(x)
            scales[name] = x
        batch_dict["encoded_spconv_tensor"] = self.conv_out(x)
        batch_dict["encoded_spconv_tensor_stride"] = ENCODED_STRIDE
        batch_dict["multi_scale_3d_features"] = scales
        batch_dict["multi_scale_3d_strides"] = dict(STRIDES)
        return batch_dict


@BACKBONES_3D.register
class VoxelBackBone8x(_VoxelBackbone):
    """SECOND's backbone: after each strided convolution two submanifold ones.

    Args:
        **common: see the base class; NUM_FILTERS are [16, 32, 64, 64] unless given.
    """

    STAGE_CHANNELS = (16, 32, 64, 64)

    def __init__(self, **common: Any):
        super().__init__(**common)

    def stage_layers(self, channels: int, key: str) -> list[nn.Module]:
        """One layer in the first stage, two in the others."""
        layer, count = load_spconv().SubMConv3d, 1 if key == "subm1" else 2
        return [_sparse_layer(layer, channels, channels, 3, padding=1, indice_key=key) for _ in range(count)]


@BACKBONES_3D.register
class VoxelResBackBone8x(_VoxelBackbone):
    """The residual backbone of the nuScenes and Waymo models: two residual blocks in each stage.

    Args:
        use_bias: of the convolutions in the blocks; those of the strided layers never have one.
        **common: see the base class; NUM_FILTERS are [16, 32, 64, 128] unless given.
    """

    STAGE_CHANNELS = (16, 32, 64, 128)

    def __init__(self, *, use_bias: bool | None = None, **common: Any):
        self.block_bias = use_bias is None or use_bias
        super().__init__(**common)

    def stage_layers(self, channels: int, key: str) -> list[nn.Module]:
        """Two residual blocks."""
        return [SparseBasicBlock(channels, bias=self.block_bias, indice_key=key) for _ in range(2)]


def _strided(spec: FeatureSpec, channels: int, *, kernel: Any, stride: Any, padding: Any) -> FeatureSpec:
    """What a strided convolution makes of what ``spec`` describes; a number is one for each of (z, y, x)."""
    paddings = [padding] * 3 if isinstance(padding, int) else padding
    grid = spec.grid
    if grid is not None:
        sizes = zip(grid, kernel, stride, paddings, strict=True)
        grid = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in sizes)
    strides = tuple(a * b for a, b in zip(spec.stride, stride, strict=True))
    return FeatureSpec(kind=spec.kind, channels=channels, stride=strides, grid=grid)


def _norm(channels: int) -> RowNorm:
    return RowNorm(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


def _sparse_layer(layer: type, in_channels: int, out_channels: int, kernel: Any, **keys: Any) -> SparseSequential:
    """A sparse convolution, normalisation and ReLU."""
    conv = layer(in_channels, out_channels, kernel, bias=False, **keys)
    return SparseSequential(conv, _norm(out_channels), nn.ReLU(inplace=True))
