"""Convolution over the edges of a neighbour graph."""

from pcdet.ops.edge_conv.edge_conv import edge_conv, edge_distance, edge_features, edge_sum_of_squares
from pcdet.ops.edge_conv.graph import EdgeGraph, edge_graph
from pcdet.ops.edge_conv.terms import EdgeTerms, linear_terms, normed, plain_terms, reduced, some_edges

__all__ = [
    "EdgeGraph",
    "EdgeTerms",
    "edge_conv",
    "edge_distance",
    "edge_features",
    "edge_graph",
    "edge_sum_of_squares",
    "linear_terms",
    "normed",
    "plain_terms",
    "reduced",
    "some_edges",
]
