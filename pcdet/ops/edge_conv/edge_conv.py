"""Edge convolution W [x_j; x_i] over a neighbour graph, projected before it is gathered.

W [x_j; x_i] = W_n x_j + W_c x_i: each row is multiplied once instead of once per edge, and what is gathered has the
output's width. No tensor of edge inputs exists.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

EDGES = ("concat", "diff")
REDUCTIONS = ("none", "max", "mean")


def edge_conv(
    x_base: Tensor,
    x_query: Tensor,
    idx: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    edge: str = "concat",
    norm: Callable[[Tensor], Tensor] | None = None,
    activation: Callable[[Tensor], Tensor] | None = None,
    reduce: str = "none",
) -> Tensor:
    """A linear layer on every edge (x_j, x_i) of a graph, then norm, activation and a reduction over the neighbours.

    Differentiable in ``x_base``, ``x_query``, ``weight``, ``bias`` and whatever ``norm`` holds.

    Args:
        x_base: (M, C) rows that can be neighbours.
        x_query: (G, C) graph centres.
        idx: (G, K) int64 rows of ``x_base``; -1 where there is no neighbour.
        weight: (C', 2C); its first C columns meet the neighbour's half of the edge, the others the centre.
        bias: (C',) or None.
        edge: "concat", [x_j; x_i], or "diff", [x_i - x_j; x_i].
        norm: (E, C') -> (E, C') over all edges that exist, e.g. a BatchNorm1d: missing ones take no part in its
            statistics.
        activation: elementwise.
        reduce: "none", "max" or "mean", over the neighbours that exist.

    Returns:
        (G, K, C'), 0 at missing neighbours; or (G, C') reduced, 0 where a centre has no neighbour at all.

    Raises:
        ValueError: shapes or options other than these.
    """
    _check(x_base, x_query, idx, edge)
    channels = x_base.shape[1]
    if weight.dim() != 2 or weight.shape[1] != 2 * channels:
        raise ValueError(
            f"weight must have shape (C', {2 * channels}) for rows of {channels}, got {list(weight.shape)}"
        )
    if reduce not in REDUCTIONS:
        raise ValueError(f"reduce must be one of {', '.join(REDUCTIONS)}, got {reduce!r}")
    to_neighbour, to_centre = weight[:, :channels], weight[:, channels:]
    if edge == "diff":
        to_neighbour, to_centre = -to_neighbour, to_neighbour + to_centre
    from_neighbour = x_base @ to_neighbour.T
    from_centre = torch.nn.functional.linear(x_query, to_centre, bias)
    out = _gather(from_neighbour, idx) + from_centre[:, None]
    missing = _missing(idx)
    out = _on_edges(out, missing, norm, activation)
    return _reduce(out, missing, reduce)


def edge_features(
    x_base: Tensor, x_query: Tensor, idx: Tensor, *, edge: str = "concat", reduce: str = "none"
) -> Tensor:
    """The edges themselves, [x_j; x_i] or [x_i - x_j; x_i]: ``edge_conv`` with the identity for a weight.

    Args:
        x_base: (M, C) rows that can be neighbours.
        x_query: (G, C) graph centres.
        idx: (G, K) int64 rows of ``x_base``; -1 where there is no neighbour.
        edge: "concat" or "diff".
        reduce: "none", "max" or "mean".

    Returns:
        (G, K, 2C), 0 at missing neighbours; or (G, 2C).
    """
    _check(x_base, x_query, idx, edge)
    neighbour = _gather(x_base, idx)
    centre = x_query[:, None].expand_as(neighbour)
    first = centre - neighbour if edge == "diff" else neighbour
    missing = _missing(idx)
    return _reduce(_on_edges(torch.cat([first, centre], dim=2), missing, None, None), missing, reduce)


def edge_sum_of_squares(a_base: Tensor, b_query: Tensor, idx: Tensor) -> Tensor:
    """Sum over a centre's neighbours of |a_j + b_i|^2, without a tensor of edges: |a_j|^2, a_j and |b_i|^2 are summed.

    Differentiable in ``a_base`` and ``b_query``. Where a_j nearly equals -b_i, the result keeps the absolute precision
    of |a_j|^2 and not more.

    Args:
        a_base: (M, C) what neighbours contribute.
        b_query: (G, C) what centres contribute.
        idx: (G, K) int64 rows of ``a_base``; -1 where there is no neighbour.

    Returns:
        (G,); 0 where a centre has no neighbour.
    """
    _check(a_base, b_query, idx, "concat")
    if idx.numel() == 0 or len(a_base) == 0:
        return (b_query * 0).sum(dim=1)
    missing = _missing(idx)
    there = None if missing is None else (~missing).to(a_base.dtype)
    rows = idx.clamp(min=0)
    # A bag is a gather and a sum in one pass; weights of 0 leave the missing out.
    summed = torch.nn.functional.embedding_bag(rows, a_base, mode="sum", per_sample_weights=there)
    norms = a_base.square().sum(dim=1)[rows]
    count = idx.shape[1]
    if there is not None:
        norms, count = norms * there, there.sum(dim=1)
    return norms.sum(dim=1) + 2 * (b_query * summed).sum(dim=1) + count * b_query.square().sum(dim=1)


def _gather(rows: Tensor, idx: Tensor) -> Tensor:
    """(M, C), (G, K) -> (G, K, C); any row stands in for a missing one."""
    if len(rows) == 0:
        return rows.new_zeros(*idx.shape, rows.shape[1])
    return rows.index_select(0, idx.clamp(min=0).flatten()).view(*idx.shape, rows.shape[1])


def _missing(idx: Tensor) -> Tensor | None:
    """(G, K) True where there is no neighbour, or None if all are there."""
    missing = idx < 0
    return missing if bool(missing.any()) else None


def _on_edges(out: Tensor, missing: Tensor | None, norm: Callable | None, activation: Callable | None) -> Tensor:
    """Norm and activation over the edges that exist; zeros elsewhere."""
    if missing is None:
        if norm is not None and out.numel():
            out = norm(out.flatten(0, 1)).view_as(out)
        return out if activation is None else activation(out)
    edges = out[~missing]
    if norm is not None and len(edges):
        edges = norm(edges)
    if activation is not None:
        edges = activation(edges)
    return torch.zeros_like(out, dtype=edges.dtype).index_put((~missing).nonzero(as_tuple=True), edges)


def _reduce(out: Tensor, missing: Tensor | None, reduce: str) -> Tensor:
    if reduce == "none":
        return out
    if out.shape[1] == 0:
        return out.sum(dim=1)
    if missing is None:
        return out.amax(dim=1) if reduce == "max" else out.mean(dim=1)
    if reduce == "mean":
        return out.sum(dim=1) / (~missing).sum(dim=1, keepdim=True).clamp(min=1)
    largest = out.masked_fill(missing[:, :, None], -torch.inf).amax(dim=1)
    return largest.masked_fill(missing.all(dim=1, keepdim=True), 0)


def _check(x_base: Tensor, x_query: Tensor, idx: Tensor, edge: str) -> None:
    if x_base.dim() != 2 or x_query.dim() != 2 or x_base.shape[1] != x_query.shape[1]:
        raise ValueError(
            f"x_base and x_query must have shapes (M, C) and (G, C), got {list(x_base.shape)} and {list(x_query.shape)}"
        )
    if idx.dim() != 2 or len(idx) != len(x_query) or idx.dtype != torch.int64:
        raise ValueError(f"idx must have shape ({len(x_query)}, K) and dtype int64, got {list(idx.shape)}, {idx.dtype}")
    if edge not in EDGES:
        raise ValueError(f"edge must be one of {', '.join(EDGES)}, got {edge!r}")
