"""PointNet++ with multi-scale grouping (Qi et al., NeurIPS 2017), the backbone of PointRCNN."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from types import SimpleNamespace

import torch
import torch.nn as nn

from pcdet.models.channel_flow import ChannelFlow, Parts, given, join
from pcdet.models.feature_spec import Entries, FeatureSpec, SlotModule
from pcdet.models.model_utils.set_abstraction import abstraction_flow, num_offsets
from pcdet.ops.pointnet2.pointnet2_batch.pointnet2_modules import PointnetFPModule, PointnetSAModuleMSG
from pcdet.registry import BACKBONES_3D


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetAbstractionConfig:
    """``SA_CONFIG``: an entry for each level, fine to coarse.

    Attributes:
        npoints: centres.
        radius: metres, for each scale.
        nsample: points around a centre, for each scale.
        mlps: output channels of each scale's layers.
        use_xyz: put the offsets from the centre before the features.
    """

    npoints: list[int]
    radius: list[list[float]]
    nsample: list[list[int]]
    mlps: list[list[list[int]]]
    use_xyz: bool = True

    def __post_init__(self):
        counts = {key.upper(): len(getattr(self, key)) for key in ("npoints", "radius", "nsample", "mlps")}
        if len(set(counts.values())) > 1:
            raise ValueError(f"SA_CONFIG needs an entry for each level, got {counts}")


@BACKBONES_3D.register
class PointNet2MSG(SlotModule):
    """Features of every point: set abstraction to ever fewer centres, then propagation back.

    Args:
        sa_config: the levels.
        fp_mlps: output channels of each propagation's layers, that to the input points first.
        input_channels: columns of a point, x, y, z included.

    Attributes:
        num_point_features: channels of ``point_features``.
    """

    READS = "points"
    CHANNEL_KEYS = ("SA_CONFIG.MLPS", "FP_MLPS")

    def __init__(self, *, sa_config: SetAbstractionConfig, fp_mlps: list[list[int]], input_channels: int):
        super().__init__()
        if len(fp_mlps) != len(sa_config.npoints):
            raise ValueError(f"FP_MLPS needs an entry for each of {len(sa_config.npoints)} levels, got {len(fp_mlps)}")
        widths = [input_channels - 3]  # of the features at each level
        self.SA_modules = nn.ModuleList()
        levels = zip(sa_config.npoints, sa_config.radius, sa_config.nsample, sa_config.mlps, strict=True)
        for npoint, radii, nsamples, mlps in levels:
            self.SA_modules.append(
                PointnetSAModuleMSG(
                    npoint=npoint,
                    radii=radii,
                    nsamples=nsamples,
                    mlps=[[widths[-1], *mlp] for mlp in mlps],
                    use_xyz=sa_config.use_xyz,
                )
            )
            widths.append(sum(mlp[-1] for mlp in mlps))
        carried = [mlp[-1] for mlp in fp_mlps[1:]] + widths[-1:]
        self.FP_modules = nn.ModuleList(
            PointnetFPModule(mlp=[coarse + own, *mlp])
            for coarse, own, mlp in zip(carried, widths, fp_mlps, strict=False)
        )
        self.num_point_features = fp_mlps[0][-1]

    @classmethod
    def outputs(cls, config: SimpleNamespace, inputs: Entries) -> dict[str, FeatureSpec]:
        """``point_features``: a row for each point."""
        return {"point_features": FeatureSpec(kind="point", channels=config.fp_mlps[0][-1], equal_frames=True)}

    @classmethod
    def problems(cls, config: SimpleNamespace, inputs: Entries) -> Iterator[str]:
        """All frames have as many points."""
        if not inputs["points"].equal_frames:
            yield (
                f"DATA_CONFIG.DATA_PROCESSOR: {cls.__name__} reads equally many points of every frame; add "
                "sample_points to its steps"
            )

    def channel_flow(self, flow: ChannelFlow, path: str, entries: Mapping[str, Parts]) -> dict[str, Parts]:
        """Scales side by side; carried before own features in propagation."""
        own = self.SA_modules[0].mlps[0][0].in_channels - num_offsets(self.SA_modules[0])
        levels = [given(own) if own else ()]
        for i, module in enumerate(self.SA_modules):
            levels.append(abstraction_flow(flow, f"{path}.SA_modules.{i}", module, levels[-1]))
        carried = levels.pop()
        for i in reversed(range(len(self.FP_modules))):
            parts = join((carried, levels.pop()))
            carried = flow.sequence(f"{path}.FP_modules.{i}.mlp", self.FP_modules[i].mlp, parts)
        return {"point_features": carried}

    def forward(self, batch_dict: dict) -> dict:
        """Describes the points.

        Reads: ``batch_size``; ``points`` (B * N, 1 + input_channels) [frame, x, y, z, ...], frame after frame, each
        with the same number of points.
        Writes: ``point_features`` (B * N, num_point_features), ``point_coords`` (B * N, 4) [frame, x, y, z].
        """
        points, frames = batch_dict["points"], int(batch_dict["batch_size"])
        _check_equal_counts(points, frames)
        per_frame = points.view(frames, -1, points.shape[1])
        xyz = [per_frame[..., 1:4].contiguous()]
        features = [per_frame[..., 4:].mT.contiguous() if points.shape[1] > 4 else None]
        for module in self.SA_modules:
            centres, described = module(xyz[-1], features[-1])
            xyz.append(centres)
            features.append(described)
        carried = features.pop()
        for module in reversed(self.FP_modules):
            carried = module(xyz[-2], xyz.pop(), features.pop(), carried)
        batch_dict["point_features"] = carried.mT.reshape(len(points), -1)
        batch_dict["point_coords"] = points[:, :4]
        return batch_dict


def _check_equal_counts(points: torch.Tensor, frames: int) -> None:
    if len(points) and len(points) % frames == 0:
        in_order = torch.arange(frames, device=points.device).repeat_interleave(len(points) // frames)
        if torch.equal(points[:, 0], in_order.to(points.dtype)):  # one wait for a GPU, where counting makes three
            return
    counts = torch.bincount(points[:, 0].long(), minlength=frames)
    if len(counts) != frames or bool((counts != counts[0]).any()) or not bool(counts[0]):
        raise ValueError(
            "PointNet2MSG needs the same number of points in every frame, got "
            f"{counts.tolist()}; add sample_points to DATA_CONFIG.DATA_PROCESSOR"
        )
