"""Edges as sums: what an edge convolution gives is act(base[j] + query[i]), so two tables describe all edges."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn

from pcdet.ops.edge_conv import native  # noqa: F401  (shapes and gradients of the ops)
from pcdet.ops.edge_conv.graph import EdgeGraph

EDGES = ("concat", "diff")
REDUCTIONS = ("none", "max", "mean")


class EdgeTerms(NamedTuple):
    """The description of every edge of a graph, base[j] + query[i], then perhaps a ReLU.

    Attributes:
        base: (M, C') what neighbours contribute, float32 or float64.
        query: (G, C') what centres contribute.
        relu: whether a ReLU follows.
    """

    base: Tensor
    query: Tensor
    relu: bool = False


def plain_terms(x_base: Tensor, x_query: Tensor, *, edge: str = "concat") -> EdgeTerms:
    """The edges themselves, [x_j; x_i] or [x_i - x_j; x_i], for (M, C) and (G, C) rows: C' = 2 C."""
    check_rows(x_base, x_query, edge)
    x_base, x_query = full_precision(x_base), full_precision(x_query)
    if edge == "diff":
        return EdgeTerms(nn.functional.pad(-x_base, (0, x_base.shape[1])), x_query.repeat(1, 2))
    channels = x_base.shape[1]
    return EdgeTerms(nn.functional.pad(x_base, (0, channels)), nn.functional.pad(x_query, (channels, 0)))


def linear_terms(
    x_base: Tensor, x_query: Tensor, weight: Tensor, bias: Tensor | None = None, *, edge: str = "concat"
) -> EdgeTerms:
    """A linear layer on the edges of (M, C) and (G, C) rows: W [x_j; x_i] = W_n x_j + W_c x_i.

    Args:
        x_base: (M, C); half precision becomes float32.
        x_query: (G, C).
        weight: (C', 2C); its first C columns meet the neighbour's half of the edge, the others the centre.
        bias: (C',) or None.
        edge: "concat", [x_j; x_i], or "diff", [x_i - x_j; x_i].
    """
    check_rows(x_base, x_query, edge)
    channels = x_base.shape[1]
    if weight.dim() != 2 or weight.shape[1] != 2 * channels:
        raise ValueError(
            f"weight must have shape (C', {2 * channels}) for rows of {channels}, got {list(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have shape ({weight.shape[0]},) like the rows of weight, got {list(bias.shape)}")
    x_base, x_query, weight = full_precision(x_base), full_precision(x_query), full_precision(weight)
    bias = None if bias is None else full_precision(bias)
    _check_same_kind(x_base, x_query=x_query, weight=weight, bias=bias)
    to_neighbour, to_centre = weight[:, :channels], weight[:, channels:]
    if edge == "diff":
        to_neighbour, to_centre = -to_neighbour, to_neighbour + to_centre
    base, query = x_base @ to_neighbour.T, nn.functional.linear(x_query, to_centre, bias)
    return EdgeTerms(full_precision(base), full_precision(query))  # autocast may have halved them


def normed(terms: EdgeTerms, graph: EdgeGraph, norm: nn.BatchNorm1d | nn.SyncBatchNorm) -> EdgeTerms:
    """A batch norm over the edges that exist, folded into both tables; updates its running statistics in training.

    One edge has no variance: it is normed by the running statistics, which it does not change. A SyncBatchNorm in
    training takes the edges of all its processes together, on any device. Each must then come here, and back in the
    backward pass, also without edges.
    """
    check_terms(terms, graph)
    if norm.num_features != terms.base.shape[1]:
        raise ValueError(
            f"norm must have as many features as edges have channels, {terms.base.shape[1]}, got {norm.num_features}"
        )
    if norm.training or norm.running_mean is None:
        mean, variance, edges = _statistics(terms, graph, norm)
        if norm.running_mean is not None:
            _update_running(norm, mean.detach(), variance.detach(), edges)
            mean = torch.where(edges > 1, mean, norm.running_mean.to(mean.dtype))
            variance = torch.where(edges > 1, variance, norm.running_var.to(mean.dtype))
    else:
        mean, variance = norm.running_mean, norm.running_var
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    query = (terms.query - mean) * scale
    return EdgeTerms(terms.base * scale, query if norm.bias is None else query + norm.bias)


def _statistics(
    terms: EdgeTerms, graph: EdgeGraph, norm: nn.BatchNorm1d | nn.SyncBatchNorm
) -> tuple[Tensor, Tensor, Tensor]:
    """(C',) mean, (C',) biased variance and number of the edges that a norm takes together."""
    mean, variance, _, count = torch.ops.pcdet.edge_moments(*terms[:2], graph.idx, graph.start, graph.edge)
    edges = count.sum()
    group = _processes_of(norm)
    if group is None:
        return mean, variance, edges
    return _joined(mean, variance, edges, group)


def _processes_of(norm: nn.BatchNorm1d | nn.SyncBatchNorm):
    """The group of several processes that a norm takes statistics with, or None."""
    if not (isinstance(norm, nn.SyncBatchNorm) and norm.training):
        return None
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    group = norm.process_group or distributed.group.WORLD
    return group if distributed.get_world_size(group) > 1 else None


def _joined(mean: Tensor, variance: Tensor, edges: Tensor, group) -> tuple[Tensor, Tensor, Tensor]:
    """The statistics of all processes' edges from those of this one's."""
    # In float64: counts beyond 2^24 stay exact, and squares lose nothing that float32 had.
    own, square = mean.double(), mean.double().square() + variance.double()
    sums = _SumOfProcesses.apply(torch.cat([edges[None].double(), edges * own, edges * square]), group)
    of_all, square_of_all = (sums[1:] / sums[0].clamp(min=1)).chunk(2)
    variance_of_all = (square_of_all - of_all.square()).clamp(min=0)
    return of_all.to(mean.dtype), variance_of_all.to(mean.dtype), sums[0].detach().to(edges.dtype)


class _SumOfProcesses(torch.autograd.Function):
    """The sum over a group's processes, in each of them; so is its gradient, of which each has a part."""

    @staticmethod
    def forward(ctx, x: Tensor, group) -> Tensor:
        ctx.group = group
        total = x.clone()
        distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _SumOfProcesses.apply(grad, ctx.group), None


@torch.no_grad()
def _update_running(norm: nn.BatchNorm1d | nn.SyncBatchNorm, mean: Tensor, variance: Tensor, edges: Tensor) -> None:
    there = edges > 1
    norm.num_batches_tracked.add_(there)
    share = 1 / norm.num_batches_tracked.clamp(min=1) if norm.momentum is None else norm.momentum
    unbiased = variance * edges / (edges - 1).clamp(min=1)
    for running, seen in ((norm.running_mean, mean), (norm.running_var, unbiased)):
        running.add_(share * (seen.to(running.dtype) - running) * there)


def reduced(terms: EdgeTerms, graph: EdgeGraph, reduce: str) -> Tensor:
    """(G, K, C') all edges, 0 where missing; or their "max" or "mean" over the neighbours that exist, (G, C').

    A reduced centre without neighbours is 0. Of equal largest neighbours the first gets the gradient.
    """
    check_terms(terms, graph)
    base, query, relu = terms
    if reduce == "none":
        return torch.ops.pcdet.edge_gather(base, query, graph.idx, graph.start, graph.edge, relu)
    if reduce == "mean":
        total, _ = torch.ops.pcdet.edge_sum(base, query, graph.idx, graph.start, graph.edge, relu)
        return total / graph.degree.clamp(min=1).to(total.dtype)[:, None]
    where = torch.ops.pcdet.edge_argmax(base.detach(), graph.idx)
    if base.shape[0] == 0:
        base = nn.functional.pad(base, (0, 0, 0, 1))  # something to gather, which no one is
    out = base.gather(0, where.clamp(min=0)) + query
    return torch.where(where < 0, 0, torch.relu(out) if relu else out)


def some_edges(terms: EdgeTerms, graph: EdgeGraph, places: Tensor) -> Tensor:
    """(n, C') the edges at (n,) int64 places i * K + k; 0 at missing ones."""
    check_terms(terms, graph)
    rows = graph.idx.flatten()[places].long()
    out = terms.base[rows.clamp(min=0)] + terms.query[places // graph.idx.shape[1]]
    return torch.where(rows[:, None] < 0, 0, torch.relu(out) if terms.relu else out)


def full_precision(x: Tensor) -> Tensor:
    """Half precision as float32, all else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def check_terms(terms: EdgeTerms, graph: EdgeGraph) -> None:
    """ValueError unless both tables have a row for each row that the graph joins, and channels and a type in common."""
    base, query, _ = terms
    rows, centres = graph.num_base, graph.idx.shape[0]
    if base.dim() != 2 or query.dim() != 2 or base.shape[1] != query.shape[1]:
        raise ValueError(
            f"base and query must have shapes (M, C) and (G, C), got {list(base.shape)} and {list(query.shape)}"
        )
    if base.shape[0] != rows or query.shape[0] != centres:
        raise ValueError(
            f"base and query must have the {rows} and {centres} rows that the graph joins, got {base.shape[0]} and "
            f"{query.shape[0]}"
        )
    _check_same_kind(base, "base", query=query)


def check_rows(x_base: Tensor, x_query: Tensor, edge: str) -> None:
    """ValueError unless these are (M, C) and (G, C) rows and a known kind of edge."""
    if x_base.dim() != 2 or x_query.dim() != 2 or x_base.shape[1] != x_query.shape[1]:
        raise ValueError(
            f"x_base and x_query must have shapes (M, C) and (G, C), got {list(x_base.shape)} and {list(x_query.shape)}"
        )
    if edge not in EDGES:
        raise ValueError(f"edge must be one of {', '.join(EDGES)}, got {edge!r}")


def _check_same_kind(first: Tensor, first_name: str = "x_base", **others: Tensor | None) -> None:
    """ValueError unless all that are given are floats of one type on one device."""
    if first.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{first_name} must be a floating-point tensor, got {first.dtype}")
    for name, other in others.items():
        if other is not None and (other.dtype != first.dtype or other.device != first.device):
            raise ValueError(
                f"{name} must match {first_name} ({first.dtype} on {first.device}), got {other.dtype} on {other.device}"
            )
