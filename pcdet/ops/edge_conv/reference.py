"""Readable version of the edge convolution: the specification that tests compare to. Every edge is made."""

from __future__ import annotations

import torch
from torch import Tensor


def edge_conv(
    x_base: Tensor,
    x_query: Tensor,
    idx: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    edge: str = "concat",
    norm=None,
    activation=None,
    reduce: str = "none",
) -> Tensor:
    """(G, K, C') or (G, C'): gather, concatenate, multiply, norm, activate, reduce. No weight: the edges themselves."""
    there = idx >= 0
    centre, k = there.nonzero(as_tuple=True)
    neighbours, centres = x_base[idx[there]], x_query[centre]
    edges = torch.cat([centres - neighbours if edge == "diff" else neighbours, centres], dim=1)
    if weight is not None:
        edges = torch.nn.functional.linear(edges, weight, bias)
    if norm is not None and len(edges):
        edges = norm(edges)
    if activation is not None:
        edges = activation(edges)
    out = edges.new_zeros(*idx.shape, edges.shape[1]).index_put((centre, k), edges)
    if reduce == "none":
        return out
    if reduce == "mean" or idx.shape[1] == 0:
        return out.sum(dim=1) / there.sum(dim=1, keepdim=True).clamp(min=1)
    largest = out.masked_fill(~there[:, :, None], -torch.inf).max(dim=1).values
    return largest.masked_fill(~there.any(dim=1, keepdim=True), 0)


def edge_distance(first: Tensor, second: Tensor) -> Tensor:
    """(G,) squared differences of two (G, K, C') tensors of edges."""
    return (first - second).square().sum(dim=(1, 2))


def edge_sum_of_squares(a_base: Tensor, b_query: Tensor, idx: Tensor) -> Tensor:
    """(G,) squares of the sums at every edge."""
    sums = a_base[idx.clamp(min=0)] + b_query[:, None] if len(a_base) else b_query.new_zeros(*idx.shape, 0)
    return sums.masked_fill((idx < 0)[:, :, None], 0).square().sum(dim=(1, 2))
