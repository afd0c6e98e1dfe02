"""OpenPCDet's PointRCNN up to its point features: samples, neighbours, features; and RoIPointPool3d's output."""

import zlib

import numpy as np
import pytest
import torch

from pcdet.ops.pointnet2.pointnet2_batch import pointnet2_utils as ops
from pcdet.ops.pointnet2.pointnet2_batch.pointnet2_modules import PointnetFPModule, PointnetSAModuleMSG
from pcdet.ops.roipoint_pool3d.roipoint_pool3d_utils import RoIPointPool3d
from pcdet.utils.common_utils import mask_points_by_range

LEVELS = 4  # set abstractions; as many propagations back
SALT = "pointrcnn-open"
# kitti_models/pointrcnn.yaml, with the goldens' fewer centres
NPOINTS = [1024, 256, 64, 16]
RADII = [[0.1, 0.5], [0.5, 1.0], [1.0, 2.0], [2.0, 4.0]]
MLPS = [
    [[1, 16, 16, 32], [1, 32, 32, 64]],
    [[96, 64, 64, 128], [96, 64, 96, 128]],
    [[256, 128, 196, 256], [256, 128, 196, 256]],
    [[512, 256, 256, 512], [512, 256, 384, 512]],
]
FP_MLPS = [[257, 128, 128], [608, 256, 256], [768, 512, 512], [1536, 512, 512]]


@pytest.fixture
def case(goldens):
    with np.load(goldens / "reference" / "models" / "pointrcnn.npz", allow_pickle=False) as file:
        wanted = ("test.fps", "test.ball", "test.three_nn", "test.sa", "test.fp", "input.")
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


def filled(module, prefix, device):
    """The goldens' weights, which follow from names and shapes (their README)."""
    state = module.state_dict()
    for name, value in state.items():
        seed = zlib.crc32(f"{SALT}:backbone_3d.{prefix}.{name}".encode())
        n = np.random.Generator(np.random.PCG64(seed)).standard_normal(tuple(value.shape))
        if name.endswith("running_mean"):
            n = 0.1 * n
        elif name.endswith("running_var"):
            n = 1 + 0.1 * np.abs(n)
        elif name.endswith("bias"):
            n = 0.05 * n
        elif n.ndim == 1:
            n = 1 + 0.1 * n
        elif n.ndim == 4:
            n = n * np.sqrt(2.0 / (n.size // n.shape[0]))
        else:
            n = np.zeros(())  # num_batches_tracked
        state[name] = torch.from_numpy(np.asarray(n)).to(value.dtype)
    module.load_state_dict(state)
    return module.to(device).eval()


def assert_close_slice(features, case, name):
    expected = case[f"test.{name}.features.slice"]
    found = features[:, ::16, ::7].cpu()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@torch.no_grad()
def test_features_of_every_level_are_near(case, levels, device):
    inputs = [case[f"input.points{i}"] for i in range(2)]
    inputs = [points[mask_points_by_range(points, case["input.point_cloud_range"])][:, 3:] for points in inputs]
    features = [torch.stack(inputs).mT.contiguous().to(device)]
    for k in range(LEVELS):
        sa = PointnetSAModuleMSG(npoint=NPOINTS[k], radii=RADII[k], nsamples=[16, 32], mlps=MLPS[k])
        centres, described = filled(sa, f"SA_modules.{k}", device)(levels[k], features[k])
        assert torch.equal(centres, levels[k + 1])
        assert_close_slice(described, case, f"sa{k}")
        features.append(described)
    for k in reversed(range(LEVELS)):
        fp = filled(PointnetFPModule(mlp=FP_MLPS[k]), f"FP_modules.{k}", device)
        features[k] = fp(levels[k], levels[k + 1], features[k], features[k + 1])
        assert_close_slice(features[k], case, f"fp{k}")


def test_pooled_points_are_equal(goldens, device):
    with np.load(goldens / "reference" / "boxes" / "roipoint_pool.npz", allow_pickle=False) as file:
        given = {key: torch.from_numpy(file[key]) for key in file.files}
    pool = RoIPointPool3d(int(given["num_sampled_points"]), given["pool_extra_width"].tolist())
    pooled, empty = pool(*(given[key].to(device) for key in ("points", "features", "rois")))
    assert torch.equal(pooled.cpu(), given["pooled"])
    assert torch.equal(empty.cpu(), given["empty"])
