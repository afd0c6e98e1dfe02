"""Local graphs as vectors: an adapter's output for every edge, or pooled over the edges of each graph.

No tensor of all edges is made. An edge's vector is a sum of two projected rows (``EdgeTerms``), and the operations of
``pcdet.ops.edge_conv`` work on the two tables of these rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pcdet.models.kd.diagnostics import thinned_out
from pcdet.models.kd.graphs.adapters import EdgeAdapter
from pcdet.ops.edge_conv import EdgeGraph, EdgeTerms, edge_distance, reduced, some_edges


@dataclass(frozen=True)
class EdgeEmbedding:
    """One side's vectors of G graphs.

    Attributes:
        edges: C' channels for every edge.
        graph: the edges.
        pooled: (G, C') over the neighbours, or None where graphs are compared edge by edge.
    """

    edges: EdgeTerms
    graph: EdgeGraph
    pooled: Tensor | None

    @classmethod
    def of(cls, adapter: EdgeAdapter, rows: Tensor, centres: Tensor, graph: EdgeGraph, *, pool: str) -> EdgeEmbedding:
        """(M, C) rows -> what ``adapter`` makes of the edges between them.

        Args:
            adapter: of this side.
            rows: (M, C).
            centres: (G,) which rows are the graphs' centres.
            graph: the edges, by row.
            pool: over the neighbours, see ``GraphConfig``.
        """
        edges = adapter(rows, rows[centres], graph)
        return cls(edges, graph, None if pool == "none" else reduced(edges, graph, pool))

    def squared_distance(self, other: EdgeEmbedding) -> Tensor:
        """(G,) sum of the squared differences from another embedding of the same graphs."""
        if self.pooled is not None:
            return (self.pooled - other.pooled).square().sum(dim=1)
        return edge_distance(self.edges, other.edges, self.graph)

    def numel(self) -> Tensor:
        """(G,) how many numbers each graph has; a graph without edges counts as one with a single edge."""
        channels = self.edges.query.shape[1]
        return channels * (
            self.graph.degree.clamp(min=1) if self.pooled is None else torch.ones_like(self.graph.degree)
        )

    def largest(self) -> Tensor:
        """(G,) the largest number of each graph."""
        values = reduced(self.edges, self.graph, "max") if self.pooled is None else self.pooled
        return values.amax(dim=1)

    def mean(self) -> Tensor:
        """(G, C') the mean over a graph's edges, or what was pooled."""
        return reduced(self.edges, self.graph, "mean") if self.pooled is None else self.pooled

    def sample_rows(self) -> Tensor:
        """(n, C') some thousand edges, or pooled rows, out of all, evenly spaced."""
        if self.pooled is not None:
            return self.pooled[thinned_out(len(self.pooled), self.pooled.device)]
        idx = self.graph.idx
        return some_edges(self.edges, self.graph, thinned_out(idx.numel(), idx.device))
