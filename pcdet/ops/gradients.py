"""Gradients of native ops that have no gradient themselves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def register_gradient(op: str, backward: Callable, *, setup_context: Callable) -> None:
    """``torch.library.register_autograd`` for an op that can be differentiated once: a second time is an error.

    Without it what a gradient owes to the saved tensors would be left out of a gradient of that gradient, silently.
    """

    def once(ctx, *grads):
        with torch.no_grad():
            found = backward(ctx, *grads)
        if not torch.is_grad_enabled():  # nobody will ask for more
            return found
        return _OnlyOnce.apply(op, found, *grads, *ctx.saved_tensors)

    torch.library.register_autograd(op, once, setup_context=setup_context)


class _OnlyOnce(torch.autograd.Function):
    """Gradients as they are, tied to all that they depend on."""

    @staticmethod
    def forward(ctx, op: str, found: tuple[Tensor | None, ...], *_):
        ctx.op = op
        return found

    @staticmethod
    def backward(ctx, *_):
        raise NotImplementedError(
            f"{ctx.op} can be differentiated once, but a gradient of its gradient was asked for. Leave create_graph "
            "out, or use the op's reference.py, which is plain PyTorch"
        )
