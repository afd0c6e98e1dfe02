"""Gradients of gradients: right where an op is linear, refused by its name elsewhere, never silently incomplete."""

import pytest
import torch
from support.gradients import gradgradcheck

from pcdet.ops.edge_conv import EdgeTerms, edge_conv, edge_distance, edge_features, edge_graph, edge_sum_of_squares
from pcdet.ops.pointnet2.pointnet2_batch import pointnet2_utils as points_ops
from pcdet.ops.roiaware_pool3d.roiaware_pool3d_utils import RoIAwarePool3d
from pcdet.testing import random_boxes


def noise(*shape, seed=0, device="cpu"):
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made.to(device).requires_grad_()


def idx_of(shape, below, device="cpu"):
    return torch.randint(0, below, shape, generator=torch.Generator().manual_seed(1)).to(device)


def norm_free_moments(base, query):
    table = edge_graph(idx_of((7, 4), 12, base.device), 12)
    return torch.ops.pcdet.edge_moments(base, query, table.idx, table.start, table.edge)[1]


def pooled(method):
    def pool(features, _):
        xyz = noise(40, 3, seed=5, device=features.device).detach()
        rois = random_boxes(3, features.device, extent=1, dtype=torch.float64)
        return RoIAwarePool3d(2)(rois, xyz, features, method)

    return pool


def relu_distance(base, query):
    graph = edge_graph(idx_of((7, 4), 12, base.device), 12)
    return edge_distance(EdgeTerms(base, query, True), EdgeTerms(query[:1].expand(12, 3), base[:7]), graph)


# op -> a function of base (12, 3) and query (7, 3), or of features (40, 3), that takes it
ONCE = {
    "edge_gather": lambda b, q: edge_features(b, q, idx_of((7, 4), 12, b.device)),
    "edge_sum": lambda b, q: edge_conv(
        b, q, idx_of((7, 4), 12, b.device), noise(3, 6, device=b.device), activation=torch.relu, reduce="mean"
    ),
    "edge_moments": norm_free_moments,
    "edge_distance": relu_distance,
    "edge_distance of one side": lambda b, q: edge_sum_of_squares(b, q, idx_of((7, 4), 12, b.device)),
    "roiaware_pool3d max": pooled("max"),
    "roiaware_pool3d avg": pooled("avg"),
}


# Pooling has one differentiable input, the others two.
SIDES = [(name, side) for name in ONCE for side in ((0,) if name.startswith("roiaware") else (0, 1))]


@pytest.mark.parametrize(("name", "side"), SIDES)
def test_a_gradient_of_a_gradient_is_refused_whichever_way_it_is_asked_for(device, name, side):
    pools = name.startswith("roiaware")
    inputs = [noise(40 if pools else 12, 3, device=device), noise(7, 3, seed=1, device=device)]
    out = ONCE[name](*inputs)
    (first,) = torch.autograd.grad(out.square().sum(), inputs[side], create_graph=True)
    message = f"pcdet::{name.split()[0]} can be differentiated once"
    with pytest.raises(NotImplementedError, match=message):
        torch.autograd.grad(first.square().sum(), inputs[side], retain_graph=True)
    with pytest.raises(NotImplementedError, match=message):  # as a penalty beside a term that is right
        torch.autograd.grad(inputs[side].sum() + first.square().sum(), inputs[side], retain_graph=True)
    with pytest.raises(NotImplementedError, match=message):
        (out.sum() + first.square().sum()).backward()


@pytest.mark.parametrize("name", ONCE)
def test_a_first_gradient_is_the_same_where_a_graph_of_it_is_kept(device, name):
    inputs = [noise(40 if name.startswith("roiaware") else 12, 3, device=device), noise(7, 3, seed=1, device=device)]
    loss = ONCE[name](*inputs).square().sum()
    (kept,) = torch.autograd.grad(loss, inputs[0], create_graph=True)
    (plain,) = torch.autograd.grad(loss, inputs[0])
    assert kept.requires_grad and torch.allclose(kept.detach(), plain, rtol=1e-12, atol=1e-12)


def test_gathering_can_be_differentiated_again(device):
    idx = idx_of((2, 5), 6, device)
    features = noise(2, 3, 6, device=device)
    assert gradgradcheck(lambda x: points_ops.gather_operation(x, idx).sin(), (features,))
    groups = idx_of((2, 4, 3), 6, device)
    assert gradgradcheck(lambda x: points_ops.grouping_operation(x, groups).sin(), (features,))


def test_interpolation_can_be_differentiated_again(device):
    idx = idx_of((2, 4, 3), 6, device)
    features, weight = noise(2, 3, 6, device=device), noise(2, 4, 3, seed=1, device=device)
    assert gradgradcheck(lambda x, w: points_ops.three_interpolate(x, idx, w).sin(), (features, weight))
