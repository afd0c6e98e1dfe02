"""Ops on the edges of a neighbour graph: convolution, distance, sums of squares."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fuzz.op_boxes import Op, _close, _ramp
from fuzz.op_case import Case
from pcdet.ops.edge_conv import edge_conv, edge_distance, edge_graph, edge_sum_of_squares, linear_terms, reference


def _tables(case: Case) -> tuple:
    """x_base, x_query, idx and the channels."""
    base, centres, channels = case.size(), case.size(17), case.size(9)
    differentiable = case.dtype.is_floating_point
    tables = (case.floats(base, channels, low=-2, high=2), case.floats(centres, channels, low=-2, high=2))
    idx = case.index(centres, case.size(9), upper=base, missing=True)
    if base == 0 and case.fault == "none":
        idx = torch.full_like(idx, -1)
    return *(table.requires_grad_(differentiable) for table in tables), idx, channels


def _conv_arguments(case: Case) -> tuple:
    *tables, channels = _tables(case)
    weight = case.floats(case.size(9), 2 * channels, low=-1, high=1).requires_grad_(case.dtype.is_floating_point)
    normed = case.pick(False, False, True)
    return (
        *tables,
        weight,
        case.pick("concat", "diff"),
        case.pick(True, False),
        normed,
        case.pick("none", "max", "mean"),
    )


def _norm(weight: Tensor, wanted: bool):
    """A batch norm in training, whose scales have both signs."""
    if not wanted:
        return None
    norm = nn.BatchNorm1d(weight.shape[0], dtype=weight.dtype)
    norm.weight.data = torch.linspace(-1, 2, weight.shape[0], dtype=weight.dtype)
    return norm


def _with_gradients(found: Tensor, inputs: tuple) -> tuple:
    wanted = [t for t in inputs if t.requires_grad]
    if not wanted or not found.requires_grad:
        return (found.detach(),)
    return found.detach(), *torch.autograd.grad((found * _ramp(found)).sum(), wanted, allow_unused=True)


def _conv(x_base, x_query, idx, weight, edge, relu, normed, reduce) -> tuple:
    activation = torch.relu if relu else None
    norm = _norm(weight, normed)
    found = edge_conv(x_base, x_query, idx, weight, edge=edge, norm=norm, activation=activation, reduce=reduce)
    return _with_gradients(found, (x_base, x_query, weight))


def _conv_check(case: Case, arguments: tuple, found: tuple) -> None:
    x_base, x_query, idx, weight, edge, relu, normed, reduce = arguments
    few = normed and (idx >= 0).sum() < 20  # a variance of few edges magnifies rounding
    if not case.clean or few or idx.numel() == 0 or weight.numel() == 0:
        return
    inputs = tuple(t.detach().double().requires_grad_() for t in (x_base, x_query, weight))
    activation = torch.relu if relu else None
    norm = _norm(inputs[2], normed)
    value = reference.edge_conv(*inputs[:2], idx, inputs[2], edge=edge, norm=norm, activation=activation, reduce=reduce)
    exact = case.dtype is torch.float64
    _close(found[0], value.detach(), "edges", 1e-6 if exact else 2e-2)
    if case.generic and exact and value.requires_grad:  # otherwise ties and rounding choose among edges
        for ours, theirs in zip(found, _with_gradients(value, inputs), strict=False):
            if ours is not None and theirs is not None:
                _close(ours, theirs, "gradients", 1e-5)


def _distance_arguments(case: Case) -> tuple:
    *tables, channels = _tables(case)
    wide = case.size(9)
    weights = (case.floats(wide, 2 * channels, low=-1, high=1), case.floats(wide, 2 * channels, low=-1, high=1))
    return *tables, *(w.requires_grad_(case.dtype.is_floating_point) for w in weights), case.pick(True, False)


def _distance(x_base, x_query, idx, first, second, relu) -> tuple:
    sides = [linear_terms(x_base, x_query, w)._replace(relu=relu) for w in (first, second)]
    found = edge_distance(*sides, edge_graph(idx, x_base.shape[0]))
    return _with_gradients(found, (x_base, x_query, first, second))


def _distance_check(case: Case, arguments: tuple, found: tuple) -> None:
    *inputs, relu = arguments
    if not case.clean or inputs[2].numel() == 0 or inputs[3].numel() == 0:
        return
    idx = inputs.pop(2)
    inputs = [t.detach().double().requires_grad_() for t in inputs]
    activation = torch.relu if relu else None
    sides = [reference.edge_conv(*inputs[:2], idx, w, activation=activation) for w in inputs[2:]]
    value = reference.edge_distance(*sides)
    largest = value.max().item() if value.numel() else 0.0
    _close(found[0], value.detach(), "distances", 1e-5 * (1 + largest))
    if case.generic and case.dtype is torch.float64 and value.requires_grad:
        for ours, theirs in zip(found[1:], _with_gradients(value, tuple(inputs))[1:], strict=True):
            if ours is not None and theirs is not None:
                _close(ours, theirs, "gradients", 1e-6)


def _squares_arguments(case: Case) -> tuple:
    return _tables(case)[:3]


def _squares(a_base: Tensor, b_query: Tensor, idx: Tensor) -> tuple:
    return _with_gradients(edge_sum_of_squares(a_base, b_query, idx), (a_base, b_query))


def _squares_check(case: Case, arguments: tuple, found: tuple) -> None:
    if case.clean:
        a_base, b_query, idx = arguments
        inputs = [t.detach().double().requires_grad_() for t in (a_base, b_query)]
        _close(found[0], reference.edge_sum_of_squares(*inputs, idx).detach(), "sums of squares", 1e-2)


OPS = [
    Op("edge_conv", _conv, _conv_arguments, _conv_check, exact=False),
    Op("edge_distance", _distance, _distance_arguments, _distance_check, exact=False),
    Op("edge_sum_of_squares", _squares, _squares_arguments, _squares_check),
]
