import math

import numpy as np
import pytest
import torch
from support.opcheck import opcheck

from pcdet.ops.roipoint_pool3d import reference
from pcdet.ops.roipoint_pool3d.roipoint_pool3d_utils import RoIPointPool3d
from pcdet.testing import random_boxes


def scene(frames, num_points, num_boxes, device, channels=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(frames, num_points, 3, generator=generator, dtype=torch.float64) * 12 - 6
    features = torch.randn(frames, num_points, channels, generator=generator, dtype=torch.float64)
    boxes = random_boxes(frames * num_boxes, extent=6, dtype=torch.float64).view(frames, num_boxes, 7)
    return points.to(device, dtype), features.to(device, dtype), boxes.to(device, dtype)


@pytest.mark.parametrize("num", [1, 7, 64, 2000])
@pytest.mark.parametrize(
    ("frames", "num_points", "num_boxes"), [(0, 3, 2), (2, 0, 3), (2, 3, 0), (1, 1, 1), (2, 900, 9)]
)
def test_pooling_matches_the_reference(device, num, frames, num_points, num_boxes):
    points, features, boxes = scene(frames, num_points, num_boxes, device)
    pooled, empty = RoIPointPool3d(num, pool_extra_width=0.0)(points, features, boxes)
    expected, expected_empty = reference.roipoint_pool3d(points, features, boxes, num)
    assert torch.equal(pooled, expected) and torch.equal(empty, expected_empty) and empty.dtype == torch.int32
    assert num_points < 900 or 0 < empty.sum() < empty.numel()


def test_a_wider_box_pools_what_the_box_with_its_margin_holds(device):
    points, features, boxes = scene(1, 500, 6, device)
    wider = boxes.clone()
    wider[..., 3:6] += torch.tensor([1.0, 0.5, 0.2], dtype=boxes.dtype, device=device)
    found = RoIPointPool3d(32, [1.0, 0.5, 0.2])(points, features, boxes)
    expected = RoIPointPool3d(32, 0.0)(points, features, wider)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_few_points_are_repeated_in_turn(device):
    points = torch.tensor([[[0.0, 0, 0], [50, 0, 0], [0.1, 0, 0], [0.2, 0, 0]]], device=device)
    boxes = torch.tensor([[[0.0, 0, 0, 1, 1, 1, 0], [20, 0, 0, 1, 1, 1, 0]]], device=device)
    rows = torch.arange(4.0, device=device)[None, :, None]
    pooled, empty = RoIPointPool3d(7, 0.0)(points, rows, boxes)
    assert pooled[0, 0, :, 3].tolist() == [0, 2, 3, 0, 2, 3, 0]
    assert empty.tolist() == [[0, 1]] and not pooled[0, 1].any()


def test_views_and_single_precision(device):
    points, features, boxes = scene(2, 300, 5, device, dtype=torch.float32)
    wide = torch.cat([points, features], dim=2)
    found = RoIPointPool3d(16)(wide[..., :3], wide[..., 3:], boxes)
    expected = RoIPointPool3d(16)(points, features, boxes)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_a_point_that_is_not_finite_is_in_no_box(device):
    points = torch.zeros(1, 5, 3, device=device)
    points[0, 0, 0], points[0, 1, 2] = math.nan, math.inf
    boxes = torch.tensor([[[0.0, 0, 0, 1, 1, 1, 0]]], device=device)
    pooled, _ = RoIPointPool3d(3, 0.0)(points, torch.arange(5.0, device=device).view(1, 5, 1), boxes)
    assert pooled[0, 0, :, 3].tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.zeros(4, 3)}, r"points must have shape \(B, N, 3\).*got \[4, 3\]"),
        ({"points": torch.zeros(1, 4, 3, dtype=torch.long)}, "points must be float32 or float64, got Long"),
        ({"features": torch.zeros(1, 5, 2)}, r"features must have shape \(B, N, C\) with \(B, N\) = \(1, 4\), got"),
        ({"features": torch.zeros(1, 4, 2).double()}, "features must match points .*got Double"),
        ({"boxes": torch.zeros(2, 3, 7)}, r"boxes must have shape \(B, M, 7\).*with B = 1, got \[2, 3, 7\]"),
        ({"boxes": torch.zeros(1, 3, 6)}, r"boxes must have shape \(B, M, 7\).*got \[1, 3, 6\]"),
        ({"boxes": torch.full((1, 3, 7), math.nan)}, "boxes must be finite"),
        ({"num": 0}, "num_sampled_points must be positive, got 0"),
    ],
)
def test_bad_arguments_are_named(change, message):
    given = {"points": torch.zeros(1, 4, 3), "features": torch.zeros(1, 4, 2), "boxes": torch.ones(1, 3, 7), "num": 5}
    given |= change
    with pytest.raises(ValueError, match=message):
        RoIPointPool3d(given.pop("num"))(*given.values())


@pytest.mark.parametrize("width", [[1, 2], "1.0", None, [1, 2, "3"]])
def test_widths_that_are_not_one_number_or_three_are_named(width):
    with pytest.raises(ValueError, match="pool_extra_width must be one number or three, in metres, got "):
        RoIPointPool3d(5, width)


def test_numbers_may_be_those_of_numpy():
    points, features, boxes = scene(1, 60, 3, "cpu", dtype=torch.float32)
    found = RoIPointPool3d(np.int64(8), np.float32(0.5))(points, features, boxes)
    expected = RoIPointPool3d(8, (0.5, 0.5, 0.5))(points, features, boxes)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_opcheck_and_one_graph(device):
    points, features, boxes = scene(1, 60, 3, device, dtype=torch.float32)
    opcheck(torch.ops.pcdet.roipoint_pool3d.default, (points, features, boxes, 8))
    pool = RoIPointPool3d(8, [0.2, 0.2, 0.2])
    found = torch.compile(pool, fullgraph=True, backend="aot_eager")(points, features, boxes)
    assert torch.equal(found[0], pool(points, features, boxes)[0])
    exported = torch.export.export(pool, (points, features, boxes)).module()(points, features, boxes)
    assert torch.equal(exported[0], found[0]) and torch.equal(exported[1], found[1])
