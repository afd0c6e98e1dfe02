"""Which rows of a table belong together: sorted once, for every reduction over them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

import pcdet.ops  # noqa: F401  (loads the native library)


class RowGroups(NamedTuple):
    """G groups of the rows of a table of N rows.

    Attributes:
        order: (N,) int64 rows, group by group, those of a group ascending, those of no group last; None where the rows
            lie in this order already. No row is there twice.
        offsets: (G + 1,) int64: group g has the rows ``order[offsets[g] : offsets[g + 1]]``.
    """

    order: Tensor | None
    offsets: Tensor

    @property
    def counts(self) -> Tensor:
        """(G,) rows of each group."""
        return self.offsets.diff()


def group_rows(index: Tensor, num_groups: int) -> RowGroups:
    """Sorts rows by their group, for several reductions that share it. The same on every device.

    Args:
        index: (N,) int64, the group of each row, [0, num_groups), or -1 for a row of no group; on the GPU any other
            number is taken for -1.
        num_groups: G; groups without rows count.

    Raises:
        ValueError: another shape or dtype, or, on the CPU, an index out of range.
    """
    return RowGroups(*torch.ops.pcdet.group_rows(index, num_groups))


@torch.library.register_fake("pcdet::group_rows")
def _fake_group_rows(index, num_groups):
    return index.new_empty(index.shape), index.new_empty(num_groups + 1)
