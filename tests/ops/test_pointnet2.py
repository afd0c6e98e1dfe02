import math

import pytest
import torch
from support.gradients import gradcheck
from support.opcheck import opcheck

from pcdet.ops.pointnet2.pointnet2_batch import pointnet2_utils as ops
from pcdet.ops.pointnet2.pointnet2_batch import reference
from pcdet.ops.pointnet2.pointnet2_batch.pointnet2_modules import (
    PointnetFPModule,
    PointnetSAModule,
    PointnetSAModuleMSG,
)
from pcdet.testing import random_cloud

SHAPES = [(1, 1), (1, 2), (2, 17), (3, 700), (1, 3000)]  # frames, points: one bucket, some, several groups of them


def random_points(frames, n, device="cpu", seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(frames, n, 3, generator=generator, dtype=torch.float64) * 4 - 2).to(device, dtype)


def crowded_points(frames, n, device="cpu", seed=0, dtype=torch.float32):
    """Many equal points and equal distances: every tie must go to the smallest index."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 5, (frames, n, 3), generator=generator).to(device, dtype)


def random_rows(frames, count, n, device="cpu", seed=0, dtype=torch.int32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, n, (frames, count), generator=generator).to(device, dtype)


@pytest.mark.parametrize("points", [random_points, crowded_points])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("frames", "n"), SHAPES)
def test_samples_match_the_reference(device, points, dtype, frames, n):
    xyz = points(frames, n, device, dtype=dtype)
    picks = ops.farthest_point_sample(xyz, min(n, 300))
    assert picks.dtype == torch.int32
    assert torch.equal(picks, reference.furthest_point_sample(xyz, min(n, 300)))


def test_every_sample_is_as_far_as_any_point_from_those_before_it(device):
    xyz = random_cloud(20000, device)[None, :, :3]
    picks = ops.furthest_point_sample(xyz, 500)[0].long()
    assert picks[0] == 0
    nearest = torch.full((20000,), math.inf, device=device)
    for earlier, pick in zip(picks, picks[1:], strict=False):
        nearest = torch.minimum(nearest, (xyz[0] - xyz[0, earlier]).square().sum(dim=1))
        assert nearest[pick] >= nearest.max() * (1 - 1e-5)


def test_sampling_more_points_than_there_are_ends_in_the_first(device):
    picks = ops.farthest_point_sample(random_points(1, 5, device), 9)[0]
    assert picks[:5].sort().values.tolist() == [0, 1, 2, 3, 4] and picks[5:].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("points", [random_points, crowded_points])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("radius", "nsample"), [(0.05, 1), (0.6, 16), (1.0, 32), (9.0, 70)])
@pytest.mark.parametrize(("frames", "n"), SHAPES)
def test_balls_match_the_reference(device, points, dtype, radius, nsample, frames, n):
    xyz, centres = points(frames, n, device, dtype=dtype), points(frames, 40, device, seed=1, dtype=dtype)
    idx = ops.ball_query(radius, nsample, xyz, centres)
    assert idx.dtype == torch.int32
    assert torch.equal(idx, reference.ball_query(radius, nsample, xyz, centres))


def test_balls_in_a_scan_match_the_reference(device):
    xyz = random_cloud(8000, device)[None, :, :3]
    xyz = torch.cat([xyz, xyz[:, torch.randperm(8000, generator=torch.Generator().manual_seed(0))]])
    centres = xyz[:, ::40] + 0.01
    for radius, nsample in ((0.1, 16), (0.5, 32), (4.0, 16), (1000.0, 5)):
        idx = ops.ball_query(radius, nsample, xyz, centres)
        assert torch.equal(idx, reference.ball_query(radius, nsample, xyz, centres)), radius


def test_a_centre_without_points_gets_the_first_point(device):
    xyz = random_points(1, 50, device)
    assert ops.ball_query(0.5, 4, xyz, xyz[:, :1] + 100).tolist() == [[[0, 0, 0, 0]]]
    assert ops.ball_query(0.5, 4, xyz, xyz[:, :1] - 1e9).tolist() == [[[0, 0, 0, 0]]]


def test_the_ball_is_open_and_its_indices_ascend_then_repeat_the_first(device):
    xyz = torch.tensor([[[9.0, 0, 0], [0.5, 0, 0], [1, 0, 0], [0, 0, 0]]], device=device)
    assert ops.ball_query(1.0, 4, xyz, torch.zeros(1, 1, 3, device=device)).tolist() == [[[1, 3, 1, 1]]]


@pytest.mark.parametrize("points", [random_points, crowded_points])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("frames", "m"), SHAPES)
def test_three_nearest_match_the_reference(device, points, dtype, frames, m):
    unknown, known = points(frames, 90, device, seed=1, dtype=dtype), points(frames, m, device, dtype=dtype)
    distance, idx = ops.three_nn(unknown, known)
    expected_distance, expected_idx = reference.three_nn(unknown, known)
    assert idx.dtype == torch.int32 and torch.equal(idx, expected_idx)
    assert torch.equal(distance, expected_distance)


def test_three_nearest_in_a_scan_match_the_reference(device):
    xyz = random_cloud(6000, device)[None, :, :3]
    known = xyz[:, ::7].contiguous()
    distance, idx = ops.three_nn(xyz, known)
    expected_distance, expected_idx = reference.three_nn(xyz, known)
    assert torch.equal(idx, expected_idx) and torch.equal(distance, expected_distance)


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_gathering_and_grouping_match_the_reference(device, dtype, index_dtype):
    features = torch.randn(2, 5, 30, dtype=torch.float64).to(device, dtype)
    idx = random_rows(2, 24, 30, device, dtype=index_dtype)
    assert torch.equal(ops.gather_operation(features, idx), reference.gather_operation(features, idx))
    idx = idx.view(2, 6, 4)
    assert torch.equal(ops.grouping_operation(features, idx), reference.grouping_operation(features, idx))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12), (torch.half, 2e-3)])
def test_interpolation_matches_the_reference(device, dtype, tolerance):
    features = torch.randn(2, 5, 30, dtype=torch.float64).to(device, dtype)
    idx, weight = random_rows(2, 33, 30, device).view(2, 11, 3), torch.rand(2, 11, 3, dtype=torch.float64).to(device)
    found = ops.three_interpolate(features, idx, weight)
    expected = reference.three_interpolate(features.double(), idx, weight)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


def test_gradients(device):
    features = torch.randn(2, 3, 7, dtype=torch.float64, device=device, requires_grad=True)
    weight = torch.rand(2, 4, 3, dtype=torch.float64, device=device, requires_grad=True)
    idx = random_rows(2, 12, 7, device)
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        try:
            gradcheck(lambda f: ops.gather_operation(f, idx), (features,))
            gradcheck(lambda f: ops.grouping_operation(f, idx.view(2, 4, 3)), (features,))
            gradcheck(lambda f, w: ops.three_interpolate(f, idx.view(2, 4, 3), w), (features, weight))
        finally:
            torch.use_deterministic_algorithms(False)


def test_gradients_in_half_precision_are_summed_in_single(device):
    features = torch.zeros(1, 1, 3, device=device, dtype=torch.half, requires_grad=True)
    ops.gather_operation(features, torch.zeros(1, 4000, device=device, dtype=torch.int32)).sum().backward()
    assert features.grad.tolist() == [[[4000, 0, 0]]]  # half precision would stop counting at 2048


def test_a_sum_of_gradients_is_kept(device):
    features = torch.randn(2, 4, 50, device=device, dtype=torch.float64, requires_grad=True)
    idx = random_rows(2, 300, 50, device)
    grad = torch.randn(2, 4, 300, device=device, dtype=torch.float64)
    ops.gather_operation(features, idx).backward(grad)
    torch.testing.assert_close(features.grad.sum(dim=2), grad.sum(dim=2))


def test_empty_sets(device):
    xyz, none = random_points(2, 5, device), torch.zeros(2, 0, 3, device=device)
    assert ops.farthest_point_sample(xyz, 0).shape == (2, 0)
    assert ops.farthest_point_sample(none, 0).shape == (2, 0)
    assert ops.farthest_point_sample(none[:0], 3).shape == (0, 3)
    assert ops.ball_query(1.0, 4, xyz, none).shape == ops.ball_query(1.0, 4, none, none).shape == (2, 0, 4)
    distance, idx = ops.three_nn(none, xyz)
    assert distance.shape == idx.shape == (2, 0, 3)
    features, no_rows = torch.ones(2, 3, 5, device=device), torch.zeros(2, 0, device=device, dtype=torch.int32)
    assert ops.gather_operation(features, no_rows).shape == (2, 3, 0)
    assert ops.gather_operation(features[:, :0], no_rows).shape == (2, 0, 0)
    assert ops.three_interpolate(features, no_rows.view(2, 0, 3), torch.zeros(2, 0, 3, device=device)).shape == (
        2,
        3,
        0,
    )
    features.requires_grad_()
    ops.grouping_operation(features, no_rows.view(2, 0, 4)).sum().backward()
    assert not features.grad.any()


def test_views_give_what_their_copies_give(device):
    wide = random_cloud(600, device, channels=7)[None]
    xyz, centres = wide[:, ::2, :3], wide[:, ::5, 1:4]
    assert not xyz.is_contiguous()
    copies = xyz.contiguous(), centres.contiguous()
    assert torch.equal(ops.farthest_point_sample(xyz, 50), ops.farthest_point_sample(copies[0], 50))
    assert torch.equal(ops.ball_query(1.0, 8, xyz, centres), ops.ball_query(1.0, 8, *copies))
    assert torch.equal(ops.three_nn(centres, xyz)[1], ops.three_nn(copies[1], copies[0])[1])
    features, idx = xyz.mT, random_rows(1, 20, 300, device).view(1, 10, 2)[:, ::2].mT
    assert torch.equal(ops.grouping_operation(features, idx), reference.grouping_operation(features, idx))


GOOD = torch.zeros(2, 4, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ops.farthest_point_sample(x[0], 2), r"xyz must have shape \(B, N, 3\).*got \[4, 3\]"),
        (lambda x: ops.farthest_point_sample(x.long(), 2), "xyz must be float32 or float64, got Long"),
        (lambda x: ops.farthest_point_sample(x, -1), r"npoint must be in \[0, 2\^31\), got -1"),
        (lambda x: ops.farthest_point_sample(x[:, :0], 1), "xyz must hold at least one point a frame"),
        (lambda x: ops.ball_query(0.0, 2, x, x), "radius must be positive and at most 1e12, got 0"),
        (lambda x: ops.ball_query(math.nan, 2, x, x), "radius must be positive and at most 1e12, got nan"),
        (lambda x: ops.ball_query(1.0, 0, x, x), "nsample must be positive and below 2\\^31, got 0"),
        (lambda x: ops.ball_query(1.0, 2, x, x[:1]), "new_xyz must have as many frames as xyz \\(2\\), got 1"),
        (lambda x: ops.ball_query(1.0, 2, x, x.double()), "new_xyz must match xyz .*got Double"),
        (lambda x: ops.ball_query(1.0, 2, x[:, :0], x), "xyz must hold at least one point a frame, got \\[2, 0, 3\\]"),
        (lambda x: ops.three_nn(x, x[..., :2]), r"known must have shape \(B, N, 3\).*got \[2, 4, 2\]"),
        (lambda x: ops.three_nn(x, x[:, :0]), "known must hold at least one point a frame"),
        (lambda x: ops.gather_operation(x[0], x[0]), r"features must have shape \(B, C, N\), got \[4, 3\]"),
        (lambda x: ops.gather_operation(x.int(), x[..., 0].int()), "features must be a floating-point tensor, got Int"),
        (lambda x: ops.gather_operation(x, x[..., 0]), "idx must be int32 or int64, got Float"),
        (
            lambda x: ops.gather_operation(x, x[:1, :, 0].int()),
            r"idx must have shape \(B, M\) with B = 2, got \[1, 4\]",
        ),
        (lambda x: ops.grouping_operation(x, x[..., 0].int()), r"idx must have shape \(B, M, K\), got \[2, 4\]"),
        (lambda x: ops.three_interpolate(x, x[..., :2].int(), x), r"idx must have shape \(B, N, 3\)"),
        (lambda x: ops.three_interpolate(x, x.int(), x[:, :1]), "weight must have the shape of idx"),
        (lambda x: ops.three_interpolate(x, x.int(), x.int()), "weight must be a floating-point tensor"),
        (lambda x: torch.ops.pcdet.gather_points_backward(x, x[..., 0].int(), 5), "idx must have an entry for each"),
    ],
)
def test_bad_arguments_are_named(device, call, message):
    with pytest.raises(ValueError, match=message):
        call(GOOD.to(device))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e13])
def test_coordinates_that_are_not_finite_are_refused_on_the_cpu(bad):
    broken = GOOD.clone()
    broken[1, 2, 1] = bad
    with pytest.raises(ValueError, match="xyz must be finite and within"):
        ops.farthest_point_sample(broken, 2)
    with pytest.raises(ValueError, match="new_xyz must be finite and within"):
        ops.ball_query(1.0, 2, GOOD, broken)
    with pytest.raises(ValueError, match="known must be finite and within"):
        ops.three_nn(GOOD, broken)


@pytest.mark.parametrize("row", [-1, 5, 2**31 - 1, 2**32])
def test_indices_out_of_range_are_refused_on_the_cpu(row):
    features, idx = torch.zeros(1, 2, 5), torch.tensor([[0, 4, row]])
    for call in (
        lambda: ops.gather_operation(features, idx),
        lambda: ops.three_interpolate(features, idx[None], torch.ones(1, 1, 3)),
        lambda: torch.ops.pcdet.gather_points_backward(torch.zeros(1, 2, 3), idx, 5),
    ):
        with pytest.raises(ValueError, match=r"idx must lie in \[0, 5\), but holds an index outside"):
            call()


@pytest.mark.gpu
def test_indices_must_be_on_the_gradient_s_device(gpu):
    with pytest.raises(ValueError, match=rf"idx must be on the device of grad \({gpu}\), got cpu"):
        torch.ops.pcdet.gather_points_backward(torch.ones(1, 2, 3, device=gpu), torch.zeros(1, 3).long(), 4)


@pytest.mark.gpu
def test_bad_numbers_spread_on_the_gpu(gpu):
    xyz = random_points(2, 100, gpu)
    xyz[1, 3, 0] = math.nan
    picks = ops.farthest_point_sample(xyz, 5)
    assert (picks[0] >= 0).all() and (picks[1] == -1).all()
    assert ops.ball_query(1.0, 2, xyz, xyz[:, 3:4])[1].tolist() == [[-1, -1]]
    distance, idx = ops.three_nn(xyz[:, 3:4], xyz)
    assert distance[1].isnan().all() and (idx[1] == -1).all()
    features = torch.ones(2, 1, 4, device=gpu, requires_grad=True)
    picked = ops.gather_operation(features, torch.tensor([[0, -1], [4, 3]], device=gpu))
    assert picked.isnan().tolist() == [[[False, True]], [[True, False]]]
    picked.sum().backward()
    assert features.grad.tolist() == [[[1, 0, 0, 0]], [[0, 0, 0, 1]]]


def test_opcheck(device):
    xyz, idx = random_points(2, 20, device), random_rows(2, 12, 20, device)
    native = torch.ops.pcdet
    opcheck(native.furthest_point_sample.default, (xyz, 5))
    opcheck(native.ball_query.default, (xyz, xyz[:, :4], 1.0, 3))
    opcheck(native.three_nn.default, (xyz[:, :4], xyz))
    features = torch.randn(2, 3, 20, device=device, requires_grad=True)
    opcheck(native.gather_points.default, (features, idx))
    opcheck(native.gather_points_backward.default, (torch.randn(2, 3, 12, device=device), idx, 20))
    weight = torch.rand(2, 4, 3, device=device, requires_grad=True)
    opcheck(native.three_interpolate.default, (features, idx.view(2, 4, 3), weight))
    grad = torch.randn(2, 3, 4, device=device)
    opcheck(native.three_interpolate_backward.default, (grad, idx.view(2, 4, 3), weight.detach(), 20))


def small_backbone(device):
    torch.manual_seed(0)
    sa = PointnetSAModuleMSG(npoint=16, radii=[0.5, 1.0], nsamples=[4, 8], mlps=[[2, 4, 5], [2, 6]])
    return sa.to(device), PointnetFPModule(mlp=[11 + 2, 7]).to(device)


def test_modules_compile_to_one_graph_and_train(device):
    sa, fp = small_backbone(device)
    xyz, features = random_points(2, 60, device), torch.randn(2, 2, 60, device=device, requires_grad=True)

    def run(xyz, features):
        centres, described = sa(xyz, features)
        return fp(xyz, centres, features, described)

    expected = run(xyz, features)
    assert expected.shape == (2, 7, 60)
    found = torch.compile(run, fullgraph=True, backend="aot_eager")(xyz, features)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    assert features.grad.abs().sum() > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in sa.parameters() if parameter.dim() == 4)


def test_sampling_and_grouping_export(device):
    sa, _ = small_backbone(device)
    xyz, features = random_points(1, 60, device), torch.randn(1, 2, 60, device=device)
    program = torch.export.export(sa.eval(), (xyz, features))
    found, expected = program.module()(xyz, features), sa(xyz, features)
    torch.testing.assert_close(found, expected)


def test_parameters_have_openpcdets_names():
    sa = PointnetSAModuleMSG(npoint=4, radii=[0.1, 0.5], nsamples=[4, 8], mlps=[[1, 16, 16, 32], [1, 32, 32, 64]])
    names = {name: tuple(value.shape) for name, value in sa.state_dict().items()}
    layers = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert names["mlps.0.0.weight"] == (16, 4, 1, 1) and names["mlps.1.6.weight"] == (64, 32, 1, 1)
    expected = {f"mlps.{s}.{k}.weight" for s in range(2) for k in (0, 3, 6)}
    expected |= {f"mlps.{s}.{k}.{layer}" for s in range(2) for k in (1, 4, 7) for layer in layers}
    assert set(names) == expected
    fp = {name for name, value in PointnetFPModule(mlp=[10, 8, 8]).state_dict().items() if value.dim() == 4}
    assert fp == {"mlp.0.weight", "mlp.3.weight"}


def test_module_arguments():
    mlps = [[4, 8, 8]]
    given = [4, 8]
    PointnetSAModuleMSG(npoint=4, radii=[1.0], nsamples=[2], mlps=[given])
    assert given == [4, 8]  # OpenPCDet adds 3 to the caller's list
    with pytest.raises(ValueError, match="one entry a scale, got 2, 1, 1"):
        PointnetSAModuleMSG(npoint=4, radii=[1.0, 2.0], nsamples=[2], mlps=mlps)
    with pytest.raises(ValueError, match="pool_method must be 'max_pool' or 'avg_pool', got 'sum'"):
        PointnetSAModuleMSG(npoint=4, radii=[1.0], nsamples=[2], mlps=mlps, pool_method="sum")
    with pytest.raises(ValueError, match="needs features"):
        ops.QueryAndGroup(1.0, 2, use_xyz=False)(GOOD, GOOD)


def test_grouping_modules(device):
    xyz, features = random_points(2, 9, device), torch.randn(2, 4, 9, device=device)
    grouped = ops.QueryAndGroup(1.5, 6)(xyz, xyz[:, :3], features)
    idx = reference.ball_query(1.5, 6, xyz, xyz[:, :3])
    offsets = reference.grouping_operation(xyz.mT, idx) - xyz[:, :3].mT[..., None]
    assert torch.equal(grouped, torch.cat([offsets, reference.grouping_operation(features, idx)], dim=1))
    assert torch.equal(ops.QueryAndGroup(1.5, 6)(xyz, xyz[:, :3]), offsets)
    assert torch.equal(ops.QueryAndGroup(1.5, 6, use_xyz=False)(xyz, xyz[:, :3], features), grouped[:, 3:])
    assert torch.equal(ops.GroupAll()(xyz, None, features), torch.cat([xyz.mT, features], dim=1)[:, :, None])
    assert torch.equal(ops.GroupAll(use_xyz=False)(xyz, None, features), features[:, :, None])
    assert torch.equal(ops.GroupAll()(xyz, None), xyz.mT[:, :, None])


def test_one_scale_one_group_and_mean_pooling(device):
    xyz, features = random_points(2, 20, device), torch.randn(2, 4, 20, device=device)
    centres, described = PointnetSAModule(mlp=[4, 8], npoint=5, radius=1.0, nsample=4).to(device)(xyz, features)
    assert centres.shape == (2, 5, 3) and described.shape == (2, 8, 5)
    whole = PointnetSAModule(mlp=[4, 8], pool_method="avg_pool").to(device)
    centres, described = whole(xyz, features)
    assert centres is None and described.shape == (2, 8, 1)
    grouped = torch.cat([xyz.mT, features], dim=1)[:, :, None]
    torch.testing.assert_close(described, whole.mlps[0](grouped).mean(dim=-1), rtol=1e-4, atol=1e-4)
    given = PointnetSAModule(mlp=[4, 8], npoint=5, radius=1.0, nsample=4).to(device)(xyz, features, xyz[:, :2])[0]
    assert torch.equal(given, xyz[:, :2])


def test_features_are_carried_from_the_nearest(device):
    fp = PointnetFPModule(mlp=[4, 6]).to(device)
    known, feats = random_points(2, 10, device), torch.randn(2, 4, 10, device=device)
    carried = fp(known, known, None, feats)  # a point's own feature outweighs its neighbours' by 1e8
    torch.testing.assert_close(carried, fp.mlp(feats[..., None])[..., 0], rtol=1e-3, atol=1e-3)
    assert fp(known, None, None, feats[:, :, :1]).shape == (2, 6, 10)
