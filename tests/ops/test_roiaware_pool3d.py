import math

import numpy as np
import pytest
import torch
from support.gradients import gradcheck
from support.opcheck import opcheck

from pcdet.ops.roiaware_pool3d import reference
from pcdet.ops.roiaware_pool3d.roiaware_pool3d_utils import RoIAwarePool3d
from pcdet.testing import random_boxes


def scene(num_rois, num_points, device, channels=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(num_points, 3, generator=generator, dtype=torch.float64) * 6 - 3
    features = torch.randn(num_points, channels, generator=generator, dtype=torch.float64)
    return (
        random_boxes(num_rois, extent=2, dtype=torch.float64).to(device, dtype),
        points.to(device, dtype),
        features.to(device, dtype),
    )


@pytest.mark.parametrize("method", ["max", "avg"])
@pytest.mark.parametrize("most", [1, 3, 127])
@pytest.mark.parametrize(("num_rois", "num_points"), [(0, 5), (3, 0), (1, 1), (6, 700)])
def test_pooling_matches_the_reference(device, method, most, num_rois, num_points):
    rois, points, features = scene(num_rois, num_points, device)
    pooled = RoIAwarePool3d((3, 2, 4), most + 1)(rois, points, features, method)
    expected = reference.roiaware_pool3d(rois, points, features, (3, 2, 4), most, method)
    assert pooled.shape == (num_rois, 3, 2, 4, 5)
    torch.testing.assert_close(pooled, expected, rtol=1e-12, atol=1e-12)
    assert num_points < 700 or (pooled != 0).any(dim=-1).sum() > 20


def test_one_part_holds_the_whole_box(device):
    rois, points, features = scene(4, 500, device)
    pooled = RoIAwarePool3d(1, 1000)(rois, points, features, "max")[:, 0, 0, 0]
    inside = reference.points_in_boxes_mask(points, rois, margin=1e-5).bool()
    for roi in range(4):
        assert torch.equal(pooled[roi], features[inside[roi]].amax(dim=0))


def test_parts_lie_along_the_box(device):
    rois = torch.tensor([[1.0, 2, 3, 4, 2, 2, math.pi / 2]], device=device)  # its length along y
    points = torch.tensor([[1.0, 0.1, 3], [1.0, 3.9, 3], [1.0, 2, 3.9], [1.9, 2, 2.1]], device=device)
    features = torch.tensor([[1.0], [2], [3], [4]], device=device)
    pooled = RoIAwarePool3d(2)(rois, points, features)[0, :, :, :, 0]
    assert pooled[0].max() in (1, 4) and 1 in pooled[0] and 2 in pooled[1]
    assert 3 in pooled[:, :, 1] and 4 in pooled[:, 0, 0]  # the box's right is +x


@pytest.mark.parametrize("method", ["max", "avg"])
def test_gradients(device, method):
    rois, points, features = scene(5, 60, device, channels=3)
    pool = RoIAwarePool3d(2, 4)
    gradcheck(lambda f: pool(rois, points, f, method), (features.requires_grad_(),))


def test_half_precision_and_views(device):
    rois, points, features = scene(4, 300, device, dtype=torch.float32)
    wide = torch.cat([points, features], dim=1)
    pool = RoIAwarePool3d(3)
    expected = pool(rois, points, features, "avg")
    assert torch.equal(pool(rois, wide[:, :3], wide[:, 3:], "avg"), expected)
    half = pool(rois, points, features.half(), "avg")
    assert half.dtype == torch.half
    torch.testing.assert_close(half.float(), expected, rtol=2e-3, atol=2e-3)


def test_flat_boxes_and_points_that_are_not_finite(device):
    rois = torch.tensor([[0.0, 0, 0, 2, 0, 2, 0.3], [0, 0, 0, 2, 2, 2, 0]], device=device)
    points = torch.zeros(4, 3, device=device)
    points[1, 0], points[2, 1] = math.nan, math.inf
    pooled = RoIAwarePool3d(2)(rois, points, torch.ones(4, 1, device=device), "avg")
    assert pooled.sum() == 2  # each roi: the two points at the centre, in one part


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rois": torch.zeros(2, 8)}, r"rois must have shape \(N, 7\)"),
        ({"points": torch.zeros(4, 2)}, r"points must have shape \(P, 3\) \[x, y, z\], got \[4, 2\]"),
        ({"points": torch.zeros(4, 3).double()}, "points must match rois .*got Double"),
        ({"features": torch.zeros(5, 2)}, r"features must have shape \(P, C\), a row for each point of voxel"),
        ({"features": torch.zeros(4, 2).long()}, "features must be float32 or float64, got Long"),
        ({"rois": torch.full((2, 7), math.inf)}, "rois must be finite"),
        ({"size": [2, 0, 2]}, r"out_size must be three numbers of voxels in \[1, 1024\], got \[2, 0, 2\]"),
        ({"size": [2, 2]}, r"out_size must be one whole number or three, got \[2, 2\]"),
        ({"size": 2.5}, "out_size must be one whole number or three, got 2.5"),
        ({"size": [2, 2, 1.5]}, r"out_size must be one whole number or three, got \[2, 2, 1.5\]"),
        ({"most": 1}, "max_pts_each_voxel must be at least 2, got 1"),
        ({"method": "sum"}, "pool_method must be 'max' or 'avg', got 'sum'"),
    ],
)
def test_bad_arguments_are_named(change, message):
    given = {"rois": torch.ones(2, 7), "points": torch.zeros(4, 3), "features": torch.zeros(4, 2), "method": "max"}
    given |= {"size": 2, "most": 128, **change}
    with pytest.raises(ValueError, match=message):
        RoIAwarePool3d(given.pop("size"), given.pop("most"))(*given.values())


def test_sizes_may_be_numbers_of_numpy():
    assert RoIAwarePool3d(np.int64(2)).out_size == [2, 2, 2]
    assert RoIAwarePool3d((np.int32(3), 2, 1)).out_size == [3, 2, 1]


def test_an_assignment_that_is_none_is_refused():
    features, voxel, count = torch.zeros(4, 2), torch.full((1, 4), 9, dtype=torch.int32), torch.zeros(1, 8).int()
    with pytest.raises(ValueError, match="voxel must lie below 8"):
        torch.ops.pcdet.roiaware_pool3d(features, voxel, count, True)
    with pytest.raises(ValueError, match="must be what roiaware_assign returned"):
        torch.ops.pcdet.roiaware_pool3d(features, voxel.long(), count, True)
    with pytest.raises(ValueError, match=r"argmax must be int32 of the shape of grad"):
        torch.ops.pcdet.roiaware_pool3d_backward(torch.zeros(1, 8, 2), voxel, count, voxel, True)
    with pytest.raises(ValueError, match=r"grad must have shape \(N, V, C\)"):
        torch.ops.pcdet.roiaware_pool3d_backward(torch.zeros(1, 7, 2), voxel, count, voxel, True)


@pytest.mark.gpu
def test_an_argmax_of_another_device_is_refused(gpu):
    grad, argmax = torch.zeros(1, 8, 2, device=gpu), torch.zeros(1, 8, 2).int()
    voxel, count = torch.full((1, 4), -1, device=gpu).int(), torch.zeros(1, 8, device=gpu).int()
    with pytest.raises(ValueError, match=rf"argmax must be on the device of grad \({gpu}\), got cpu"):
        torch.ops.pcdet.roiaware_pool3d_backward(grad, voxel, count, argmax, True)


def test_opcheck_and_one_graph(device):
    rois, points, features = scene(3, 50, device, dtype=torch.float32)
    native = torch.ops.pcdet
    opcheck(native.roiaware_assign.default, (rois, points, [2, 2, 2], 4))
    voxel, count = native.roiaware_assign(rois, points, [2, 2, 2], 4)
    features.requires_grad_()
    for use_max in (True, False):
        opcheck(native.roiaware_pool3d.default, (features, voxel, count, use_max))
        pooled, argmax = native.roiaware_pool3d(features.detach(), voxel, count, use_max)
        opcheck(native.roiaware_pool3d_backward.default, (pooled, voxel, count, argmax, use_max))
    pool = RoIAwarePool3d(2)
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(rois, points, features), pool(rois, points, features))
