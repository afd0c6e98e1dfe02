"""Sum, mean and maximum over groups of rows, and their transpose, which hands a group's values to its rows.

Results are the same every time, whatever the number of threads, and on every device but for rounding. On the GPU nobody
looks at the groups: a range beyond the table is cut, a row that does not exist is passed over.
"""

from __future__ import annotations

import torch
from torch import Tensor

import pcdet.ops  # noqa: F401  (loads the native library)
from pcdet.ops.scatter.groups import RowGroups

_ops = torch.ops.pcdet


def scatter_sum(src: Tensor, groups: RowGroups) -> Tensor:
    """Sums over groups: (N, C) rows -> (G, C), 0 for an empty group. Differentiable, any number of times.

    Half precision is summed in float32 and then rounded.
    """
    return _ops.scatter_sum(src, *groups)


def scatter_mean(src: Tensor, groups: RowGroups) -> Tensor:
    """Means over groups: (N, C) rows -> (G, C), 0 for an empty group. Differentiable, any number of times.

    Half precision is averaged in float32 and then rounded.
    """
    wide = src if src.dtype == torch.float64 else src.float()
    counts = groups.counts.clamp(min=1).to(wide.dtype)
    return (scatter_sum(wide, groups) / counts[:, None]).to(src.dtype)


def scatter_max(src: Tensor, groups: RowGroups) -> Tensor:
    """Maxima over groups: (N, C) rows -> (G, C), 0 for an empty group. Differentiable, any number of times.

    Where several rows of a group attain its maximum, the first of them has the gradient. A NaN is the largest.
    """
    return _ops.scatter_max(src, *groups)[0]


def expand_groups(values: Tensor, groups: RowGroups, num_rows: int) -> Tensor:
    """The values of each row's group: (G, C) -> (N, C), 0 for a row of no group. Differentiable, any number of times.

    Args:
        values: (G, C).
        groups: of the N rows.
        num_rows: N.
    """
    return _ops.expand_groups(values, *groups, num_rows)


# ------------------------------------------------------------------------------- sums, and their transpose, expansion


@torch.library.register_fake("pcdet::scatter_sum")
def _fake_sum(src, order, offsets):
    return src.new_empty(offsets.shape[0] - 1, src.shape[1])


@torch.library.register_fake("pcdet::expand_groups")
def _fake_expand(values, order, offsets, num_rows):
    return values.new_empty(num_rows, values.shape[1])


def _save_sum(ctx, inputs, output):
    src, order, offsets = inputs
    ctx.num_rows = src.shape[0]
    ctx.save_for_backward(order, offsets)


def _sum_backward(ctx, grad):
    return _ops.expand_groups(grad, *ctx.saved_tensors, ctx.num_rows), None, None


def _save_expand(ctx, inputs, output):
    ctx.save_for_backward(*inputs[1:3])


def _expand_backward(ctx, grad):
    return _ops.scatter_sum(grad, *ctx.saved_tensors), None, None, None


torch.library.register_autograd("pcdet::scatter_sum", _sum_backward, setup_context=_save_sum)
torch.library.register_autograd("pcdet::expand_groups", _expand_backward, setup_context=_save_expand)


# ------------------------------------------------------------------------------------------------------------- maxima


@torch.library.register_fake("pcdet::scatter_max")
def _fake_max(src, order, offsets):
    out = src.new_empty(offsets.shape[0] - 1, src.shape[1])
    return out, out.new_empty(out.shape, dtype=torch.int32)


@torch.library.register_fake("pcdet::scatter_max_backward")
def _fake_max_backward(grad, argmax, num_rows):
    return grad.new_empty(num_rows, grad.shape[1])


def _save_max(ctx, inputs, output):
    ctx.num_rows = inputs[0].shape[0]
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _max_backward(ctx, grad, _):
    return _ops.scatter_max_backward(grad, *ctx.saved_tensors, ctx.num_rows), None, None


def _save_max_backward(ctx, inputs, output):
    ctx.save_for_backward(inputs[1])


def _max_double_backward(ctx, grad):
    (argmax,) = ctx.saved_tensors
    if len(grad) == 0:  # then all groups are empty
        return grad.new_zeros(argmax.shape), None, None
    return grad.gather(0, argmax.clamp(min=0).long()) * (argmax >= 0), None, None


torch.library.register_autograd("pcdet::scatter_max", _max_backward, setup_context=_save_max)
torch.library.register_autograd("pcdet::scatter_max_backward", _max_double_backward, setup_context=_save_max_backward)
