import math

import pytest
import torch
from support.opcheck import opcheck

from pcdet.ops.voxel import reference, voxelize
from pcdet.testing import random_cloud

RANGE = [0, -20, -3, 40, 20, 1]
PILLARS, VOXELS = [0.8, 0.8, 4], [0.05, 0.05, 0.1]  # a table of cells, and a grid too large for one


def assert_same(found, expected):
    for name, x, y in zip(("voxels", "coords", "num_points"), found, expected, strict=True):
        assert x.dtype == y.dtype and torch.equal(x.cpu(), y.cpu()), name


@pytest.mark.parametrize("voxel_size", [PILLARS, VOXELS])
@pytest.mark.parametrize(("max_points", "max_voxels"), [(1, 100000), (5, 100000), (32, 100)])
@pytest.mark.parametrize("shuffled", [False, True])
def test_matches_the_reference(device, voxel_size, max_points, max_voxels, shuffled):
    points = random_cloud(3000, seed=1)
    points = (points[torch.randperm(3000)] if shuffled else points).to(device)
    found = voxelize(points, voxel_size, RANGE, max_points, max_voxels)
    assert_same(found, reference.voxelize(points, voxel_size, RANGE, max_points, max_voxels))


def test_calls_do_not_remember_each_other(device):
    first, second = random_cloud(2000, device, seed=1), random_cloud(1500, device, seed=2)
    before = voxelize(first, PILLARS, RANGE, 5, 300)
    for size in (PILLARS, [0.4, 0.4, 4], VOXELS):
        voxelize(second, size, RANGE, 5, 300)
    assert_same(voxelize(first, PILLARS, RANGE, 5, 300), before)


def test_a_result_stays_what_it_is_while_it_is_held(device):
    clouds = [random_cloud(n, device, seed=n) for n in (900, 4000, 60, 2500)]
    held = [voxelize(points, PILLARS, RANGE, 8, 4000) for points in clouds]
    for points, found in zip(clouds, held, strict=True):
        assert_same(found, reference.voxelize(points, PILLARS, RANGE, 8, 4000))
    view = held[1][0][3:5].clone(), held[1][0][3:5]
    del held, found
    voxelize(clouds[1], VOXELS, RANGE, 8, 4000)
    assert torch.equal(*view)


def test_a_result_can_be_resized_and_shared_between_processes():
    points = random_cloud(500)
    found = voxelize(points, PILLARS, RANGE, 8, 400)
    found[0].share_memory_()
    assert_same(found, reference.voxelize(points, PILLARS, RANGE, 8, 400))
    again = voxelize(points, PILLARS, RANGE, 8, 400)[0]
    kept = again[:2].clone()
    again.resize_(5000, 8, 4)
    assert torch.equal(again[:2], kept)


def test_every_point_in_range_is_kept_once_if_there_is_room(device):
    points = random_cloud(5000, device, channels=5)
    low, high = torch.tensor(RANGE, device=device).float().view(2, 3)
    inside = ((points[:, :3] >= low) & (points[:, :3] < high)).all(dim=1)
    voxels, coords, num_points = voxelize(points, PILLARS, RANGE, 5000, 5000)
    assert num_points.sum() == inside.sum()
    kept = voxels[torch.arange(5000, device=device)[None] < num_points[:, None]]
    torch.testing.assert_close(kept.sum(dim=0), points[inside].sum(dim=0), rtol=1e-4, atol=1e-2)
    assert len(coords.unique(dim=0)) == len(coords)


def test_no_points_and_no_points_in_range_give_no_voxels(device):
    for points in (torch.zeros(0, 4, device=device), torch.full((3, 4), 1e3, device=device)):
        voxels, coords, num_points = voxelize(points, PILLARS, RANGE, 5, 10)
        assert voxels.shape == (0, 5, 4) and coords.shape == (0, 3) and num_points.shape == (0,)
        assert coords.dtype == num_points.dtype == torch.int32


def test_points_that_are_not_finite_or_lie_on_the_far_border_are_dropped(device):
    points = torch.tensor([[1, 1, 0], [math.nan, 1, 0], [1, math.inf, 0], [1, 1, -math.inf], [40, 1, 0], [0, -20, -3]])
    assert voxelize(points.to(device), PILLARS, RANGE, 5, 10)[2].tolist() == [1, 1]


def test_float64_and_views(device):
    wide = random_cloud(1000, device, channels=6, dtype=torch.float64)
    points = wide[::2, :4]
    assert_same(voxelize(points, PILLARS, RANGE, 5, 500), reference.voxelize(points, PILLARS, RANGE, 5, 500))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.zeros(4, 2)}, r"points must have shape \(N, 3 \+ C\).*got \[4, 2\]"),
        ({"points": torch.zeros(4, 3, dtype=torch.half)}, "points must be float32 or float64, got Half"),
        ({"voxel_size": [1, 1]}, r"voxel_size must be \[dx, dy, dz\], got \[1, 1\]"),
        ({"voxel_size": [1, 1, 0]}, "voxel_size must be positive"),
        ({"voxel_size": [1, math.nan, 1]}, "voxel_size must be positive"),
        ({"voxel_size": [1, 1, 100]}, "must hold at least one"),
        ({"voxel_size": [1e-9, 1, 1]}, "at most 2\\^31 voxels"),
        ({"point_cloud_range": [0, 0, 0, 1, 1]}, r"point_cloud_range must be \[x0, y0, z0, x1, y1, z1\]"),
        ({"point_cloud_range": [0, 0, 0, 1, -1, 1]}, "point_cloud_range must run from low to high"),
        ({"max_points": 0}, "max_points must be positive, got 0"),
        ({"max_voxels": -1}, "max_voxels must be positive, got -1"),
    ],
)
def test_bad_arguments_are_named(change, message):
    good = {"points": torch.zeros(4, 3), "voxel_size": PILLARS, "point_cloud_range": RANGE}
    with pytest.raises(ValueError, match=message):
        voxelize(**{**good, "max_points": 5, "max_voxels": 10, **change})


def test_opcheck_and_one_graph(device):
    points = random_cloud(200, device)
    args = (points, [float(s) for s in PILLARS], [float(r) for r in RANGE], 5, 50)
    opcheck(torch.ops.pcdet.voxelize.default, args)
    compiled = torch.compile(voxelize, fullgraph=True, backend="aot_eager")
    assert_same(compiled(points, PILLARS, RANGE, 5, 50), voxelize(points, PILLARS, RANGE, 5, 50))
