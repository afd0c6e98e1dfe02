"""K nearest neighbours among rows of any width, frame by frame, without a query x base matrix.

Up to three coordinates a k-d tree is searched (CPU). Wider rows are rounded to a grid of integers whose distances, with
a known error, leave a few more than k candidates for float32 to rank. The GPU computes every distance in float32 and
keeps each query's candidates on the chip, for every width.
"""

from __future__ import annotations

import torch
from torch import Tensor

import pcdet.ops  # noqa: F401  (loads the native library)


def knn(
    query: Tensor, base: Tensor, k: int, query_frame: Tensor | None = None, base_frame: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The k rows of ``base`` nearest to each row of ``query``; a row that is in both is its own first neighbour.

    Exact: the neighbours are those of float64 arithmetic wherever distances differ by more than float32's rounding;
    among equal distances the smaller row comes first. Not differentiable. Half precision is computed in float32.

    Args:
        query: (Q, C) floats, finite. On the GPU, where that is not checked, a row with NaN has no neighbours and is
            nobody's.
        base: (M, C), same dtype and device. float64 on the CPU only.
        k: neighbours wanted, at least 1; may exceed M. On the GPU at most 512; at most 256 on cards of the Turing
            generation, whose blocks have 64 KiB of shared memory.
        query_frame: (Q,) int64, non-decreasing: the frame of every query. Given together with ``base_frame``,
            neighbours come from the query's own frame only.
        base_frame: (M,) int64, non-decreasing.

    Returns:
        dist2: (Q, k) squared Euclidean distances, ascending; inf where the frame has fewer than k rows. A row so far
            away that its squared distance overflows (beyond 1.8e19 in float32) counts as none.
        idx: (Q, k) int64 rows of ``base``; -1 there.

    Raises:
        ValueError: shapes, types, values or frame ids other than these, or a k beyond what the GPU holds.
    """
    query, base = query.detach(), base.detach()
    if query.dtype == base.dtype and query.dtype in (torch.float16, torch.bfloat16):
        query, base = query.float(), base.float()
    return torch.ops.pcdet.knn(query, base, k, query_frame, base_frame)


@torch.library.register_fake("pcdet::knn")
def _fake_knn(query, base, k, query_frame=None, base_frame=None):
    return query.new_empty(query.shape[0], k), query.new_empty(query.shape[0], k, dtype=torch.int64)
