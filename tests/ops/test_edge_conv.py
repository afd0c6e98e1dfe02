"""Edge convolution against the readable version: values, gradients, and neighbours that are missing."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pcdet.ops.edge_conv import edge_conv, edge_features, edge_sum_of_squares, reference


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


@pytest.mark.parametrize("edge", ["concat", "diff"])
@pytest.mark.parametrize("reduce", ["none", "max", "mean"])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_values_and_gradients_equal_the_reference(edge, reduce, missing, norm):
    x_base, x_query, idx = graph(missing=missing)
    weight = torch.randn(3, 10, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    results = []
    for function in (edge_conv, reference.edge_conv):
        batch_norm = nn.BatchNorm1d(3).double() if norm else None
        out = function(
            x_base, x_query, idx, weight, bias, edge=edge, norm=batch_norm, activation=torch.relu, reduce=reduce
        )
        gradients = torch.autograd.grad(out.square().sum(), [x_base, x_query, weight, bias])
        statistics = [batch_norm.running_mean, batch_norm.running_var] if norm else []
        results.append([out, *gradients, *statistics])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_gradients_are_those_of_the_values():
    x_base, x_query, idx = graph(missing=True)
    weight = torch.randn(2, 10, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda b, q, w: edge_conv(b, q, idx, w, activation=torch.tanh, reduce="mean"), (x_base, x_query, weight)
    )
    assert torch.autograd.gradcheck(lambda b, q: edge_sum_of_squares(b, q, idx), (x_base, x_query))


@pytest.mark.parametrize("edge", ["concat", "diff"])
@pytest.mark.parametrize("reduce", ["none", "max", "mean"])
@pytest.mark.parametrize("missing", [False, True])
def test_edges_themselves_are_what_an_identity_weight_gives(edge, reduce, missing):
    x_base, x_query, idx = graph(missing=missing)
    identity = torch.eye(10, dtype=torch.float64)
    given = edge_features(x_base, x_query, idx, edge=edge, reduce=reduce)
    torch.testing.assert_close(given, edge_conv(x_base, x_query, idx, identity, edge=edge, reduce=reduce))


@pytest.mark.parametrize("missing", [False, True])
def test_sum_of_squares_equals_the_reference(device, missing):
    x_base, x_query, idx = graph(device, missing=missing)
    given = edge_sum_of_squares(x_base, x_query, idx)
    wanted = reference.edge_sum_of_squares(x_base, x_query, idx)
    torch.testing.assert_close(given, wanted, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(
        torch.autograd.grad(given.square().sum(), [x_base, x_query]),
        torch.autograd.grad(wanted.square().sum(), [x_base, x_query]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_missing_neighbours_take_no_part_in_batch_statistics():
    x_base, x_query, idx = graph(missing=True)
    seen = []
    edge_conv(x_base, x_query, idx, torch.randn(3, 10).double(), norm=lambda edges: seen.append(len(edges)) or edges)
    assert seen == [int((idx >= 0).sum())]


@pytest.mark.parametrize("base, centres, k", [(0, 0, 4), (5, 0, 4), (0, 3, 4), (5, 3, 0)])
def test_empty_graphs_give_empty_or_zero(base, centres, k):
    x_base, x_query = torch.randn(base, 5, requires_grad=True), torch.randn(centres, 5, requires_grad=True)
    idx = torch.full((centres, k), -1)
    weight = torch.randn(3, 10)
    norm = nn.BatchNorm1d(3)
    assert edge_conv(x_base, x_query, idx, weight, norm=norm).shape == (centres, k, 3)
    for reduce in ("max", "mean"):
        out = edge_conv(x_base, x_query, idx, weight, norm=norm, reduce=reduce)
        assert out.shape == (centres, 3) and float(out.detach().abs().sum()) == 0
    assert edge_sum_of_squares(x_base, x_query, idx).tolist() == [0] * centres


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x_query": torch.zeros(3, 6)}, r"shapes \(M, C\) and \(G, C\), got \[4, 5\] and \[3, 6\]"),
        ({"idx": torch.zeros(2, 2).long()}, r"idx must have shape \(3, K\)"),
        ({"idx": torch.zeros(3, 2)}, "dtype int64"),
        ({"weight": torch.zeros(2, 5)}, r"weight must have shape \(C', 10\)"),
        ({"edge": "sum"}, "edge must be one of concat, diff, got 'sum'"),
        ({"reduce": "min"}, "reduce must be one of none, max, mean, got 'min'"),
    ],
)
def test_wrong_input_is_named(change, message):
    given = {
        "x_base": torch.zeros(4, 5),
        "x_query": torch.zeros(3, 5),
        "idx": torch.zeros(3, 2).long(),
        "weight": torch.zeros(2, 10),
    }
    with pytest.raises(ValueError, match=message):
        edge_conv(**(given | change))


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(t, torch.Tensor)]
        self.elements = max([self.elements, *(t.numel() for t in tensors)])
        return out


def test_no_tensor_holds_the_edges_inputs():
    x_base, x_query, idx = graph(base=100, centres=50, k=20, channels=64)
    with LargestTensor() as largest:
        edge_conv(x_base, x_query, idx, torch.randn(4, 128).double()).sum().backward()
    assert largest.elements < 50 * 20 * 128 / 4
    with LargestTensor() as largest:
        edge_sum_of_squares(x_base, x_query, idx).sum().backward()
    assert largest.elements < 50 * 20 * 64 / 4
