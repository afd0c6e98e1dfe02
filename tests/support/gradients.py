"""torch's checks of gradients on every device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ROUNDING = 1e-12  # of sums in float64: a GPU's threads add in any order, so that two runs may differ in the last bits


def gradcheck(function: Callable, inputs: tuple[Tensor, ...]) -> bool:
    """``torch.autograd.gradcheck``; two backward passes agree to rounding, and on the CPU bit for bit."""
    return torch.autograd.gradcheck(function, inputs, nondet_tol=_between_runs(inputs))


def gradgradcheck(function: Callable, inputs: tuple[Tensor, ...]) -> bool:
    """``torch.autograd.gradgradcheck``, as ``gradcheck`` above."""
    return torch.autograd.gradgradcheck(function, inputs, nondet_tol=_between_runs(inputs))


def _between_runs(inputs: tuple[Tensor, ...]) -> float:
    return 0.0 if all(x.device.type == "cpu" for x in inputs) else ROUNDING
