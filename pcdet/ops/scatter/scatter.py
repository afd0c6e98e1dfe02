"""Sum, mean and maximum over groups of rows, and their transpose, which hands a group's values to its rows."""

from __future__ import annotations

from torch import Tensor

from pcdet.ops.scatter import reference
from pcdet.ops.scatter.groups import RowGroups


def scatter_sum(src: Tensor, groups: RowGroups) -> Tensor:
    """Sums over groups: (N, C) rows -> (G, C), 0 for an empty group. Differentiable."""
    return reference.scatter_sum(src, *groups)


def scatter_mean(src: Tensor, groups: RowGroups) -> Tensor:
    """Means over groups: (N, C) rows -> (G, C), 0 for an empty group. Differentiable."""
    return reference.scatter_mean(src, *groups)


def scatter_max(src: Tensor, groups: RowGroups) -> Tensor:
    """Maxima over groups: (N, C) rows -> (G, C), 0 for an empty group. Differentiable.

    Where several rows attain a maximum, the first of them in the table has its gradient. A NaN is the largest.
    """
    return reference.scatter_max(src, *groups)


def expand_groups(values: Tensor, groups: RowGroups, num_rows: int) -> Tensor:
    """The values of each row's group: (G, C) -> (N, C), 0 for a row of no group. Differentiable."""
    return reference.expand_groups(values, *groups, num_rows)
