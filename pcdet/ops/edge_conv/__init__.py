"""Convolution over the edges of a neighbour graph."""

from pcdet.ops.edge_conv.edge_conv import edge_conv, edge_features, edge_sum_of_squares

__all__ = ["edge_conv", "edge_features", "edge_sum_of_squares"]
