import math

import pytest
import torch
from support.opcheck import opcheck

from pcdet.ops.roiaware_pool3d import reference
from pcdet.ops.roiaware_pool3d import roiaware_pool3d_utils as ops
from pcdet.testing import random_boxes, random_cloud


def uniform_points(n, device, seed=0, extent=6.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(n, 3, generator=generator, dtype=torch.float64) * 2 - 1
    return (points * torch.tensor([extent, extent, 1.5], dtype=torch.float64)).to(device, dtype)


@pytest.mark.parametrize(("num_points", "num_boxes"), [(0, 3), (3, 0), (1, 1), (2000, 13)])
def test_mask_matches_the_reference(device, num_points, num_boxes):
    points, boxes = uniform_points(num_points, device), random_boxes(num_boxes, device, extent=5, dtype=torch.float64)
    mask = ops.points_in_boxes_cpu(points, boxes)
    assert mask.shape == (num_boxes, num_points) and mask.dtype == torch.int32
    assert torch.equal(mask, reference.points_in_boxes_mask(points, boxes))
    assert num_points < 2000 or mask.sum() > 100


@pytest.mark.parametrize(
    ("frames", "num_points", "num_boxes"), [(0, 3, 2), (2, 0, 3), (2, 3, 0), (1, 1, 1), (3, 1500, 13)]
)
def test_index_matches_the_reference(device, frames, num_points, num_boxes):
    points = uniform_points(frames * num_points, device).view(frames, num_points, 3)
    boxes = random_boxes(frames * num_boxes, device, extent=5, dtype=torch.float64).view(frames, num_boxes, 7)
    index = ops.points_in_boxes_gpu(points, boxes)
    assert index.shape == (frames, num_points) and index.dtype == torch.int32
    if frames:
        assert torch.equal(index, reference.points_in_boxes_index(points, boxes))


def test_a_whole_scan_in_its_own_order_matches_the_scan_shuffled(device):
    points, boxes = random_cloud(20000, device)[:, :3], random_boxes(40, device, extent=30)
    order = torch.randperm(20000, device=device)
    mask = ops.points_in_boxes_cpu(points, boxes)
    assert torch.equal(ops.points_in_boxes_cpu(points[order], boxes), mask[:, order])
    index = ops.points_in_boxes_gpu(points[None], boxes[None])
    assert torch.equal(ops.points_in_boxes_gpu(points[None, order], boxes[None]), index[:, order])


def test_borders_are_strict_at_the_sides_and_inclusive_above_and_below(device):
    boxes = torch.tensor([[0, 0, 0, 4, 2, 2, 0]], dtype=torch.float64, device=device)
    places = [[0, 0, 1], [0, 0, -1], [0, 0, 1.001], [2.009, 0, 0], [2.011, 0, 0], [0, 1.009, 0], [0, -1.011, 0]]
    points = torch.tensor(places, dtype=torch.float64, device=device)
    assert ops.points_in_boxes_cpu(points, boxes)[0].tolist() == [1, 1, 0, 1, 0, 1, 0]
    assert ops.points_in_boxes_gpu(points[None], boxes[None])[0].tolist() == [0, 0, -1, -1, -1, -1, -1]


def test_the_first_of_several_boxes_wins(device):
    boxes = torch.zeros(1, 3, 7, device=device)
    boxes[0, 1:, 3:6] = 2
    assert ops.points_in_boxes_gpu(torch.zeros(1, 1, 3, device=device) + 0.5, boxes).item() == 1


def test_a_point_that_is_not_finite_is_in_no_box_and_disturbs_no_other(device):
    points = torch.zeros(1, 600, 3, device=device)
    points[0, 3, 0], points[0, 4, 1], points[0, 5, 2] = math.nan, math.inf, math.nan
    boxes = torch.tensor([[[0, 0, 0, 2, 2, 2, 0.3]]], device=device)
    mask = ops.points_in_boxes_cpu(points[0], boxes[0])[0]
    assert mask[3:6].tolist() == [0, 0, 0] and mask.sum() == 597
    assert torch.equal(ops.points_in_boxes_gpu(points, boxes)[0], mask - 1)


def test_views_and_arrays(device):
    cloud, boxes = random_cloud(100, device, channels=5), random_boxes(20, device, extent=20)
    expected = ops.points_in_boxes_cpu(cloud[::2, :3].contiguous(), boxes[::3].contiguous())
    assert torch.equal(ops.points_in_boxes_cpu(cloud[::2, :3], boxes[::3]), expected)
    mask = ops.points_in_boxes_cpu(cloud[::2, :3].cpu().numpy(), boxes[::3].cpu().numpy())
    assert mask.dtype == "int32" and (mask == expected.cpu().numpy()).all()


def test_bad_arguments_are_named(device):
    points, boxes = torch.zeros(4, 3, device=device), random_boxes(2, device)
    with pytest.raises(ValueError, match=r"points must have shape \(P, 3\) \[x, y, z\], got \[4, 2\]"):
        ops.points_in_boxes_cpu(points[:, :2], boxes)
    with pytest.raises(ValueError, match=r"boxes must have shape \(N, 7\).*got \[2, 6\]"):
        ops.points_in_boxes_cpu(points, boxes[:, :6])
    with pytest.raises(ValueError, match=r"points must have shape \(B, P, 3\).*got \[4, 3\]"):
        ops.points_in_boxes_gpu(points, boxes[None])
    with pytest.raises(ValueError, match=r"boxes must have shape \(B, T, 7\).*with B = 1, got \[2, 1, 7\]"):
        ops.points_in_boxes_gpu(points[None], boxes[:, None])
    with pytest.raises(ValueError, match=r"boxes must match points \(Float.*got Double"):
        ops.points_in_boxes_cpu(points, boxes.double())
    with pytest.raises(ValueError, match="points must be float32 or float64, got Long"):
        ops.points_in_boxes_cpu(points.long(), boxes)


def test_boxes_that_are_not_finite_are_refused_on_the_cpu():
    with pytest.raises(ValueError, match="boxes must be finite"):
        ops.points_in_boxes_cpu(torch.rand(4, 3), random_boxes(2) * math.nan)


def test_opcheck_and_one_graph(device):
    points, boxes = torch.rand(1, 30, 3, device=device), random_boxes(4, device, extent=1)[None]
    opcheck(torch.ops.pcdet.points_in_boxes_mask.default, (points[0], boxes[0]))
    opcheck(torch.ops.pcdet.points_in_boxes_index.default, (points, boxes))
    compiled = torch.compile(ops.points_in_boxes_gpu, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(points, boxes), ops.points_in_boxes_gpu(points, boxes))
