"""Ops on points: sampling, neighbourhoods, interpolation, voxels, nearest neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from fuzz.op_boxes import Op, _close, _ramp
from fuzz.op_case import Case
from pcdet.ops.knn import knn
from pcdet.ops.knn import reference as knn_reference
from pcdet.ops.pointnet2.pointnet2_batch import pointnet2_utils as ops
from pcdet.ops.pointnet2.pointnet2_batch import reference
from pcdet.ops.voxel import reference as voxel_reference
from pcdet.ops.voxel import voxelize


def _in_range(rows: Tensor, upper: int, lowest: int = 0) -> None:
    assert ((rows >= lowest) & (rows < max(upper, 1))).all(), "an index lies outside the rows"


def _sample_arguments(case: Case) -> tuple:
    frames = case.size(3)
    return case.floats(frames, case.size(), 3), case.count(frames)


def _sample_check(case: Case, arguments: tuple, picks: Tensor) -> None:
    xyz, count = arguments
    assert picks.dtype == torch.int32 and picks.shape == (len(xyz), count), f"picks are {list(picks.shape)}"
    _in_range(picks, xyz.shape[1])
    if case.clean and count <= 40:
        assert torch.equal(picks, reference.furthest_point_sample(xyz, count)), "picks differ from the reference's"


def _ball_arguments(case: Case) -> tuple:
    frames, centres = case.size(3), case.size(17)
    radius = case.pick(0.5, 2.0, 5.0) if case.clean else case.real()
    return radius, case.count(frames * centres), case.floats(frames, case.size(), 3), case.floats(frames, centres, 3)


def _ball_check(case: Case, arguments: tuple, found: Tensor) -> None:
    radius, count, xyz, centres = arguments
    assert found.dtype == torch.int32 and found.shape == (*centres.shape[:2], count), f"rows are {list(found.shape)}"
    _in_range(found, xyz.shape[1])
    if case.clean:
        assert torch.equal(found, reference.ball_query(radius, count, xyz, centres)), "rows differ from the reference's"


def _three_arguments(case: Case) -> tuple:
    frames = case.size(3)
    return case.floats(frames, case.size(), 3), case.floats(frames, case.size(), 3)


def _three_check(case: Case, arguments: tuple, found: tuple[Tensor, Tensor]) -> None:
    distance, rows = found
    _in_range(rows, arguments[1].shape[1])
    if case.clean:
        wanted, wanted_rows = reference.three_nn(*arguments)
        assert torch.equal(rows, wanted_rows), "rows differ from the reference's"
        assert torch.equal(distance, wanted), "distances differ from the reference's"


def _gather_arguments(case: Case) -> tuple:
    frames, rows = case.size(3), case.size()
    features = case.floats(frames, case.size(9), rows).requires_grad_(case.dtype.is_floating_point)
    shape = (frames, case.size(17), case.size(5))
    return features, case.index(*shape, upper=rows, dtype=case.pick(torch.int64, torch.int32))


def _gather(features: Tensor, idx: Tensor) -> tuple:
    gathered = ops.grouping_operation(features, idx)
    if not features.requires_grad:
        return (gathered,)
    return gathered.detach(), *torch.autograd.grad((gathered * _ramp(gathered)).sum(), features)


def _gather_check(case: Case, arguments: tuple, found: tuple) -> None:
    features, idx = arguments
    if not case.clean:
        return
    features = features.detach().double().requires_grad_()
    wanted = reference.grouping_operation(features, idx)
    assert torch.equal(found[0].double(), wanted), "columns differ from the reference's"
    (gradient,) = torch.autograd.grad((wanted * _ramp(wanted)).sum(), features)
    _close(found[1], gradient, "gradients", 1e-3)


def _interpolate_arguments(case: Case) -> tuple:
    frames, rows, wanted = case.size(3), case.size(), case.size(17)
    differentiable = case.dtype.is_floating_point
    features = case.floats(frames, case.size(9), rows).requires_grad_(differentiable)
    idx = case.index(frames, wanted, 3, upper=rows, dtype=case.pick(torch.int64, torch.int32))
    return features, idx, case.floats(frames, wanted, 3, low=0, high=1).requires_grad_(differentiable)


def _interpolate(features: Tensor, idx: Tensor, weight: Tensor) -> tuple:
    found = ops.three_interpolate(features, idx, weight)
    if not features.requires_grad:
        return (found,)
    return found.detach(), *torch.autograd.grad((found * _ramp(found)).sum(), (features, weight))


def _interpolate_check(case: Case, arguments: tuple, found: tuple) -> None:
    if not case.clean:
        return
    features, idx, weight = arguments
    features, weight = features.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    wanted = reference.three_interpolate(features, idx, weight)
    gradients = torch.autograd.grad((wanted * _ramp(wanted)).sum(), (features, weight))
    for ours, theirs in zip(found, (wanted.detach(), *gradients), strict=True):
        _close(ours, theirs, "sums or gradients", 2e-3)


def _voxel_arguments(case: Case) -> tuple:
    points = case.floats(case.size(), 3 + case.size(4))
    if case.clean:
        size = case.pick([0.5, 0.5, 4.0], [16.0, 16.0, 8.0], [0.01, 0.01, 0.1])
        return points, tuple(size), (-8.0, -8.0, -4.0, 8.0, 8.0, 4.0), case.pick(1, 2, 5), case.pick(0, 1, 3, 100)
    size, far = case.real(), case.real()
    most = case.count(len(points) * points.shape[-1] if points.dim() else 1)
    return points, (size, 1.0, 1.0), (-far, -8.0, -4.0, far, 8.0, 4.0), most, case.count()


def _voxel_check(case: Case, arguments: tuple, found: tuple) -> None:
    points, size, limits, most, voxels = arguments
    table, coords, counts = found
    assert len(table) == len(coords) == len(counts) <= max(voxels, 0), f"there are {len(table)} voxels"
    assert table.shape[1:] == (most, points.shape[1]), f"voxels are {list(table.shape)}"
    assert ((counts >= 1) & (counts <= most)).all() and (coords >= 0).all(), "a voxel is empty or lies outside"
    if case.clean:
        for ours, theirs in zip(found, voxel_reference.voxelize(points, size, limits, most, voxels), strict=True):
            assert ours.dtype == theirs.dtype and torch.equal(ours, theirs), "voxels differ from the reference's"


def _knn_arguments(case: Case) -> tuple:
    queries, rows, channels = case.size(17), case.size(), case.size(40)
    k = case.pick(1, 3, 9, 70) if case.clean else case.count(queries)
    query, base = case.floats(queries, channels), case.floats(rows, channels)
    if case.pick(True, False):
        return query, base, k, None, None
    return query, base, k, case.frames(queries), case.frames(rows)


def _knn_check(case: Case, arguments: tuple, found: tuple[Tensor, Tensor]) -> None:
    query, base, k, query_frame, base_frame = arguments
    dist2, rows = found
    assert rows.dtype == torch.int64 and rows.shape == dist2.shape == (len(query), k), f"rows are {list(rows.shape)}"
    _in_range(rows, len(base), lowest=-1)
    assert torch.equal(rows == -1, dist2.isinf()), "a missing neighbour has a distance, or another has none"
    if case.clean:
        wanted, wanted_rows = knn_reference.knn(query.double(), base.double(), k, query_frame, base_frame)
        assert torch.equal(rows >= 0, wanted_rows >= 0), "other neighbours are missing than in the reference"
        there = rows >= 0
        _close(dist2[there], wanted[there], "distances", 1e-5 * (1 + wanted[there].max().item() if there.any() else 1))
        true = (query.double()[:, None] - base.double()[rows.clamp(min=0)]).square().sum(dim=2) if len(base) else wanted
        _close(
            true[there],
            wanted[there],
            "the rows' distances",
            1e-5 * (1 + wanted[there].max().item() if there.any() else 1),
        )


OPS = [
    Op("furthest_point_sample", ops.farthest_point_sample, _sample_arguments, _sample_check),
    Op("ball_query", ops.ball_query, _ball_arguments, _ball_check),
    Op("three_nn", ops.three_nn, _three_arguments, _three_check),
    Op("gather_points", _gather, _gather_arguments, _gather_check),
    Op("three_interpolate", _interpolate, _interpolate_arguments, _interpolate_check),
    Op("voxelize", voxelize, _voxel_arguments, _voxel_check),
    Op("knn", knn, _knn_arguments, _knn_check),
]
