"""Shapes and gradients of the native ops on edges act(base[j] + query[i]).

Every op takes base (M, C), query (G, C) and a graph's idx (G, K), and the graph sorted by base row where gradients are
wanted (it is sorted in the backward pass if it is not given). Gradients are not differentiable themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor

import pcdet.ops  # noqa: F401  (loads the native library)
from pcdet.ops.gradients import register_gradient

_ops = torch.ops.pcdet


def _by_base_row(idx: Tensor, num_base: int, start: Tensor | None, edge: Tensor | None) -> tuple[Tensor, Tensor]:
    return _ops.edge_transpose(idx, num_base) if start is None else (start, edge)


# --------------------------------------------------------------------------------------------------- edges themselves


@torch.library.register_fake("pcdet::edge_gather")
def _fake_gather(base, query, idx, start, edge, relu):
    return base.new_empty(idx.shape[0], idx.shape[1], base.shape[1])


@torch.library.register_fake("pcdet::edge_gather_backward")
def _fake_gather_backward(grad, base, query, idx, start, edge, relu):
    return base.new_empty(base.shape), base.new_empty(query.shape)


def _save_gather(ctx, inputs, output):
    base, query, idx, start, edge, ctx.relu = inputs
    ctx.save_for_backward(base, query, idx, start, edge)


def _gather_backward(ctx, grad):
    base, query, idx, start, edge = ctx.saved_tensors
    start, edge = _by_base_row(idx, base.shape[0], start, edge)
    return *_ops.edge_gather_backward(grad, base, query, idx, start, edge, ctx.relu), None, None, None, None


register_gradient("pcdet::edge_gather", _gather_backward, setup_context=_save_gather)


# ------------------------------------------------------------------------------------------- reductions over neighbours


@torch.library.register_fake("pcdet::edge_argmax")
def _fake_argmax(base, idx):
    return base.new_empty(idx.shape[0], base.shape[1], dtype=torch.int64)


@torch.library.register_fake("pcdet::edge_sum")
def _fake_sum(base, query, idx, start, edge, relu):
    return base.new_empty(query.shape), base.new_empty(query.shape)


@torch.library.register_fake("pcdet::edge_sum_backward")
def _fake_sum_backward(grad, base, query, idx, start, edge, relu):
    return base.new_empty(base.shape)


def _save_sum(ctx, inputs, output):
    base, query, idx, start, edge, ctx.relu = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(base, query, idx, start, edge, output[1])


def _sum_backward(ctx, grad, _):
    base, query, idx, start, edge, passing = ctx.saved_tensors
    start, edge = _by_base_row(idx, base.shape[0], start, edge)
    to_base = _ops.edge_sum_backward(grad, base, query, idx, start, edge, ctx.relu)
    return to_base, grad * passing, None, None, None, None


register_gradient("pcdet::edge_sum", _sum_backward, setup_context=_save_sum)


# ----------------------------------------------------------------------------------------------------- batch statistics


@torch.library.register_fake("pcdet::edge_moments")
def _fake_moments(base, query, idx, start, edge):
    mean, variance = base.new_empty(base.shape[1]), base.new_empty(base.shape[1])
    return mean, variance, base.new_empty(query.shape), idx.new_empty(idx.shape[0])


def _save_moments(ctx, inputs, output):
    base, query, idx, start, edge = inputs
    mean, _, sums, count = output
    ctx.mark_non_differentiable(sums, count)
    ctx.save_for_backward(base, query, idx, start, edge, mean, sums, count)


def _moments_backward(ctx, grad_mean, grad_variance, *_):
    # With E edges y, d mean / d y = 1 / E and d variance / d y = 2 (y - mean) / E, summed over each row's edges.
    base, query, idx, start, edge, mean, sums, count = ctx.saved_tensors
    start, edge = _by_base_row(idx, base.shape[0], start, edge)
    edges = count.sum().clamp(min=1).to(base.dtype)
    slope = 2 * grad_variance / edges
    offset = grad_mean / edges - slope * mean
    met = _ops.edge_sum_backward(query, base, query, idx, start, edge, False)
    times = start.diff().to(base.dtype)[:, None]
    to_base = met.mul_(slope).addcmul_(times, torch.addcmul(offset, slope, base))
    to_query = torch.addcmul(count.to(base.dtype)[:, None] * offset, slope, sums)
    return to_base, to_query, None, None, None


register_gradient("pcdet::edge_moments", _moments_backward, setup_context=_save_moments)


# ---------------------------------------------------------------------------------------------------- squared distances


@torch.library.register_fake("pcdet::edge_distance")
def _fake_distance(base, query, other_base, other_query, idx, start, edge, relu, other_relu):
    others = base.new_empty(0 if other_base is None else query.shape[0], query.shape[1])
    return base.new_empty(query.shape[0]), base.new_empty(query.shape), others


@torch.library.register_fake("pcdet::edge_distance_backward")
def _fake_distance_backward(
    weight, base, query, other_base, other_query, idx, start, edge, relu, other_relu, other_wanted
):
    others = base.shape[0] if other_wanted and other_base is not None else 0
    return base.new_empty(base.shape), base.new_empty(others, base.shape[1])


def _save_distance(ctx, inputs, output):
    base, query, other_base, other_query, idx, start, edge, *ctx.relu = inputs
    _, slope, other_slope = output
    ctx.mark_non_differentiable(slope, other_slope)
    ctx.save_for_backward(base, query, other_base, other_query, idx, start, edge, slope, other_slope)


def _distance_backward(ctx, grad, *_):
    base, query, other_base, other_query, idx, start, edge, slope, other_slope = ctx.saved_tensors
    start, edge = _by_base_row(idx, base.shape[0], start, edge)
    _, _, other_base_wanted, other_query_wanted, *_ = ctx.needs_input_grad
    twice = 2 * grad
    to_base, to_other = _ops.edge_distance_backward(
        twice, base, query, other_base, other_query, idx, start, edge, *ctx.relu, other_base_wanted
    )
    to_other_query = twice[:, None] * other_slope if other_query_wanted else None
    return (
        to_base,
        twice[:, None] * slope,
        to_other if other_base_wanted else None,
        to_other_query,
        *[None] * 5,
    )


register_gradient("pcdet::edge_distance", _distance_backward, setup_context=_save_distance)
