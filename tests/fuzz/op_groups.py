"""Ops on groups of points: dynamic voxels, reductions over the rows of a group."""

from __future__ import annotations

import torch
from torch import Tensor

from fuzz.op_boxes import Op, _close, _ramp
from fuzz.op_case import Case
from pcdet.ops.scatter import RowGroups, expand_groups, group_rows, scatter_max, scatter_mean, scatter_sum
from pcdet.ops.scatter import reference as scatter_reference
from pcdet.ops.voxel import dynamic_voxelize
from pcdet.ops.voxel import reference as voxel_reference

REDUCTIONS = {"sum": scatter_sum, "mean": scatter_mean, "max": scatter_max}


def _voxel_arguments(case: Case) -> tuple:
    points, frames = case.floats(case.size(), 4 + case.size(4)), case.pick(1, 2, 5)
    any_height = case.pick(True, False)
    if case.clean:
        points = points.clone()
        points[:, 0] = (points[:, 0].abs() * frames / 8).floor().clamp(max=frames - 1)
        size = case.pick([0.5, 0.5, 4.0], [16.0, 16.0, 8.0], [0.01, 0.01, 0.1])
        return points, tuple(size), (-8.0, -8.0, -4.0, 8.0, 8.0, 4.0), frames, any_height
    size, far = case.real(), case.real()
    return points, (size, 1.0, 1.0), (-far, -8.0, -4.0, far, 8.0, 4.0), case.count(), any_height


def _voxelize(points: Tensor, size: tuple, limits: tuple, frames: int, any_height: bool) -> tuple:
    return tuple(dynamic_voxelize(points, size, limits, batch_size=frames, any_height=any_height))


def _voxel_check(case: Case, arguments: tuple, found: tuple) -> None:
    coords, inverse, order, offsets = found
    assert inverse.shape == arguments[0].shape[:1] and offsets.shape == (len(coords) + 1,), "sizes do not fit"
    assert (inverse >= -1).all() and (inverse < max(len(coords), 1)).all(), "a voxel's number lies outside"
    assert offsets[0] == 0 and offsets[-1] == len(order) and (offsets.diff() > 0).all(), "a voxel has no point"
    if case.clean:
        for ours, theirs in zip(found, voxel_reference.dynamic_voxelize(*arguments), strict=True):
            assert torch.equal(ours, theirs), "voxels differ from the reference's"


def _group_arguments(case: Case) -> tuple:
    rows, num_groups = case.size(), case.size()
    index = case.index(rows, upper=num_groups, missing=True)
    if num_groups == 0 and case.fault == "none":
        index = torch.full_like(index, -1)
    return index, num_groups


def _group_check(case: Case, arguments: tuple, found: tuple) -> None:
    if case.fault == "none":
        for ours, theirs in zip(found, scatter_reference.group_rows(*arguments), strict=True):
            assert torch.equal(ours, theirs), "groups differ from the reference's"


def _reduce_arguments(case: Case) -> tuple:
    index, num_groups = _group_arguments(case)
    rows = len(index) if index.dim() else 0
    src = case.floats(rows, case.size(40)).requires_grad_(case.dtype.is_floating_point)
    return src, index, num_groups, case.pick(*REDUCTIONS), case.pick(True, False)


def _groups_of(index: Tensor, num_groups: int, ordered: bool) -> RowGroups:
    groups = group_rows(index, num_groups)
    return RowGroups(None, groups.offsets) if ordered else groups


def _with_gradient(out: Tensor, src: Tensor) -> tuple:
    if not src.requires_grad:
        return (out,)
    return out.detach(), *torch.autograd.grad((out * _ramp(out)).sum(), src)


def _reduce(src: Tensor, index: Tensor, num_groups: int, name: str, ordered: bool) -> tuple:
    return _with_gradient(REDUCTIONS[name](src, _groups_of(index, num_groups, ordered)), src)


def _reduce_check(case: Case, arguments: tuple, found: tuple) -> None:
    if not case.clean:
        return
    src, index, num_groups, name, ordered = arguments
    src = src.detach().double().requires_grad_()
    wanted = getattr(scatter_reference, f"scatter_{name}")(src, *_groups_of(index, num_groups, ordered))
    for ours, theirs in zip(found, _with_gradient(wanted, src), strict=True):
        _close(ours, theirs, "reductions or gradients", 1e-9 if case.dtype is torch.float64 else 1e-3)


def _expand_arguments(case: Case) -> tuple:
    index, num_groups = _group_arguments(case)
    values = case.floats(num_groups, case.size(40)).requires_grad_(case.dtype.is_floating_point)
    return values, index, num_groups, case.pick(True, False)


def _expand(values: Tensor, index: Tensor, num_groups: int, ordered: bool) -> tuple:
    rows = index.shape[0] if index.dim() else 0
    return _with_gradient(expand_groups(values, _groups_of(index, num_groups, ordered), rows), values)


def _expand_check(case: Case, arguments: tuple, found: tuple) -> None:
    if not case.clean:
        return
    values, index, num_groups, ordered = arguments
    values = values.detach().double().requires_grad_()
    wanted = scatter_reference.expand_groups(values, *_groups_of(index, num_groups, ordered), len(index))
    for ours, theirs in zip(found, _with_gradient(wanted, values), strict=True):
        _close(ours, theirs, "rows or gradients", 1e-9 if case.dtype is torch.float64 else 1e-3)


OPS = [
    Op("dynamic_voxelize", _voxelize, _voxel_arguments, _voxel_check),
    Op("group_rows", lambda index, num_groups: tuple(group_rows(index, num_groups)), _group_arguments, _group_check),
    Op("scatter", _reduce, _reduce_arguments, _reduce_check),
    Op("expand_groups", _expand, _expand_arguments, _expand_check),
]
