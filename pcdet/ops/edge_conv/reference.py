"""Readable version of ``edge_conv``: the specification that tests compare to."""

from __future__ import annotations

import torch
from torch import Tensor


def edge_sum_of_squares(a_base: Tensor, b_query: Tensor, idx: Tensor) -> Tensor:
    """(G,) one edge at a time."""
    sums = []
    for i, row in enumerate(idx.tolist()):
        squares = [(a_base[j] + b_query[i]).square().sum() for j in row if j >= 0]
        sums.append(torch.stack(squares).sum() if squares else b_query[i].sum() * 0)
    return torch.stack(sums) if sums else b_query.new_zeros(0)


def edge_conv(
    x_base: Tensor,
    x_query: Tensor,
    idx: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    edge: str = "concat",
    norm=None,
    activation=None,
    reduce: str = "none",
) -> Tensor:
    """(G, K, C') or (G, C'), one edge at a time, each with its own 2C inputs."""
    where = [(i, k) for i in range(idx.shape[0]) for k in range(idx.shape[1]) if idx[i, k] >= 0]
    out = x_query.new_zeros(*idx.shape, weight.shape[0])
    if where:
        neighbours = torch.stack([x_base[idx[i, k]] for i, k in where])
        centres = torch.stack([x_query[i] for i, _ in where])
        inputs = torch.cat([centres - neighbours if edge == "diff" else neighbours, centres], dim=1)
        edges = torch.nn.functional.linear(inputs, weight, bias)
        edges = norm(edges) if norm else edges
        edges = activation(edges) if activation else edges
        out = out.index_put(tuple(torch.tensor(where).T), edges)
    if reduce == "none":
        return out
    pooled = []
    for i in range(len(idx)):
        kept = out[i][idx[i] >= 0]
        pooled.append(
            kept.new_zeros(out.shape[2]) if len(kept) == 0 else kept.amax(0) if reduce == "max" else kept.mean(0)
        )
    return torch.stack(pooled) if pooled else x_query.new_zeros(0, weight.shape[0])
