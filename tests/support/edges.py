"""Seeded graphs, weights and norms for the tests of edge convolutions."""

import pytest
import torch
from torch import nn

from pcdet.ops.edge_conv import (
    edge_graph,
)

every_edge = pytest.mark.parametrize("edge", ["concat", "diff"])
every_reduction = pytest.mark.parametrize("reduce", ["none", "max", "mean"])
with_and_without_missing = pytest.mark.parametrize("missing", [False, True])


def graph(device="cpu", missing=False, base=12, centres=7, k=4, channels=5, dtype=torch.float64, seed=0):
    """x_base, x_query, idx."""
    generator = torch.Generator().manual_seed(seed)
    x_base = torch.randn(base, channels, generator=generator, dtype=dtype)
    x_query = torch.randn(centres, channels, generator=generator, dtype=dtype)
    idx = torch.randint(0, base, (centres, k), generator=generator)
    if missing:
        idx[torch.rand(idx.shape, generator=generator) < 0.4] = -1
        idx[2] = -1
    return x_base.to(device).requires_grad_(), x_query.to(device).requires_grad_(), idx.to(device)


def weights(out_channels, in_channels, device="cpu", dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(out_channels, in_channels, generator=generator, dtype=dtype).to(device).requires_grad_()


def batch_norm(channels, affine, device="cpu", dtype=torch.float64, **options):
    norm = nn.BatchNorm1d(channels, affine=affine, **options).to(device, dtype)
    if affine:  # a negative scale turns the order of the edges
        norm.weight.data = torch.linspace(-1, 2, channels, dtype=dtype, device=device)
        norm.bias.data = torch.linspace(0.5, -0.5, channels, dtype=dtype, device=device)
    return norm


def assert_all_close(found, wanted, **tolerance):
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)


def tables(device="cpu"):
    generator = torch.Generator().manual_seed(0)
    base, query, other_base, other_query = (
        torch.randn(n, 3, generator=generator, dtype=torch.float64).to(device).requires_grad_() for n in (12, 7, 12, 7)
    )
    _, _, idx = graph(device, missing=True)
    return idx, edge_graph(idx, 12), base, query, other_base, other_query
