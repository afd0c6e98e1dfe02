"""Edge convolution W [x_j; x_i] over a neighbour graph, projected before it is gathered, on any device.

W [x_j; x_i] = W_n x_j + W_c x_i: each row is multiplied once instead of once per edge. Edges are sums of two rows then;
native ops make them, norm them, reduce or compare them and forget them, also in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pcdet.ops.edge_conv.graph import EdgeGraph, edge_graph
from pcdet.ops.edge_conv.terms import (
    REDUCTIONS,
    EdgeTerms,
    check_terms,
    linear_terms,
    normed,
    plain_terms,
    reduced,
)


def edge_conv(
    x_base: Tensor,
    x_query: Tensor,
    idx: Tensor | EdgeGraph,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    edge: str = "concat",
    norm: nn.BatchNorm1d | nn.SyncBatchNorm | Callable[[Tensor], Tensor] | None = None,
    activation: Callable[[Tensor], Tensor] | None = None,
    reduce: str = "none",
) -> Tensor:
    """A linear layer on every edge (x_j, x_i) of a graph, then norm, activation and a reduction over the neighbours.

    Differentiable in ``x_base``, ``x_query``, ``weight``, ``bias`` and whatever ``norm`` holds. No tensor of edges
    exists with ``reduce``, a batch norm or no norm, and a ReLU or no activation; what else ``norm`` and ``activation``
    may be is called with the edges. A NaN spreads to every result that its row takes part in. To the gradient of
    ``weight``, and past a norm to all gradients, it spreads even from a row that is in no edge: 0 times NaN is NaN.

    Args:
        x_base: (M, C) rows that can be neighbours; half precision is computed in float32.
        x_query: (G, C) graph centres.
        idx: (G, K) int64 rows of ``x_base``, -1 where there is no neighbour; or an ``edge_graph`` of such a table.
        weight: (C', 2C); its first C columns meet the neighbour's half of the edge, the others the centre.
        bias: (C',) or None.
        edge: "concat", [x_j; x_i], or "diff", [x_i - x_j; x_i].
        norm: a BatchNorm1d, a SyncBatchNorm, or a function (E, C') -> (E, C'), over all edges that exist: missing ones
            take no part in the statistics.
        activation: elementwise.
        reduce: "none", "max" or "mean", over the neighbours that exist.

    Returns:
        (G, K, C'), 0 at missing neighbours; or (G, C') reduced, 0 where a centre has no neighbour at all.

    Raises:
        ValueError: shapes, dtypes, devices or options other than these, or an index out of range.
    """
    _check_reduce(reduce)
    terms = linear_terms(x_base, x_query, weight, bias, edge=edge)
    graph = _graph_of(idx, terms)
    if type(norm) in (nn.BatchNorm1d, nn.SyncBatchNorm):
        terms, norm = normed(terms, graph, norm), None
    if norm is not None or not (activation is None or _is_relu(activation)):
        return _reduced_edges(_called(terms, graph, norm, activation), graph, reduce)
    return reduced(terms._replace(relu=activation is not None), graph, reduce)


def edge_features(
    x_base: Tensor, x_query: Tensor, idx: Tensor | EdgeGraph, *, edge: str = "concat", reduce: str = "none"
) -> Tensor:
    """The edges themselves, [x_j; x_i] or [x_i - x_j; x_i]: ``edge_conv`` with the identity for a weight.

    Args:
        x_base: (M, C) rows that can be neighbours.
        x_query: (G, C) graph centres.
        idx: (G, K) int64 rows of ``x_base``, -1 where there is no neighbour; or an ``edge_graph`` of such a table.
        edge: "concat" or "diff".
        reduce: "none", "max" or "mean".

    Returns:
        (G, K, 2C), 0 at missing neighbours; or (G, 2C).
    """
    _check_reduce(reduce)
    terms = plain_terms(x_base, x_query, edge=edge)
    return reduced(terms, _graph_of(idx, terms), reduce)


def edge_distance(first: EdgeTerms, second: EdgeTerms, graph: EdgeGraph) -> Tensor:
    """Sum over a centre's neighbours of |first's edge - second's edge|^2, without a tensor of edges.

    Differentiable in all four tables; edges are made again in the backward pass. The same bits on every call on the
    CPU, and on the GPU where ``torch.use_deterministic_algorithms`` asks for it.

    Args:
        first: (M, C') and (G, C').
        second: the same shapes; of tables that need no gradient none is computed.
        graph: of ``edge_graph``.

    Returns:
        (G,); 0 where a centre has no neighbour.

    Raises:
        ValueError: tables that are not of this graph, or of different channels.
    """
    check_terms(first, graph)
    check_terms(second, graph)
    if first.base.shape[1] != second.base.shape[1]:
        raise ValueError(
            f"both sides' edges must have as many channels, got {first.base.shape[1]} and {second.base.shape[1]}"
        )
    if not (first.relu or second.relu):
        return edge_sum_of_squares(first.base - second.base, first.query - second.query, graph)
    return torch.ops.pcdet.edge_distance(
        *first[:2], *second[:2], graph.idx, graph.start, graph.edge, first.relu, second.relu
    )[0]


def edge_sum_of_squares(a_base: Tensor, b_query: Tensor, idx: Tensor | EdgeGraph) -> Tensor:
    """Sum over a centre's neighbours of |a_j + b_i|^2, without a tensor of edges. Differentiable in both tables.

    Args:
        a_base: (M, C) what neighbours contribute.
        b_query: (G, C) what centres contribute.
        idx: (G, K) int64 rows of ``a_base``, -1 where there is no neighbour; or an ``edge_graph`` of such a table.

    Returns:
        (G,); 0 where a centre has no neighbour.
    """
    terms = EdgeTerms(a_base, b_query)
    graph = _graph_of(idx, terms)
    check_terms(terms, graph)
    return torch.ops.pcdet.edge_distance(a_base, b_query, None, None, graph.idx, graph.start, graph.edge, False, False)[
        0
    ]


def _graph_of(idx: Tensor | EdgeGraph, terms: EdgeTerms) -> EdgeGraph:
    if isinstance(idx, EdgeGraph):
        return idx
    if idx.dim() != 2 or idx.shape[0] != terms.query.shape[0] or idx.dtype != torch.int64:
        raise ValueError(
            f"idx must have shape ({terms.query.shape[0]}, K) and dtype int64, got {list(idx.shape)}, {idx.dtype}"
        )
    gradients = torch.is_grad_enabled() and (terms.base.requires_grad or terms.query.requires_grad)
    return edge_graph(idx, terms.base.shape[0], gradients=gradients)


def _is_relu(activation: Callable | None) -> bool:
    return activation is torch.relu or activation is nn.functional.relu or type(activation) is nn.ReLU


def _called(terms: EdgeTerms, graph: EdgeGraph, norm: Callable | None, activation: Callable | None) -> Tensor:
    """(G, K, C') with functions of the caller's on the edges that exist; zeros elsewhere."""
    out = reduced(terms, graph, "none")
    if norm is None:
        return torch.where((graph.idx < 0)[:, :, None], 0, activation(out))
    there = (graph.idx >= 0).nonzero(as_tuple=True)  # found once: the host waits for their number
    edges = out[there]
    if edges.shape[0]:
        edges = norm(edges)
    if activation is not None:
        edges = activation(edges)
    return torch.zeros_like(out, dtype=edges.dtype).index_put(there, edges)


def _reduced_edges(out: Tensor, graph: EdgeGraph, reduce: str) -> Tensor:
    """(G, K, C') -> (G, C'), or as it is for "none"."""
    if reduce == "none":
        return out
    if out.shape[1] == 0 or reduce == "mean":
        return out.sum(dim=1) / graph.degree.clamp(min=1)[:, None]
    largest = out.masked_fill((graph.idx < 0)[:, :, None], -torch.inf).amax(dim=1)
    return largest.masked_fill((graph.degree == 0)[:, None], 0)


def _check_reduce(reduce: str) -> None:
    if reduce not in REDUCTIONS:
        raise ValueError(f"reduce must be one of {', '.join(REDUCTIONS)}, got {reduce!r}")
