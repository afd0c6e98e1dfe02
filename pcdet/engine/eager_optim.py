"""torch's optimizers without the compiler that they load.

torch wraps methods of its optimizers so that ``torch.compile`` leaves them alone, and the first call of one of them
imports ``torch._dynamo``: 2.2 s of a process's time, whether or not anything is ever compiled. No step is compiled
here, so these classes have the methods as they are inside of the wrappers, and compute the same bits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch


class _Uncompiled:
    """The methods that all optimizers have in common."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


def _step_of(optimizer: type[torch.optim.Optimizer]) -> Callable:
    """An optimizer's step; its wrapper also turns gradients off."""
    return torch.no_grad()(inspect.unwrap(optimizer.step))


class AdamW(_Uncompiled, torch.optim.AdamW):
    """``torch.optim.AdamW``."""

    step = _step_of(torch.optim.AdamW)


class Adam(_Uncompiled, torch.optim.Adam):
    """``torch.optim.Adam``."""

    step = _step_of(torch.optim.Adam)


class SGD(_Uncompiled, torch.optim.SGD):
    """``torch.optim.SGD``."""

    step = _step_of(torch.optim.SGD)
