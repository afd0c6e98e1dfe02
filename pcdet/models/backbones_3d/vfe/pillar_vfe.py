"""Pillar features learned by a small PointNet (PointPillars, Lang et al., 2019, section 2.1).

As in OpenPCDet, the empty slots of a pillar are zero rows that take part in the batch statistics and in the maximum.
They need not be computed for that: a linear layer without bias leaves them zero, so a row of zeros counts in the
statistics only through its number, and contributes the normalised value of zero to the maximum. Most slots are empty
(32 slots, a few points), which makes this many times cheaper than the dense form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from pcdet.models.channel_flow import ChannelFlow, Parts, given, join
from pcdet.models.feature_spec import STEPS, Entries, FeatureSpec, SlotModule
from pcdet.models.model_utils.precision import full_precision
from pcdet.registry import VFE, Count
from pcdet.utils.transfer import constant

BN_EPS = 1e-3
BN_MOMENTUM = 0.01


class PFNLayer(nn.Module):
    """Linear layer, batch normalisation, ReLU, and the maximum over the points of a pillar.

    Args:
        in_channels: channels of a point.
        out_channels: channels that come out; unless this is the last layer, half are the point's and half the pillar's.
        use_norm: batch normalisation, or a bias instead.
        last_layer: return one row for a pillar instead of one for each point.
    """

    def __init__(self, in_channels: int, out_channels: int, *, use_norm: bool = True, last_layer: bool = False):
        super().__init__()
        self.last_layer = last_layer
        self.use_norm = use_norm
        out_channels = out_channels if last_layer else out_channels // 2
        self.linear = nn.Linear(in_channels, out_channels, bias=not use_norm)
        if use_norm:
            self.norm = nn.BatchNorm1d(out_channels, eps=BN_EPS, momentum=BN_MOMENTUM)

    def forward(self, points: Tensor) -> Tensor:
        """Features of every slot, or of every pillar if this is the last layer.

        Args:
            points: (V, P, in_channels).

        Returns:
            (V, P, out_channels), or (V, out_channels).
        """
        x = self.linear(points)
        if self.use_norm and (len(x) or isinstance(self.norm, nn.SyncBatchNorm)):  # whose other processes wait
            # channels before points: over two axes PyTorch's float32 statistics of 400,000 rows are off by percents
            x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        elif self.use_norm:  # a plain norm takes no statistics of nothing
            x = x * self.norm.weight + self.norm.bias
        x = F.relu(x)
        pillar = x.amax(dim=1, keepdim=True)
        if self.last_layer:
            return pillar.squeeze(1)
        return torch.cat((x, pillar.expand_as(x)), dim=-1)

    @property
    def takes_points(self) -> bool:
        """Whether ``forward_points`` may stand for ``forward``; not with, say, a synchronised normalisation."""
        return self.last_layer and self.use_norm and type(self.norm) is nn.BatchNorm1d

    def forward_points(self, points: Tensor, pillar: Tensor, count: Tensor, num_slots: int) -> Tensor:
        """What ``forward`` returns for a last layer whose empty slots are zero rows, computed from the points alone.

        Args:
            points: (N, in_channels) rows of the slots that hold a point. No gradient flows into them.
            pillar: (N,) int64, the pillar of each point.
            count: (V,) points of each pillar.
            num_slots: P; pillars with fewer points have zero rows in their other slots.

        Returns:
            (V, out_channels).
        """
        scale, shift = self._affine(points, len(count) * num_slots)
        x = torch.addmm(shift, points, (self.linear.weight * scale[:, None]).t())
        pooled = _PositivePillarMax.apply(x, pillar, len(count))
        empty_slot = F.relu(shift) * (count < num_slots)[:, None]
        return torch.maximum(pooled, empty_slot)

    def _affine(self, points: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
        """Batch normalisation of the linear layer's output as a scale and a shift of each channel.

        The statistics follow from the mean and the covariance of the layer's input, which are small: mean W m,
        variance W S W^T. They are taken in float64, where the difference of large squares costs nothing.
        """
        norm, weight = self.norm, self.linear.weight
        if norm.training or not norm.track_running_stats:
            rows = max(num_rows, 1)
            wide = points.double()
            mean_in = wide.sum(0) / rows
            covariance = wide.t() @ wide / rows - torch.outer(mean_in, mean_in)
            mean = weight.double() @ mean_in
            variance = ((weight.double() @ covariance) * weight.double()).sum(1).clamp(min=0)
            if norm.training and norm.track_running_stats and num_rows > 0:
                self._update_running(mean.detach(), variance.detach(), num_rows)
            mean, variance = mean.to(weight.dtype), variance.to(weight.dtype)
        else:
            mean, variance = norm.running_mean, norm.running_var
        scale = norm.weight * torch.rsqrt(variance + norm.eps)
        return scale, norm.bias - mean * scale

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor, num_rows: int) -> None:
        norm = self.norm
        norm.num_batches_tracked += 1
        momentum = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        unbiased = variance * (num_rows / max(num_rows - 1, 1))
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
        norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), momentum)


class _PositivePillarMax(torch.autograd.Function):
    """Maximum over the points of each pillar of what is positive in them; zero where nothing is.

    Args: x (N, C), pillar (N,) int64, num_pillars V. Returns (V, C). Points that share a maximum share its gradient.
    """

    @staticmethod
    def forward(ctx, x: Tensor, pillar: Tensor, num_pillars: int) -> Tensor:
        pooled = x.new_zeros(num_pillars, x.shape[1])
        pooled.scatter_reduce_(0, pillar[:, None].expand_as(x), x, "amax", include_self=True)
        ctx.save_for_backward(x, pillar, pooled)
        return pooled

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        x, pillar, pooled = ctx.saved_tensors
        positive = pooled > 0
        grad = grad * positive
        hit = torch.eq(x, pooled.index_select(0, pillar), out=torch.empty_like(x))
        # Without ties the counts are one: asking spares a CPU the division, and would make the host wait for a GPU.
        if x.device.type != "cpu" or torch.count_nonzero(hit) != torch.count_nonzero(positive):
            grad = grad / torch.zeros_like(pooled).index_add_(0, pillar, hit).clamp_(min=1)
        return hit.mul_(grad.index_select(0, pillar)), None, None


@VFE.register
class PillarVFE(SlotModule):
    """Pillar features from decorated points: raw features, offset to the pillar's mean, offset to its centre.

    Always runs in the precision of its parameters, whatever autocast says: coordinates up to 70 m do not fit bfloat16.

    Args:
        num_filters: output channels of the layers. Those of all but the last are even: half are the layer's own, half
            their maximum over the pillar.
        use_norm: batch normalisation; a bias without it.
        with_distance: add the distance to the sensor.
        use_abslote_xyz: keep the absolute coordinates (the key is spelt as in OpenPCDet).
        num_point_features: channels of a raw point, x, y, z first.
        voxel_size: metres, [x, y, z].
        point_cloud_range: metres, [x_min, y_min, z_min, x_max, y_max, z_max].
    """

    READS = "voxels"
    CHANNEL_KEYS = ("NUM_FILTERS",)
    LAYER = PFNLayer

    def __init__(
        self,
        *,
        num_filters: list[Count],
        use_norm: bool = True,
        with_distance: bool = False,
        use_abslote_xyz: bool = True,
        num_point_features: int,
        voxel_size: Sequence[float],
        point_cloud_range: Sequence[float],
    ):
        super().__init__()
        if not num_filters:
            raise ValueError("NUM_FILTERS must name the channels of at least one layer, got []")
        if any(channels % 2 for channels in num_filters[:-1]):
            raise ValueError(
                "NUM_FILTERS must be even for every layer but the last, which is joined with its maximum; got "
                f"{list(num_filters)}"
            )
        self.with_distance = with_distance
        self.use_absolute_xyz = use_abslote_xyz
        self.voxel_size = [float(v) for v in voxel_size]
        self.origin = [float(low) + size / 2 for low, size in zip(point_cloud_range[:3], self.voxel_size, strict=True)]
        widths = [num_point_features + (6 if use_abslote_xyz else 3) + int(with_distance), *num_filters]
        self.pfn_layers = nn.ModuleList(
            self.LAYER(widths[i], widths[i + 1], use_norm=use_norm, last_layer=i == len(num_filters) - 1)
            for i in range(len(num_filters))
        )
        self.num_filters = list(num_filters)

    @classmethod
    def outputs(cls, config: SimpleNamespace, inputs: Entries) -> dict[str, FeatureSpec]:
        """``pillar_features``: a row for each pillar."""
        if not config.num_filters:
            return {}
        return {"pillar_features": replace(inputs["voxels"], kind="pillar", channels=config.num_filters[-1])}

    @classmethod
    def layers(cls, config: SimpleNamespace, inputs: Entries) -> dict[str, FeatureSpec]:
        """The last layer, which gives a row for each pillar."""
        written = cls.outputs(config, inputs)
        return {f"pfn_layers.{len(config.num_filters) - 1}": spec for spec in written.values()}

    @classmethod
    def problems(cls, config: SimpleNamespace, inputs: Entries) -> Iterator[str]:
        """There must be voxels, and a layer."""
        if not config.num_filters:
            yield "NUM_FILTERS: must name the channels of at least one layer, got []"
        if inputs.lacks("voxels"):
            yield f"{STEPS}: {cls.__name__} reads voxels; add transform_points_to_voxels to them"

    @classmethod
    def scaled(cls, node: Mapping, width: float, before: Entries, after: Entries) -> Any:
        """Even channels for every layer but the last: half are a layer's own, half their maximum over the pillar."""
        scaled = super().scaled(node, width, before, after)
        if scaled.get("NUM_FILTERS"):
            *hidden, last = scaled["NUM_FILTERS"]
            scaled["NUM_FILTERS"] = [*(max(2, channels - channels % 2) for channels in hidden), last]
        return scaled

    def channel_flow(self, flow: ChannelFlow, path: str, entries: Mapping[str, Parts]) -> dict[str, Parts]:
        """Behind every layer but the last a point's own channels, and the same of its pillar."""
        parts = given(self.pfn_layers[0].linear.in_features)
        for i, layer in enumerate(self.pfn_layers):
            own = flow.layer(f"{path}.pfn_layers.{i}.linear", layer.linear, parts)
            if layer.use_norm:
                flow.norm(f"{path}.pfn_layers.{i}.norm", own)
            parts = own if layer.last_layer else join((own, own))
        return {"pillar_features": parts}

    def get_output_feature_dim(self) -> int:
        """Channels of ``pillar_features``."""
        return self.num_filters[-1]

    def forward(self, batch_dict: dict) -> dict:
        """Encodes every pillar.

        Reads: ``voxels`` (V, P, C), zero where there is no point; ``voxel_num_points`` (V,); ``voxel_coords`` (V, 4)
        [frame, z, y, x].
        Writes: ``pillar_features`` (V, num_filters[-1]).
        """
        dtype = self.pfn_layers[0].linear.weight.dtype
        voxels = batch_dict["voxels"].to(dtype)
        count, coords = batch_dict["voxel_num_points"].long(), batch_dict["voxel_coords"]
        with full_precision(voxels.device):
            if len(self.pfn_layers) == 1 and self.pfn_layers[0].takes_points:
                features = self._forward_points(voxels, count, coords)
            else:
                features = self._forward_slots(voxels, count, coords)
        batch_dict["pillar_features"] = features
        return batch_dict

    def _forward_points(self, voxels: Tensor, count: Tensor, coords: Tensor) -> Tensor:
        num_slots = voxels.shape[1]
        count = count.clamp(max=num_slots)
        pillar = torch.repeat_interleave(count)
        place = torch.arange(len(pillar), device=pillar.device) - (count.cumsum(0) - count).index_select(0, pillar)
        raw = voxels.flatten(0, 1).index_select(0, pillar * num_slots + place)
        total = voxels.new_zeros(len(count), 3).index_add_(0, pillar, raw[:, :3])
        mean = total / count.to(voxels.dtype).clamp(min=1)[:, None]
        centre = self._centres(coords, voxels.dtype)
        points = self._decorate(raw, mean.index_select(0, pillar), centre.index_select(0, pillar))
        return self.pfn_layers[0].forward_points(points, pillar, count, num_slots)

    def _forward_slots(self, voxels: Tensor, count: Tensor, coords: Tensor) -> Tensor:
        slots = torch.arange(voxels.shape[1], device=voxels.device)
        filled = (slots < count[:, None]).unsqueeze(-1).to(voxels.dtype)
        mean = voxels[..., :3].sum(dim=1, keepdim=True) / count.to(voxels.dtype).clamp(min=1)[:, None, None]
        centres = self._centres(coords, voxels.dtype)[:, None]
        features = self._decorate(voxels, mean.expand_as(voxels[..., :3]), centres.expand_as(voxels[..., :3])) * filled
        for layer in self.pfn_layers:
            features = layer(features)
        return features

    def _centres(self, coords: Tensor, dtype: torch.dtype) -> Tensor:
        """(V, 3) centres of the pillars in metres."""
        size, origin = (constant(v, coords.device, dtype) for v in (self.voxel_size, self.origin))
        return torch.addcmul(origin, coords[:, 1:].flip(1).to(dtype), size)

    def _decorate(self, raw: Tensor, mean: Tensor, centre: Tensor) -> Tensor:
        xyz = raw[..., :3]
        parts = [raw if self.use_absolute_xyz else raw[..., 3:], xyz - mean, xyz - centre]
        if self.with_distance:
            parts.append(torch.linalg.vector_norm(xyz, dim=-1, keepdim=True))
        return torch.cat(parts, dim=-1)
