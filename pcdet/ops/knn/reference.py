"""Readable version of ``knn``: the specification that tests compare to."""

from __future__ import annotations

import torch
from torch import Tensor


def knn(
    query: Tensor, base: Tensor, k: int, query_frame: Tensor | None = None, base_frame: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(dist2 (Q, k), idx (Q, k)) through the whole Q x M table of differences, in the inputs' precision."""
    table = (query[:, None] - base[None]).square().sum(dim=2)
    if query_frame is not None:
        table[query_frame[:, None] != base_frame[None]] = torch.inf
    missing = max(0, k - len(base))
    table = torch.nn.functional.pad(table, (0, missing), value=torch.inf)
    dist2, idx = table.sort(dim=1, stable=True)
    dist2, idx = dist2[:, :k], idx[:, :k]
    return dist2, torch.where(dist2.isinf(), -1, idx)
