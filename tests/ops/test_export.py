"""Every op of inference in one graph: exported with torch.export for sizes that vary, and compiled."""

import pytest
import torch
from torch import nn

from pcdet.ops.edge_conv import edge_conv, edge_features
from pcdet.ops.iou3d_nms import iou3d_nms_utils as boxes_ops
from pcdet.ops.knn import knn
from pcdet.ops.pointnet2.pointnet2_batch import pointnet2_utils as points_ops
from pcdet.ops.roiaware_pool3d import roiaware_pool3d_utils as roiaware
from pcdet.ops.roipoint_pool3d.roipoint_pool3d_utils import RoIPointPool3d
from pcdet.ops.scatter import RowGroups, expand_groups, group_rows, scatter_max, scatter_mean
from pcdet.ops.voxel import dynamic_voxelize, voxelize
from pcdet.testing import random_boxes, random_cloud

FOR_TRAINING_ALONE = {"edge_transpose", "edge_moments", "edge_distance"}  # and what is named *_backward


def boxes(n, seed=0, *batch):
    return random_boxes(n, seed=seed, extent=4).reshape(*batch, n, 7)


def points(n, seed=0, *batch):
    return random_cloud(n, seed=seed)[:, :3].reshape(*batch, n, 3).contiguous()


def rows(shape, below, dtype=torch.int64):
    return torch.randint(0, below, shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def described(how):
    """An edge convolution as a network runs it: a norm with running statistics, a ReLU, a reduction."""
    layer, norm = nn.Linear(6, 5), nn.BatchNorm1d(5)
    norm.running_mean.uniform_(-1, 1)

    class EdgeConv(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = layer, norm

        def forward(self, base, query, idx):
            settings = {"norm": self.norm, "activation": torch.relu, "reduce": how}
            return edge_conv(base, query, idx, self.layer.weight, self.layer.bias, **settings)

    return EdgeConv().requires_grad_(False).eval()


def dynamic_pillars(points):
    """Every point with the mean and the maximum of its pillar, as an encoder joins them."""
    found = dynamic_voxelize(points, [0.8, 0.8, 4], [0, -20, -3, 40, 20, 1], batch_size=1, any_height=True)
    inside, groups = points.index_select(0, found.order), RowGroups(None, found.offsets)
    return expand_groups(scatter_mean(inside, groups) + scatter_max(inside, groups), groups, inside.shape[0])


class Call(nn.Module):
    """A function as a module, which is what can be exported."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *given):
        return self.function(*given)


# name -> what is called, and its arguments for a size
CASES = {
    "boxes_overlap_bev": (boxes_ops.boxes_overlap_bev, lambda n: (boxes(n), boxes(7, 1))),
    "boxes_iou_bev": (boxes_ops.boxes_iou_bev, lambda n: (boxes(n), boxes(7, 1))),
    "boxes_iou3d": (boxes_ops.boxes_iou3d, lambda n: (boxes(n), boxes(7, 1))),
    "paired_boxes_iou3d": (boxes_ops.paired_boxes_iou3d, lambda n: (boxes(n), boxes(n, 1))),
    "nms": (lambda b, s: b[boxes_ops.nms_gpu(b, s, 0.1)[0]], lambda n: (boxes(n), noise(n))),
    "counted nms": (lambda b, s: boxes_ops.nms_counted(b, s, 0.1), lambda n: (boxes(n), noise(n))),
    "nms of the best": (lambda b, s: boxes_ops.nms_gpu(b, s, 0.1, 12)[0], lambda n: (boxes(n), noise(n))),
    "nms of rectangles": (lambda b, s: boxes_ops.nms_normal_gpu(b, s, 0.1)[0], lambda n: (boxes(n), noise(n))),
    "points_in_boxes_cpu": (roiaware.points_in_boxes_cpu, lambda n: (points(n), boxes(6))),
    "points_in_boxes_gpu": (roiaware.points_in_boxes_gpu, lambda n: (points(n, 0, 1), boxes(6, 0, 1))),
    "roiaware max": (
        lambda *given: roiaware.RoIAwarePool3d(2)(*given, pool_method="max"),
        lambda n: (boxes(5), points(n), noise(n, 4)),
    ),
    "roiaware avg": (
        lambda *given: roiaware.RoIAwarePool3d([3, 2, 1])(*given, pool_method="avg"),
        lambda n: (boxes(5), points(n), noise(n, 4)),
    ),
    "roipoint": (RoIPointPool3d(8), lambda n: (points(n, 0, 1), noise(1, n, 4), boxes(5, 0, 1))),
    "furthest_point_sample": (lambda x: points_ops.furthest_point_sample(x, 8), lambda n: (points(n, 0, 1),)),
    "ball_query": (
        lambda x, centres: points_ops.ball_query(2.0, 4, x, centres),
        lambda n: (points(n, 0, 1), points(9, 1, 1)),
    ),
    "gather": (points_ops.gather_operation, lambda n: (noise(2, 3, n), rows((2, 6), 20, torch.int32))),
    "group": (points_ops.grouping_operation, lambda n: (noise(2, 3, n), rows((2, 6, 4), 20, torch.int32))),
    "three_nn": (points_ops.three_nn, lambda n: (points(n, 0, 1), points(11, 1, 1))),
    "three_interpolate": (
        points_ops.three_interpolate,
        lambda n: (noise(2, 4, 20), rows((2, n, 3), 20, torch.int32), noise(2, n, 3)),
    ),
    "voxelize": (lambda x: voxelize(x, [0.8, 0.8, 4], [0, -20, -3, 40, 20, 1], 5, 50), lambda n: (random_cloud(n),)),
    "dynamic pillars": (dynamic_pillars, lambda n: (torch.nn.functional.pad(random_cloud(n), (1, 0)),)),
    "scatter": (lambda x, i: scatter_max(x, group_rows(i, 7)), lambda n: (noise(n, 3), rows((n,), 7))),
    "knn": (lambda q, b: knn(q, b, 4), lambda n: (noise(n, 5), noise(30, 5))),
    "knn in frames": (
        lambda q, b, of_q, of_b: knn(q, b, 4, of_q, of_b),
        lambda n: (points(n), points(30), torch.arange(n) // 20, torch.arange(30) // 20),
    ),
    "edge_conv": (described("none"), lambda n: (noise(20, 3), noise(n, 3), rows((n, 4), 20))),
    "edge_conv max": (described("max"), lambda n: (noise(20, 3), noise(n, 3), rows((n, 4), 20))),
    "edge_conv mean": (described("mean"), lambda n: (noise(20, 3), noise(n, 3), rows((n, 4), 20))),
    "edge_features": (edge_features, lambda n: (noise(20, 3), noise(n, 3), rows((n, 4), 20))),
}


def native_ops(graph):
    """Names of the ops of pcdet in a graph."""
    return {node.target._schema.name for node in graph.nodes if str(node.target).startswith("pcdet.")}


def exported(name, *examples):
    """The program of a case, in which every size that differs between the examples may vary."""
    one, other = examples
    sizes = tuple(
        {i: torch.export.Dim.DYNAMIC for i in range(a.dim()) if a.shape[i] != b.shape[i]}
        for a, b in zip(one, other, strict=True)
    )
    return torch.export.export(Call(CASES[name][0]), one, dynamic_shapes={"given": sizes})


@pytest.mark.parametrize("name", CASES)
def test_exported_program_gives_what_the_function_gives_at_any_size(device, name):
    function, arguments = CASES[name]
    examples = [tuple(x.to(device) for x in arguments(n)) for n in (40, 57)]
    if isinstance(function, nn.Module):
        function.to(device)
    program = exported(name, *examples).module()
    for given in examples:
        torch.testing.assert_close(program(*given), function(*given), rtol=0, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_function_compiles_into_one_graph(device, name):
    function, arguments = CASES[name]
    given = tuple(x.to(device) for x in arguments(40))
    if isinstance(function, nn.Module):
        function.to(device)
    torch.compiler.reset()
    found = torch.compile(Call(function), fullgraph=True, backend="aot_eager")(*given)
    torch.testing.assert_close(found, function(*given), rtol=0, atol=0)


def test_no_op_of_inference_is_left_out():
    seen = set().union(
        *(native_ops(exported(name, arguments(40), arguments(57)).graph) for name, (_, arguments) in CASES.items())
    )
    registered = {schema.name for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("pcdet::")}
    backward = {name for name in registered if name.endswith("_backward")}
    assert seen == registered - backward - {f"pcdet::{name}" for name in FOR_TRAINING_ALONE}
