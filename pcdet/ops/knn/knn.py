"""K nearest neighbours among rows of any width, frame by frame.

Plain PyTorch: distances are computed for a block of queries at a time, so memory follows Q + M and not Q x M.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Floats held at once, 8 MiB. Larger blocks were not faster on a CPU, where they leave the cache.
BLOCK_ELEMENTS = 2**21
# Below this width the difference form is as fast as a matrix product, and exact.
MAX_DIRECT_CHANNELS = 8


def knn(
    query: Tensor,
    base: Tensor,
    k: int,
    query_frame: Tensor | None = None,
    base_frame: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The k rows of ``base`` nearest to each row of ``query``; a row that is in both is its own first neighbour.

    Not differentiable. Half precision is computed in float32.

    Args:
        query: (Q, C) floats.
        base: (M, C), same dtype and device.
        k: neighbours wanted, at least 1; may exceed M.
        query_frame: (Q,) int64, non-decreasing: the frame of every query. Given together with ``base_frame``,
            neighbours come from the query's own frame only.
        base_frame: (M,) int64, non-decreasing.

    Returns:
        dist2: (Q, k) squared Euclidean distances, ascending; inf where the frame has fewer than k rows.
        idx: (Q, k) int64 rows of ``base``; -1 there.

    Raises:
        ValueError: shapes, types or frame ids other than these.
    """
    _check(query, base, k, query_frame, base_frame)
    query, base = query.detach(), base.detach()
    if query.dtype in (torch.float16, torch.bfloat16):
        query, base = query.float(), base.float()
    dist2 = query.new_full((len(query), k), torch.inf)
    idx = torch.full((len(query), k), -1, dtype=torch.int64, device=query.device)
    for (q0, q1), (b0, b1) in _frames(query, base, query_frame, base_frame):
        kept = min(k, b1 - b0)
        if q1 == q0 or kept == 0:
            continue
        found = idx[q0:q1, :kept]
        dist2[q0:q1, :kept], found[:] = _nearest(query[q0:q1], base[b0:b1], kept)
        found += b0
    return dist2, idx


def _nearest(query: Tensor, base: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``knn`` within one frame that has at least k rows."""
    channels = base.shape[1]
    direct = channels <= MAX_DIRECT_CHANNELS
    if not direct:
        # Centred, so that |q|^2 - 2qb + |b|^2 cancels as little as it can; |q|^2 does not change the order.
        centre = base.mean(dim=0)
        centred, offset = base - centre, query - centre
        norms = centred.square().sum(dim=1)
    block = max(1, BLOCK_ELEMENTS // max(len(base), k * channels))
    dist2 = query.new_empty(len(query), k)
    idx = torch.empty(len(query), k, dtype=torch.int64, device=query.device)
    for start in range(0, len(query), block):
        rows = query[start : start + block]
        if direct:
            score = torch.cdist(rows, base, compute_mode="donot_use_mm_for_euclid_dist")
        else:
            score = torch.addmm(norms, offset[start : start + block], centred.T, alpha=-2)
        found = score.topk(k, dim=1, largest=False, sorted=False).indices
        # The distances themselves come from differences, so that a row is exactly 0 from itself.
        delta = base.index_select(0, found.flatten()).view(len(rows), k, channels)
        exact = delta.sub_(rows[:, None]).square_().sum(dim=2)
        dist2[start : start + block], order = exact.sort(dim=1, stable=True)
        idx[start : start + block] = found.gather(1, order)
    return dist2, idx


def _frames(
    query: Tensor, base: Tensor, query_frame: Tensor | None, base_frame: Tensor | None
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """The range of queries and of base rows of every frame that has queries."""
    if query_frame is None:
        yield (0, len(query)), (0, len(base))
        return
    frames, counts = torch.unique_consecutive(query_frame, return_counts=True)
    bounds = torch.stack(
        [
            counts.cumsum(0) - counts,
            counts.cumsum(0),
            torch.searchsorted(base_frame.contiguous(), frames),
            torch.searchsorted(base_frame.contiguous(), frames, right=True),
        ]
    )
    for q0, q1, b0, b1 in bounds.T.tolist():
        yield (q0, q1), (b0, b1)


def _check(query: Tensor, base: Tensor, k: int, query_frame: Tensor | None, base_frame: Tensor | None) -> None:
    if query.dim() != 2 or base.dim() != 2 or query.shape[1] != base.shape[1] or query.shape[1] == 0:
        raise ValueError(
            f"query and base must have shapes (Q, C) and (M, C), got {list(query.shape)} and {list(base.shape)}"
        )
    if not query.is_floating_point() or query.dtype != base.dtype or query.device != base.device:
        raise ValueError(
            "query and base must be floats of one dtype and device, "
            f"got {query.dtype} on {query.device} and {base.dtype} on {base.device}"
        )
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if (query_frame is None) != (base_frame is None):
        raise ValueError("query_frame and base_frame must be given together, got only one of them")
    for name, frame, rows in (("query_frame", query_frame, len(query)), ("base_frame", base_frame, len(base))):
        if frame is None:
            continue
        if frame.shape != (rows,) or frame.dtype != torch.int64:
            raise ValueError(
                f"{name} must have shape ({rows},) and dtype int64, got {list(frame.shape)}, {frame.dtype}"
            )
        if bool((frame[1:] < frame[:-1]).any()):
            raise ValueError(f"{name} must be non-decreasing; sort the rows by frame first")
