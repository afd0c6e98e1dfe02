"""What an adapter says of every local graph: edge by edge, as tables of which no edge is made, or pooled."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pcdet.models.kd.diagnostics import thinned_out
from pcdet.models.kd.graphs.adapters import EdgeAdapter
from pcdet.ops.edge_conv import EdgeGraph, EdgeTerms, edge_distance, reduced, some_edges


@dataclass(frozen=True)
class Description:
    """One side's description of G graphs.

    Attributes:
        edges: of every edge, C' channels.
        graph: the edges.
        pooled: (G, C') over the neighbours, or None where graphs are compared edge by edge.
    """

    edges: EdgeTerms
    graph: EdgeGraph
    pooled: Tensor | None

    @classmethod
    def of(
        cls, adapter: EdgeAdapter, rows: Tensor, centres: Tensor, graph: EdgeGraph, *, edge: str, pool: str
    ) -> Description:
        """What ``adapter`` makes of (M, C) rows, of which (G,) ``centres`` are the graphs' centres."""
        edges = adapter(rows, rows[centres], graph, edge=edge)
        return cls(edges, graph, None if pool == "none" else reduced(edges, graph, pool))

    def squares(self, other: Description) -> Tensor:
        """(G,) sum of the squared differences from another description of the same graphs."""
        if self.pooled is not None:
            return (self.pooled - other.pooled).square().sum(dim=1)
        return edge_distance(self.edges, other.edges, self.graph)

    def entries(self) -> Tensor:
        """(G,) how many numbers describe each graph; as for one edge where it has none."""
        channels = self.edges.query.shape[1]
        return channels * (
            self.graph.degree.clamp(min=1) if self.pooled is None else torch.ones_like(self.graph.degree)
        )

    def largest(self) -> Tensor:
        """(G,) the largest entry of each graph."""
        values = reduced(self.edges, self.graph, "max") if self.pooled is None else self.pooled
        return values.amax(dim=1)

    def mean(self) -> Tensor:
        """(G, C') the mean over a graph's edges, or what was pooled."""
        return reduced(self.edges, self.graph, "mean") if self.pooled is None else self.pooled

    def some_rows(self) -> Tensor:
        """(n, C') some thousand edges, or pooled rows, out of all, evenly spaced."""
        if self.pooled is not None:
            return self.pooled[thinned_out(len(self.pooled), self.pooled.device)]
        idx = self.graph.idx
        return some_edges(self.edges, self.graph, thinned_out(idx.numel(), idx.device))
