"""K nearest neighbours, per frame, without a query x base matrix in memory."""

from pcdet.ops.knn.knn import knn

__all__ = ["knn"]
