"""Sampling, neighbourhoods and interpolation in point sets of one size (PointNet++), with OpenPCDet's names.

On the CPU, coordinates that are NaN, infinite or beyond 1e12 m and indices out of range are a ValueError. On the GPU
(checking would stop the stream) they spread instead: such a centre or frame gets the index -1, and an index out of
range picks NaN and takes part in no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import pcdet.ops  # noqa: F401  (loads the native library)


def farthest_point_sample(xyz: Tensor, npoint: int) -> Tensor:
    """Points spread as widely as greedily possible. Exact; not differentiable.

    The first pick is point 0; each further one is the point whose distance to the nearest pick so far is greatest, and
    of several such points the first. When nothing is left to pick but doubles, that is point 0 again.

    Args:
        xyz: (B, N, 3) metres, float32 or float64; N > 0.
        npoint: M, how many; may exceed N.

    Returns:
        (B, M) int32 rows of ``xyz``.
    """
    return torch.ops.pcdet.furthest_point_sample(xyz.detach(), npoint)


def ball_query(radius: float, nsample: int, xyz: Tensor, new_xyz: Tensor) -> Tensor:
    """Points around centres, the first so many by index, not by distance. Not differentiable.

    Args:
        radius: metres; a point at exactly this distance is outside.
        nsample: K, the most points a centre gets.
        xyz: (B, N, 3) points; N > 0.
        new_xyz: (B, M, 3) centres, same dtype (float32 or float64) and device.

    Returns:
        (B, M, K) int32 rows of ``xyz``, ascending; behind them the first one again. All 0 for a centre without points.
    """
    return torch.ops.pcdet.ball_query(xyz.detach(), new_xyz.detach(), radius, nsample)


def three_nn(unknown: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The three nearest known points of every unknown one. Not differentiable.

    Args:
        unknown: (B, N, 3) metres.
        known: (B, M, 3), same dtype (float32 or float64) and device; M > 0.

    Returns:
        (B, N, 3) distances in metres, ascending, and (B, N, 3) int32 rows of ``known``; equally near ones by row.
        Infinity and 0 in place of what is missing if M < 3.
    """
    dist2, idx = torch.ops.pcdet.three_nn(unknown.detach(), known.detach())
    return dist2.sqrt(), idx


def gather_operation(features: Tensor, idx: Tensor) -> Tensor:
    """Picks columns. Differentiable in ``features``, deterministically if torch is asked to be.

    Args:
        features: (B, C, N), any floating-point type.
        idx: (B, M) int32 or int64, in [0, N).

    Returns:
        (B, C, M).
    """
    return torch.ops.pcdet.gather_points(features, idx)


def grouping_operation(features: Tensor, idx: Tensor) -> Tensor:
    """Picks columns for groups. Differentiable in ``features``, deterministically if torch is asked to be.

    Args:
        features: (B, C, N), any floating-point type.
        idx: (B, M, K) int32 or int64, in [0, N).

    Returns:
        (B, C, M, K).
    """
    if idx.dim() != 3:
        raise ValueError(f"idx must have shape (B, M, K), got {list(idx.shape)}")
    return torch.ops.pcdet.gather_points(features, idx.flatten(1)).unflatten(2, idx.shape[1:])


def three_interpolate(features: Tensor, idx: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of three columns. Differentiable in ``features`` and ``weight``.

    Args:
        features: (B, C, M), any floating-point type; half precision is summed in float32.
        idx: (B, N, 3) int32 or int64, in [0, M).
        weight: (B, N, 3).

    Returns:
        (B, C, N), the type of ``features``.
    """
    return torch.ops.pcdet.three_interpolate(features, idx, weight)


furthest_point_sample = farthest_point_sample


class QueryAndGroup(nn.Module):
    """The neighbourhoods of centres: offsets from the centre, followed by the neighbours' features."""

    def __init__(self, radius: float, nsample: int, use_xyz: bool = True):
        super().__init__()
        self.radius, self.nsample, self.use_xyz = radius, nsample, use_xyz

    def forward(self, xyz: Tensor, new_xyz: Tensor, features: Tensor | None = None) -> Tensor:
        """Groups points around centres.

        Args:
            xyz: (B, N, 3) points, metres.
            new_xyz: (B, M, 3) centres.
            features: (B, C, N) of the points.

        Returns:
            (B, 3 + C, M, K); without features (B, 3, M, K), without ``use_xyz`` (B, C, M, K).
        """
        if features is None and not self.use_xyz:
            raise ValueError("QueryAndGroup(use_xyz=False) needs features: there would be nothing to group")
        idx = ball_query(self.radius, self.nsample, xyz, new_xyz)
        if not self.use_xyz:
            return grouping_operation(features, idx)
        offsets = grouping_operation(xyz.mT, idx) - new_xyz.mT.unsqueeze(-1)
        if features is None:
            return offsets
        return torch.cat([offsets.to(features.dtype), grouping_operation(features, idx)], dim=1)


class GroupAll(nn.Module):
    """All points as one neighbourhood, around the origin."""

    def __init__(self, use_xyz: bool = True):
        super().__init__()
        self.use_xyz = use_xyz

    def forward(self, xyz: Tensor, new_xyz: Tensor | None, features: Tensor | None = None) -> Tensor:
        """(B, 3 + C, 1, N) from points (B, N, 3) and features (B, C, N); ``new_xyz`` is ignored."""
        if features is None:
            return xyz.mT.unsqueeze(2)
        if not self.use_xyz:
            return features.unsqueeze(2)
        return torch.cat([xyz.mT.to(features.dtype), features], dim=1).unsqueeze(2)


@torch.library.register_fake("pcdet::furthest_point_sample")
def _fake_furthest_point_sample(xyz, npoint):
    return xyz.new_empty(xyz.shape[0], npoint, dtype=torch.int32)


@torch.library.register_fake("pcdet::ball_query")
def _fake_ball_query(xyz, new_xyz, radius, nsample):
    return xyz.new_empty(new_xyz.shape[0], new_xyz.shape[1], nsample, dtype=torch.int32)


@torch.library.register_fake("pcdet::three_nn")
def _fake_three_nn(unknown, known):
    dist2 = unknown.new_empty(unknown.shape)
    return dist2, torch.empty_like(dist2, dtype=torch.int32)


@torch.library.register_fake("pcdet::gather_points")
def _fake_gather_points(features, idx):
    return features.new_empty(features.shape[0], features.shape[1], idx.shape[1])


@torch.library.register_fake("pcdet::gather_points_backward")
def _fake_gather_points_backward(grad, idx, num_points):
    return grad.new_empty(grad.shape[0], grad.shape[1], num_points)


@torch.library.register_fake("pcdet::three_interpolate")
def _fake_three_interpolate(features, idx, weight):
    return features.new_empty(features.shape[0], features.shape[1], idx.shape[1])


@torch.library.register_fake("pcdet::three_interpolate_backward")
def _fake_three_interpolate_backward(grad, idx, weight, num_points):
    return grad.new_empty(grad.shape[0], grad.shape[1], num_points)


def _save_gather(ctx, inputs, output):
    features, idx = inputs
    ctx.num_points = features.shape[2]
    ctx.save_for_backward(idx)


def _gather_backward(ctx, grad):
    (idx,) = ctx.saved_tensors
    return torch.ops.pcdet.gather_points_backward(grad, idx, ctx.num_points), None


def _save_gather_backward(ctx, inputs, output):
    ctx.save_for_backward(inputs[1])


def _gather_backward_backward(ctx, grad):
    (idx,) = ctx.saved_tensors
    return torch.ops.pcdet.gather_points(grad, idx), None, None


def _save_interpolate(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _interpolate_backward(ctx, grad):
    features, idx, weight = ctx.saved_tensors
    grad_features = grad_weight = None
    if ctx.needs_input_grad[0]:
        grad_features = torch.ops.pcdet.three_interpolate_backward(grad, idx, weight, features.shape[2])
    if ctx.needs_input_grad[2]:
        grad_weight = _gradient_of_weight(features, idx, grad, weight.dtype)
    return grad_features, None, grad_weight


def _gradient_of_weight(features: Tensor, idx: Tensor, grad: Tensor, dtype: torch.dtype) -> Tensor:
    return (grouping_operation(features, idx) * grad.unsqueeze(-1)).sum(dim=1).to(dtype)


def _save_interpolate_backward(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:3])


def _interpolate_backward_backward(ctx, grad_features):
    # <grad_features, backward(grad, weight)> = <grad, three_interpolate(grad_features, weight)>
    grad, idx, weight = ctx.saved_tensors
    to_grad = to_weight = None
    if ctx.needs_input_grad[0]:
        to_grad = torch.ops.pcdet.three_interpolate(grad_features, idx, weight)
    if ctx.needs_input_grad[2]:
        to_weight = _gradient_of_weight(grad_features, idx, grad, weight.dtype)
    return to_grad, None, to_weight, None


torch.library.register_autograd("pcdet::gather_points", _gather_backward, setup_context=_save_gather)
torch.library.register_autograd(
    "pcdet::gather_points_backward", _gather_backward_backward, setup_context=_save_gather_backward
)
torch.library.register_autograd("pcdet::three_interpolate", _interpolate_backward, setup_context=_save_interpolate)
torch.library.register_autograd(
    "pcdet::three_interpolate_backward", _interpolate_backward_backward, setup_context=_save_interpolate_backward
)
