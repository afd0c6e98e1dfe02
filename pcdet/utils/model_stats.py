"""Size and arithmetic of a model: parameters and multiply-accumulates (MACs)."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Number of learnable values in ``model``."""
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, *inputs) -> int:
    """Multiply-accumulates of one forward pass, gradients off, in the mode (train or eval) the model is in.

    Counted: convolutions, transposed convolutions and matrix products, one MAC per product, through PyTorch's own
    ``FlopCounterMode`` (which reports two FLOPs for each). Not counted: normalisation, activations, scatters, sorting
    and post-processing. Work on a point cloud depends on the cloud, so quote the frame with the number.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*inputs)
    return counter.get_total_flops() // 2
