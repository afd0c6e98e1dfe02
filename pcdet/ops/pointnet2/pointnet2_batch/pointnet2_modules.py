"""Set abstraction and feature propagation of PointNet++ (Qi et al., NeurIPS 2017, sections 3.2 to 3.4).

Parameters have the names and shapes that OpenPCDet gives them: ``mlps.{scale}.{0, 3, 6}`` and ``mlp.{0, 3}`` are 1x1
convolutions without bias, each followed by its batch normalisation and a ReLU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pcdet.ops.pointnet2.pointnet2_batch import pointnet2_utils

DISTANCE_FLOOR = 1e-8  # metres, in the inverse distances of feature propagation


def shared_mlp(channels: Sequence[int]) -> nn.Sequential:
    """1x1 convolutions, batch normalisations and ReLUs from ``channels[0]`` through to ``channels[-1]``."""
    layers: list[nn.Module] = []
    for in_channels, out_channels in zip(channels, channels[1:], strict=False):
        layers += [
            nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class PointnetSAModuleMSG(nn.Module):
    """Samples centres and describes each by the points around it, at several scales.

    Args:
        npoint: M centres by furthest point sampling; None for one neighbourhood of everything (``GroupAll``).
        radii: metres, one for each scale.
        nsamples: points a neighbourhood, one for each scale.
        mlps: channels of each scale's layers, the first those of the incoming features (without coordinates).
        bn: ignored, as in OpenPCDet: there is always a batch normalisation.
        use_xyz: put the offsets from the centre before the features.
        pool_method: 'max_pool' or 'avg_pool' over a neighbourhood.
    """

    def __init__(
        self,
        *,
        npoint: int | None,
        radii: Sequence[float | None],
        nsamples: Sequence[int | None],
        mlps: Sequence[Sequence[int]],
        bn: bool = True,
        use_xyz: bool = True,
        pool_method: str = "max_pool",
    ):
        super().__init__()
        if not len(radii) == len(nsamples) == len(mlps):
            raise ValueError(
                f"radii, nsamples and mlps must have one entry a scale, got {len(radii)}, {len(nsamples)}, {len(mlps)}"
            )
        if pool_method not in ("max_pool", "avg_pool"):
            raise ValueError(f"pool_method must be 'max_pool' or 'avg_pool', got {pool_method!r}")
        self.npoint, self.pool_method = npoint, pool_method
        self.groupers, self.mlps = nn.ModuleList(), nn.ModuleList()
        for radius, nsample, (given, *wanted) in zip(radii, nsamples, mlps, strict=True):
            whole = npoint is None
            self.groupers.append(
                pointnet2_utils.GroupAll(use_xyz) if whole else pointnet2_utils.QueryAndGroup(radius, nsample, use_xyz)
            )
            self.mlps.append(shared_mlp([given + 3 * use_xyz, *wanted]))

    def forward(
        self, xyz: Tensor, features: Tensor | None = None, new_xyz: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor]:
        """Describes the centres.

        Args:
            xyz: (B, N, 3) metres.
            features: (B, C, N).
            new_xyz: (B, M, 3) centres, if they are not to be sampled.

        Returns:
            (B, M, 3) centres (None with ``GroupAll``) and (B, C', M) features, the scales side by side.
        """
        if new_xyz is None and self.npoint is not None:
            picks = pointnet2_utils.farthest_point_sample(xyz, self.npoint)
            new_xyz = pointnet2_utils.gather_operation(xyz.mT, picks).mT.contiguous()
        described = []
        for grouper, mlp in zip(self.groupers, self.mlps, strict=True):
            grouped = mlp(grouper(xyz, new_xyz, features))  # (B, C', M, K)
            described.append(_largest(grouped) if self.pool_method == "max_pool" else grouped.mean(dim=-1))
        return new_xyz, torch.cat(described, dim=1)


class PointnetSAModule(PointnetSAModuleMSG):
    """``PointnetSAModuleMSG`` with a single scale; ``npoint`` None takes all points as one neighbourhood."""

    def __init__(
        self,
        *,
        mlp: Sequence[int],
        npoint: int | None = None,
        radius: float | None = None,
        nsample: int | None = None,
        bn: bool = True,
        use_xyz: bool = True,
        pool_method: str = "max_pool",
    ):
        super().__init__(
            npoint=npoint,
            radii=[radius],
            nsamples=[nsample],
            mlps=[mlp],
            bn=bn,
            use_xyz=use_xyz,
            pool_method=pool_method,
        )


class PointnetFPModule(nn.Module):
    """Carries features from few points back to many: inverse-distance means of three, then layers.

    Args:
        mlp: channels of the layers, the first those of the carried and the own features together.
        bn: ignored, as in OpenPCDet: there is always a batch normalisation.
    """

    def __init__(self, *, mlp: Sequence[int], bn: bool = True):
        super().__init__()
        self.mlp = shared_mlp(mlp)

    def forward(
        self, unknown: Tensor, known: Tensor | None, unknow_feats: Tensor | None, known_feats: Tensor
    ) -> Tensor:
        """Describes the unknown points.

        Args:
            unknown: (B, N, 3) metres.
            known: (B, M, 3); None if ``known_feats`` (B, C2, 1) belong to all points alike.
            unknow_feats: (B, C1, N) features of the unknown points themselves.
            known_feats: (B, C2, M).

        Returns:
            (B, C', N).
        """
        if known is None:
            carried = known_feats.expand(-1, -1, unknown.shape[1])
        else:
            distance, idx = pointnet2_utils.three_nn(unknown, known)
            closeness = 1.0 / (distance + DISTANCE_FLOOR)
            weight = closeness / closeness.sum(dim=2, keepdim=True)
            carried = pointnet2_utils.three_interpolate(known_feats, idx, weight)
        together = carried if unknow_feats is None else torch.cat([carried, unknow_feats], dim=1)
        return self.mlp(together.unsqueeze(-1)).squeeze(-1)


def _largest(x: Tensor) -> Tensor:
    """Maxima along the last axis. ``amax`` is the faster forward, but its backward takes several passes over ``x``."""
    return x.max(dim=-1).values if x.requires_grad else x.amax(dim=-1)
