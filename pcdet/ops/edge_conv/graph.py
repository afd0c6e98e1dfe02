"""A table of neighbours, checked once and made ready for every op that walks it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

import pcdet.ops  # noqa: F401  (loads the native library)


class EdgeGraph(NamedTuple):
    """G centres with K neighbours each among M rows, from both sides.

    Attributes:
        idx: (G, K) int32 rows of the base; -1 where there is no neighbour.
        degree: (G,) int32 neighbours that exist.
        start: (M + 1,) int32, where the edges at each base row start in ``edge``; None where no gradient is wanted.
        edge: (G * K,) int32 edges i * K + k sorted by base row, then -1 for the missing; None like ``start``.
        num_base: M.
    """

    idx: Tensor
    degree: Tensor
    start: Tensor | None
    edge: Tensor | None
    num_base: int


def edge_graph(idx: Tensor, num_base: int, *, gradients: bool = True) -> EdgeGraph:
    """The graph of a table of neighbours, for several ops that share it.

    Args:
        idx: (G, K) int64 rows of the base, [0, num_base), or -1 where there is no neighbour; G * K < 2^31.
        num_base: M.
        gradients: whether gradients will be asked for; they need the table sorted by base row.

    Raises:
        ValueError: another shape or dtype, or an index out of range (which makes the host wait for a GPU).
    """
    narrow, degree = torch.ops.pcdet.edge_index(idx, num_base)
    start, edge = torch.ops.pcdet.edge_transpose(narrow, num_base) if gradients else (None, None)
    return EdgeGraph(narrow, degree, start, edge, num_base)


@torch.library.register_fake("pcdet::edge_index")
def _fake_index(idx, num_base):
    return idx.new_empty(idx.shape, dtype=torch.int32), idx.new_empty(idx.shape[0], dtype=torch.int32)


@torch.library.register_fake("pcdet::edge_transpose")
def _fake_transpose(idx, num_base):
    return idx.new_empty(num_base + 1), idx.new_empty(idx.numel())
