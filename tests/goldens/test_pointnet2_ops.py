"""OpenPCDet's own samples, neighbours and pooled points: the indices of its PointRCNN, and RoIPointPool3d's output."""

import numpy as np
import pytest
import torch

from pcdet.ops.pointnet2.pointnet2_batch import pointnet2_utils as ops
from pcdet.ops.roipoint_pool3d.roipoint_pool3d_utils import RoIPointPool3d
from pcdet.utils.common_utils import mask_points_by_range

LEVELS = 4  # set abstractions; as many propagations back


@pytest.fixture
def case(goldens):
    with np.load(goldens / "reference" / "models" / "pointrcnn.npz", allow_pickle=False) as file:
        wanted = ("test.fps", "test.ball", "test.three_nn", "test.sa", "input.")
        return {key: torch.from_numpy(file[key]) for key in file.files if key.startswith(wanted)}


@pytest.fixture
def levels(case, device):
    """(2, N, 3) points of each level: the input's, then each abstraction's centres."""
    inputs = [case[f"input.points{i}"] for i in range(2)]
    inputs = [points[mask_points_by_range(points, case["input.point_cloud_range"])][:, :3] for points in inputs]
    return [torch.stack(inputs).to(device), *(case[f"test.sa{k}.xyz"].to(device) for k in range(LEVELS))]


@pytest.mark.parametrize("level", range(LEVELS))
def test_samples_are_equal(case, levels, level):
    expected = case[f"test.fps{level}"]
    picks = ops.farthest_point_sample(levels[level], expected.shape[1])
    assert torch.equal(picks.cpu(), expected.int())
    centres = ops.gather_operation(levels[level].mT, picks).mT
    assert torch.equal(centres, levels[level + 1])


@pytest.mark.parametrize("query", range(2 * LEVELS))
def test_balls_are_equal(case, levels, query):
    radius, nsample = case[f"test.ball{query}.radius_nsample"].tolist()
    idx = ops.ball_query(radius, int(nsample), levels[query // 2], levels[query // 2 + 1])
    assert torch.equal(idx.cpu(), case[f"test.ball{query}.idx"].int())


@pytest.mark.parametrize("step", range(LEVELS))
def test_three_nearest_are_equal(case, levels, step):
    coarse = LEVELS - step  # the deepest level is carried back first
    _, idx = ops.three_nn(levels[coarse - 1], levels[coarse])
    assert torch.equal(idx.cpu(), case[f"test.three_nn{step}.idx"].int())


def test_pooled_points_are_equal(goldens, device):
    with np.load(goldens / "reference" / "boxes" / "roipoint_pool.npz", allow_pickle=False) as file:
        given = {key: torch.from_numpy(file[key]) for key in file.files}
    pool = RoIPointPool3d(int(given["num_sampled_points"]), given["pool_extra_width"].tolist())
    pooled, empty = pool(*(given[key].to(device) for key in ("points", "features", "rois")))
    assert torch.equal(pooled.cpu(), given["pooled"])
    assert torch.equal(empty.cpu(), given["empty"])
