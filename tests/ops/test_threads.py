"""The CPU ops that share their work between threads give the same bits with three threads as with one.

Inputs are as large as the ops want them before they wake a second thread. The gradients of gathered edges are left out:
they are sums of as many parts as there are threads (``test_edge_conv.py`` compares them).
"""

import pytest
import torch

from pcdet.ops.edge_conv import edge_graph
from pcdet.ops.iou3d_nms import iou3d_nms_utils as boxes_ops
from pcdet.ops.knn import knn
from pcdet.ops.pointnet2.pointnet2_batch import pointnet2_utils as points_ops
from pcdet.ops.roiaware_pool3d import roiaware_pool3d_utils as roiaware
from pcdet.ops.roipoint_pool3d.roipoint_pool3d_utils import RoIPointPool3d
from pcdet.ops.scatter import expand_groups, group_rows, scatter_max, scatter_mean
from pcdet.ops.voxel import dynamic_voxelize, voxelize
from pcdet.testing import random_boxes, random_cloud


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rows(*shape, below, least=0):
    return torch.randint(least, below, shape, generator=torch.Generator().manual_seed(1))


def cloud(n, seed=0):
    return random_cloud(n, seed=seed)[:, :3].contiguous()


def gathered():
    features, idx = noise(1, 64, 20000).requires_grad_(), rows(1, 60000, below=20000)
    out = points_ops.gather_operation(features, idx)
    return out, *torch.autograd.grad(out.square().sum(), features)


def interpolated():
    features, idx = noise(1, 64, 20000).requires_grad_(), rows(1, 60000, 3, below=20000)
    out = points_ops.three_interpolate(features, idx, noise(1, 60000, 3, seed=2))
    return out, *torch.autograd.grad(out.square().sum(), features)


def pooled_rois(method):
    points, features = cloud(60000), noise(60000, 4).requires_grad_()
    rois = random_boxes(60, extent=20)
    out = roiaware.RoIAwarePool3d(3)(rois, points, features, method)
    return out, *torch.autograd.grad(out.square().sum(), features)


def sorted_graph():
    return edge_graph(rows(40000, 64, below=9000, least=-1), 9000)[:4]


def edges(op):
    """What an edge op gives on a graph of 2000 centres, and its gradients where they do not depend on the threads."""
    graph = edge_graph(rows(2000, 64, below=3000, least=-1), 3000)
    base, query, other_base, other_query = (
        noise(n, 64, seed=seed).requires_grad_() for seed, n in enumerate((3000, 2000, 3000, 2000))
    )
    table, by_base = graph.idx, (graph.start, graph.edge)
    native = torch.ops.pcdet
    if op == "edge_gather":
        return (native.edge_gather(base, query, table, *by_base, True),)
    if op == "edge_argmax":
        return (native.edge_argmax(base.detach(), table),)
    sides, relus = (base, query), (True,)
    if op == "edge_distance":
        sides, relus = (base, query, other_base, other_query), (True, False)
    out = getattr(native, op)(*sides, table, *by_base, *(() if op == "edge_moments" else relus))
    loss = sum(x.square().sum() for x in out if x.requires_grad)
    return *out, *torch.autograd.grad(loss, sides)


def reduced():
    features, groups = noise(60000, 64).requires_grad_(), group_rows(rows(60000, below=9000, least=-1), 9000)
    out = scatter_mean(features, groups) + scatter_max(features, groups)
    spread = expand_groups(out, groups, 60000)
    return out, spread, *torch.autograd.grad(out.square().sum() + spread.sum(), features)


def dynamic_voxels():
    frames = torch.nn.functional.pad(random_cloud(600000), (1, 0))
    frames[300000:, 0] = 1
    return dynamic_voxelize(frames, [0.1, 0.1, 0.2], [0, -40, -3, 70, 40, 1], batch_size=2)


CASES = {
    "knn in features": lambda: knn(noise(2000, 32), noise(4000, 32, seed=1), 16),
    "knn in float64 features": lambda: knn(
        noise(300, 8, dtype=torch.float64), noise(2000, 8, seed=1, dtype=torch.float64), 16
    ),
    "knn in xyz": lambda: knn(cloud(4000), cloud(8000, 1), 16),
    "three_nn": lambda: points_ops.three_nn(cloud(40000)[None], cloud(5000, 1)[None]),
    "ball_query": lambda: (points_ops.ball_query(0.8, 16, cloud(20000)[None], cloud(30000, 1)[None]),),
    "furthest_point_sample": lambda: (points_ops.furthest_point_sample(cloud(12000).view(3, 4000, 3), 2048),),
    "gather": gathered,
    "three_interpolate": interpolated,
    "nms": lambda: boxes_ops.nms_gpu(random_boxes(40000, extent=100, objects=4000), noise(40000), 0.3)[:1],
    "boxes_iou3d": lambda: (
        boxes_ops.boxes_iou3d(random_boxes(2000, extent=40), random_boxes(1800, seed=1, extent=40)),
    ),
    "paired_boxes_iou3d": lambda: (boxes_ops.paired_boxes_iou3d(random_boxes(60000), random_boxes(60000, seed=1)),),
    "points_in_boxes_gpu": lambda: (
        roiaware.points_in_boxes_gpu(cloud(100000)[None], random_boxes(150, extent=40)[None]),
    ),
    "points_in_boxes_cpu": lambda: (roiaware.points_in_boxes_cpu(cloud(100000), random_boxes(100, extent=40)),),
    "roiaware max": lambda: pooled_rois("max"),
    "roiaware avg": lambda: pooled_rois("avg"),
    "roipoint": lambda: RoIPointPool3d(64)(cloud(60000)[None], noise(1, 60000, 4), random_boxes(200, extent=20)[None]),
    "voxelize": lambda: voxelize(random_cloud(400000), [0.1, 0.1, 0.2], [0, -40, -3, 70, 40, 1], 5, 40000),
    "dynamic_voxelize": dynamic_voxels,
    "scatter": reduced,
    "edge_graph": sorted_graph,
    **{
        op: (lambda op=op: edges(op))
        for op in ("edge_gather", "edge_argmax", "edge_sum", "edge_moments", "edge_distance")
    },
}


@pytest.mark.parametrize("name", CASES)
def test_three_threads_give_the_bits_of_one(name):
    before, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            runs.append(CASES[name]())
    finally:
        torch.set_num_threads(before)
    for one, three in zip(*runs, strict=True):
        assert torch.equal(one, three)
