"""What the logs say about a target: whether it is still there, and what it still knows of the teacher."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_ROWS = 2048  # enough for a regression onto some hundred channels, and cheap
RIDGE = 1e-4  # of the mean diagonal: keeps dead channels solvable


def thinned_out(count: int, device: torch.device) -> Tensor:
    """(n,) int64 rows out of so many, all of them or some thousands, evenly spaced."""
    return torch.arange(0, count, max(1, count // MAX_ROWS), device=device)


@torch.no_grad()
def target_variance(rows: Tensor) -> Tensor:
    """Variance over (n, C) rows of a target, mean over channels. It goes to 0 when a target collapses."""
    return rows.new_zeros(()) if len(rows) < 2 else rows.detach().var(dim=0, unbiased=False).mean()


@torch.no_grad()
def explained_variance(target: Tensor, feature: Tensor) -> Tensor:
    """R^2 of the best linear map from a target to the teacher's own feature: 1 keeps everything, 0 nothing.

    Args:
        target: (n, C') one description per graph centre.
        feature: (n, C) the teacher's rows at the same centres.
    """
    target, feature = target[:MAX_ROWS].double(), feature[:MAX_ROWS].double()
    if len(target) < 2:
        return target.new_zeros(())
    target, feature = target - target.mean(dim=0), feature - feature.mean(dim=0)
    gram = target.T @ target
    gram.diagonal().add_(RIDGE * gram.diagonal().mean() + 1e-12)
    residual = feature - target @ torch.linalg.solve(gram, target.T @ feature)
    return 1 - residual.square().sum() / feature.square().sum().clamp(min=1e-12)
