"""Which rows of a table belong together: sorted once, for every reduction over them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from pcdet.ops.scatter import reference


class RowGroups(NamedTuple):
    """G groups of the rows of a table of N rows.

    Attributes:
        order: (N,) int64 rows, group by group, those of a group ascending, those of no group last; None where the rows
            lie in this order already.
        offsets: (G + 1,) int64: group g has the rows ``order[offsets[g] : offsets[g + 1]]``.
    """

    order: Tensor | None
    offsets: Tensor

    @property
    def counts(self) -> Tensor:
        """(G,) rows of each group."""
        return self.offsets.diff()


def group_rows(index: Tensor, num_groups: int) -> RowGroups:
    """Sorts rows by their group, for several reductions that share it.

    Args:
        index: (N,) int64, the group of each row, [0, num_groups), or -1 for a row of no group.
        num_groups: G; groups without rows count.
    """
    return RowGroups(*reference.group_rows(index, num_groups))
