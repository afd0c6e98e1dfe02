"""Dynamic voxelisation: against its reference, hard voxelisation and closed forms; borders, empty frames, errors."""

import math

import pytest
import torch
from support.opcheck import opcheck

from pcdet.ops.voxel import DynamicVoxels, dynamic_voxelize, reference, voxelize
from pcdet.testing import random_cloud

RANGE = [0.0, -20.0, -3.0, 40.0, 20.0, 1.0]
PILLARS, VOXELS, TINY = [0.8, 0.8, 4.0], [0.5, 0.25, 0.1], [0.0001, 0.0002, 0.0005]


def batch(sizes, device="cpu", dtype=torch.float32):
    """Points [batch_idx, x, y, z, intensity] of frames of such sizes, in no order; most lie in the range."""
    clouds = [random_cloud(n, seed=i, dtype=dtype) for i, n in enumerate(sizes)]
    points = torch.cat([torch.nn.functional.pad(cloud, (1, 0), value=i) for i, cloud in enumerate(clouds)])
    return points[torch.randperm(len(points), generator=torch.Generator().manual_seed(5))].to(device)


def assert_same(found, expected):
    for name, x, y in zip(DynamicVoxels._fields, found, expected, strict=True):
        assert x.dtype == y.dtype and torch.equal(x.cpu(), y.cpu()), name


@pytest.mark.parametrize("voxel_size", [PILLARS, VOXELS, TINY])
@pytest.mark.parametrize("any_height", [False, True])
@pytest.mark.parametrize("sizes", [(1500, 900), (0, 700, 0), (1,), (0,), (0, 0)])
def test_matches_the_reference(device, voxel_size, any_height, sizes):
    points = batch(sizes, device)
    found = dynamic_voxelize(points, voxel_size, RANGE, batch_size=len(sizes), any_height=any_height)
    assert_same(found, reference.dynamic_voxelize(points.cpu(), voxel_size, RANGE, len(sizes), any_height))


def test_the_voxels_are_those_of_a_hard_voxelisation_with_room_for_all(device):
    points = random_cloud(3000, device)
    _, coords, counts = voxelize(points, VOXELS, RANGE, 3000, 3000)
    found = dynamic_voxelize(torch.nn.functional.pad(points, (1, 0)), VOXELS, RANGE, batch_size=1)
    expected = sorted(zip(coords.tolist(), counts.tolist(), strict=True))
    assert list(zip(found.coords[:, 1:].tolist(), found.counts.tolist(), strict=True)) == expected


def test_order_and_inverse_say_the_same(device):
    points = batch((2000, 500), device)
    found = dynamic_voxelize(points, PILLARS, RANGE, batch_size=2)
    voxel = torch.arange(len(found.coords), device=device).repeat_interleave(found.counts)
    assert torch.equal(found.inverse[found.order], voxel)
    assert (found.inverse >= 0).sum() == len(found.order) == found.offsets[-1]
    assert found.counts.min() >= 1


def test_a_point_outside_or_not_finite_is_in_no_voxel(device):
    inside, far = [0, 1, 1, 0], [0, 40, 1, 0]
    odd = [[0, math.nan, 1, 0], [0, 1, math.inf, 0], [0, 1, 1, -math.inf], [0, 1, -20.001, 0], [0, 1, 1, 1]]
    points = torch.tensor([inside, far, *odd, inside], device=device)
    found = dynamic_voxelize(points, PILLARS, RANGE, batch_size=1)
    assert found.inverse.tolist() == [0, *[-1] * 6, 0]
    assert found.order.tolist() == [0, 7] and found.offsets.tolist() == [0, 2]
    assert found.coords.tolist() == [[0, 0, 26, 1]]


def test_pillars_have_points_of_every_height_that_is_finite(device):
    points = torch.tensor([[0, 1, 1, height] for height in (0, 1, 500, -500, math.nan, math.inf)], device=device)
    found = dynamic_voxelize(points, PILLARS, RANGE, batch_size=1, any_height=True)
    assert found.inverse.tolist() == [0, 0, 0, 0, -1, -1]


def test_frames_beyond_the_first_take_up_their_own_voxels(device):
    point = torch.tensor([0.0, 1, 1, 0], device=device)
    points = torch.stack([point, point + torch.tensor([3.0, 0, 0, 0], device=device)])
    found = dynamic_voxelize(points, PILLARS, RANGE, batch_size=4)
    assert found.coords.tolist() == [[0, 0, 26, 1], [3, 0, 26, 1]]


def test_float64_and_views(device):
    points = batch((900, 500), device, torch.float64)
    wide = torch.nn.functional.pad(points, (0, 3))[:, : points.shape[1]]
    found = dynamic_voxelize(wide, VOXELS, RANGE, batch_size=2)
    assert_same(found, reference.dynamic_voxelize(points.cpu(), VOXELS, RANGE, 2, False))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.zeros(4, 3)}, r"points must have shape \(N, 4 \+ C\).*got \[4, 3\]"),
        ({"points": torch.zeros(4, 4, dtype=torch.half)}, "points must be float32 or float64, got Half"),
        ({"voxel_size": [1, 1]}, r"voxel_size must be \[dx, dy, dz\], got \[1, 1\]"),
        ({"voxel_size": [1, 1, 0]}, "voxel_size must be positive"),
        ({"voxel_size": [1e-9, 1, 1]}, "at most 2\\^31 voxels"),
        ({"voxel_size": [1e-6, 1e-6, 1], "batch_size": 1000}, "at most 9e15 voxels"),
        ({"point_cloud_range": [0, 0, 0, 1, -1, 1]}, "point_cloud_range must run from low to high"),
        ({"batch_size": 0}, r"batch_size must lie in \[1, 2\^20\], got 0"),
    ],
)
def test_bad_arguments_are_named(change, message):
    good = {"points": torch.zeros(4, 4), "voxel_size": PILLARS, "point_cloud_range": RANGE, "batch_size": 2}
    with pytest.raises(ValueError, match=message):
        dynamic_voxelize(**{**good, **change})


@pytest.mark.parametrize("frame", [2, -1, 0.5, math.nan])
def test_a_number_of_no_frame_is_an_error_on_the_cpu(frame):
    points = torch.zeros(3, 4)
    points[1, 0] = frame
    with pytest.raises(ValueError, match=r"a frame's number in \[0, 2\) in their first column, got .* in row 1"):
        dynamic_voxelize(points, PILLARS, RANGE, batch_size=2)


@pytest.mark.gpu
@pytest.mark.parametrize("frame", [2, -1, math.nan])
def test_a_number_of_no_frame_leaves_the_point_out_on_the_gpu(gpu, frame):
    points = torch.zeros(3, 4)
    points[1, 0] = frame
    found = dynamic_voxelize(points.to(gpu), PILLARS, RANGE, batch_size=2)
    assert found.inverse.tolist() == [0, -1, 0]


def test_opcheck_and_one_graph(device):
    points = batch((200, 100), device)
    opcheck(torch.ops.pcdet.dynamic_voxelize.default, (points, PILLARS, RANGE, 2, True))
    compiled = torch.compile(dynamic_voxelize, fullgraph=True, backend="aot_eager")
    assert_same(compiled(points, PILLARS, RANGE, batch_size=2), dynamic_voxelize(points, PILLARS, RANGE, batch_size=2))
