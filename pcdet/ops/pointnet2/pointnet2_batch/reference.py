"""Readable pure-PyTorch versions of the ops in this folder: the specification that tests compare to."""

from __future__ import annotations

import torch
from torch import Tensor


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """(B, N, M) squared distances of points (B, N, 3) to points (B, M, 3), added in the order x, y, z."""
    x, y, z = ((a[:, :, None, axis] - b[:, None, :, axis]).square() for axis in range(3))
    return (x + y) + z


def furthest_point_sample(xyz: Tensor, npoint: int) -> Tensor:
    """(B, npoint) int32: the first point, then again and again the point furthest from all those picked before."""
    frames = []
    for points in xyz:
        nearest = points.new_full((len(points),), float("inf"))
        picks = [0][:npoint]
        while len(picks) < npoint:
            nearest = torch.minimum(nearest, squared_distances(points[None], points[None, picks[-1:]])[0, :, 0])
            picks.append(int((nearest == nearest.max()).nonzero()[0]))  # ties: the smallest index
        frames.append(torch.tensor(picks, dtype=torch.int32, device=xyz.device))
    return torch.stack(frames) if frames else xyz.new_zeros(0, npoint, dtype=torch.int32)


def ball_query(radius: float, nsample: int, xyz: Tensor, new_xyz: Tensor) -> Tensor:
    """(B, M, nsample) int32: the first points by index within the ball, then the first one again; zeros if none is."""
    reach = torch.tensor(radius, dtype=xyz.dtype, device=xyz.device).square()
    inside = squared_distances(new_xyz, xyz) < reach
    rows = torch.arange(xyz.shape[1], dtype=torch.int32, device=xyz.device)
    found = torch.where(inside, rows, xyz.shape[1]).sort(dim=-1).values[..., :nsample]
    found = torch.nn.functional.pad(found, (0, nsample - found.shape[-1]), value=xyz.shape[1])
    first = torch.where(inside.any(dim=-1), found[..., 0], 0)
    return torch.where(found < xyz.shape[1], found, first[..., None]).int()


def three_nn(unknown: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N, 3) distances, ascending, and int32 rows of ``known``; equal ones by row; infinite and 0 if M < 3."""
    missing = max(0, 3 - known.shape[1])
    nearest, rows = squared_distances(unknown, known).sort(dim=-1, stable=True)
    nearest = torch.nn.functional.pad(nearest[..., :3], (0, missing), value=float("inf"))
    return nearest.sqrt(), torch.nn.functional.pad(rows[..., :3], (0, missing)).int()


def gather_operation(features: Tensor, idx: Tensor) -> Tensor:
    """(B, C, M): columns of features (B, C, N) at idx (B, M)."""
    return features.gather(2, idx.long()[:, None].expand(-1, features.shape[1], -1))


def grouping_operation(features: Tensor, idx: Tensor) -> Tensor:
    """(B, C, M, K): columns of features (B, C, N) at idx (B, M, K)."""
    return gather_operation(features, idx.flatten(1)).unflatten(2, idx.shape[1:])


def three_interpolate(features: Tensor, idx: Tensor, weight: Tensor) -> Tensor:
    """(B, C, N): sums of three columns of features (B, C, M), at idx (B, N, 3), times weight (B, N, 3)."""
    return (grouping_operation(features, idx) * weight[:, None]).sum(dim=-1)
