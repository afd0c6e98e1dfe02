"""Edge convolutions of strange input: empty graphs, values that are not finite, wrong tables."""

import math

import pytest
import torch
from support.edges import (
    assert_all_close,
    batch_norm,
    every_reduction,
    graph,
    tables,
    weights,
)
from torch import nn

from pcdet.ops.edge_conv import (
    EdgeTerms,
    edge_conv,
    edge_distance,
    edge_features,
    edge_graph,
    edge_sum_of_squares,
    some_edges,
)


@pytest.mark.parametrize("base, centres, k", [(0, 0, 4), (5, 0, 4), (0, 3, 4), (5, 3, 0), (5, 3, 4)])
def test_graphs_without_edges_give_empty_or_zero(device, base, centres, k):
    x_base, x_query = (torch.randn(n, 5, device=device, requires_grad=True) for n in (base, centres))
    idx = torch.full((centres, k), -1, device=device)
    weight = torch.randn(3, 10, device=device, requires_grad=True)
    norm = nn.BatchNorm1d(3).to(device)
    for kind in (None, norm):
        out = edge_conv(x_base, x_query, idx, weight, norm=kind, activation=torch.relu)
        assert out.shape == (centres, k, 3) and float(out.detach().abs().sum()) == 0
        for reduce in ("max", "mean"):
            out = edge_conv(x_base, x_query, idx, weight, norm=kind, reduce=reduce)
            assert out.shape == (centres, 3) and float(out.detach().abs().sum()) == 0
            out.sum().backward()
            assert float(x_base.grad.abs().sum() + x_query.grad.abs().sum() + weight.grad.abs().sum()) == 0
    assert edge_sum_of_squares(x_base, x_query, idx).tolist() == [0] * centres
    assert norm.running_mean.tolist() == [0] * 3 and int(norm.num_batches_tracked) == 0


def test_one_row_is_its_own_neighbour(device):
    x = torch.randn(1, 5, device=device)
    out = edge_conv(x, x, torch.zeros(1, 1, dtype=torch.int64, device=device), torch.eye(10, device=device))
    torch.testing.assert_close(out, torch.cat([x, x], dim=1)[None])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_spreads_to_its_own_edges_alone(device, value):
    x_base, x_query, idx = graph(device, centres=6)
    idx = idx % 11
    idx[0, 1] = 11
    with torch.no_grad():
        x_base[11] = value
    touched = torch.zeros(6, dtype=torch.bool, device=device)
    touched[0] = True
    for reduce in ("none", "max", "mean"):
        out = edge_conv(x_base, x_query, idx, weights(3, 10, device), activation=torch.relu, reduce=reduce)
        bad = ~out.flatten(1).isfinite()
        assert not bool(bad[~touched].any())
        assert bool(bad[touched].any())
    distance = edge_distance(
        EdgeTerms(x_base, x_query, True), EdgeTerms(x_base + 1, x_query, True), edge_graph(idx, 12)
    )
    assert torch.equal(distance.isnan(), touched)


def test_rows_in_no_edge_change_no_result_whatever_they_hold(device):
    x_base, x_query, idx = graph(device, missing=True)
    x_base, x_query, idx = x_base.detach(), x_query.detach(), idx.clamp(max=10)
    weight, norms = weights(3, 10, device), [batch_norm(3, True, device) for _ in range(2)]
    plain = edge_conv(x_base, x_query, idx, weight, norm=norms[0], activation=torch.relu)
    x_base[11], x_query[2] = math.nan, math.nan
    assert torch.equal(edge_conv(x_base, x_query, idx, weight, norm=norms[1], activation=torch.relu), plain)
    assert_all_close(norms[1].buffers(), norms[0].buffers(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x_query": torch.zeros(3, 6)}, r"shapes \(M, C\) and \(G, C\), got \[4, 5\] and \[3, 6\]"),
        ({"idx": torch.zeros(2, 2).long()}, r"idx must have shape \(3, K\)"),
        ({"idx": torch.zeros(3, 2)}, "dtype int64"),
        ({"idx": torch.full((3, 2), 4)}, r"idx must lie in \[0, 4\) or be -1 for a missing neighbour, got 4"),
        ({"idx": torch.full((3, 2), -2)}, r"idx must lie in \[0, 4\) or be -1 for a missing neighbour, got -2"),
        ({"idx": torch.full((3, 2), 2**40)}, "got 1099511627776"),
        ({"weight": torch.zeros(2, 5)}, r"weight must have shape \(C', 10\)"),
        (
            {"weight": torch.zeros(2, 10).double()},
            r"weight must match x_base \(torch.float32 on .*\), got torch.float64",
        ),
        ({"x_query": torch.zeros(3, 5).double()}, r"x_query must match x_base \(torch.float32 .*\), got torch.float64"),
        ({"x_base": torch.zeros(4, 5).long()}, "x_base must be a floating-point tensor, got torch.int64"),
        ({"bias": torch.zeros(1)}, r"bias must have shape \(2,\) like the rows of weight, got \[1\]"),
        ({"bias": torch.zeros(3, 2)}, r"bias must have shape \(2,\) like the rows of weight, got \[3, 2\]"),
        ({"bias": torch.zeros(2).double()}, r"bias must match x_base \(torch.float32 on .*\), got torch.float64"),
        ({"norm": nn.BatchNorm1d(1).eval()}, "norm must have as many features as edges have channels, 2, got 1"),
        ({"norm": nn.BatchNorm1d(1), "activation": torch.tanh}, "norm must have as many features .* 2, got 1"),
        ({"edge": "sum"}, "edge must be one of concat, diff, got 'sum'"),
        ({"reduce": "min"}, "reduce must be one of none, max, mean, got 'min'"),
    ],
)
def test_wrong_input_is_named(device, change, message):
    given = {
        "x_base": torch.zeros(4, 5),
        "x_query": torch.zeros(3, 5),
        "idx": torch.zeros(3, 2).long(),
        "weight": torch.zeros(2, 10),
    }
    given = {k: v.to(device) if torch.is_tensor(v) else v for k, v in (given | change).items()}
    with pytest.raises(ValueError, match=message):
        edge_conv(**given)


@every_reduction
@pytest.mark.parametrize("base, centres", [(12, 1), (12, 6), (5, 7), (13, 7)])
def test_rows_that_a_graph_does_not_join_are_named(device, reduce, base, centres):
    x_base, x_query, idx = graph(device)
    given = edge_graph(idx, 12, gradients=False)
    rows = x_base.repeat(2, 1)[:base], x_query[:centres]
    message = f"must have the 12 and 7 rows that the graph joins, got {base} and {centres}"
    norm = batch_norm(3, True, device)
    for call in (
        lambda: edge_conv(*rows, given, weights(3, 10, device), reduce=reduce),
        lambda: edge_conv(*rows, given, weights(3, 10, device), norm=norm, reduce=reduce),
        lambda: edge_features(*rows, given, reduce=reduce),
        lambda: some_edges(EdgeTerms(*rows), given, torch.zeros(1, dtype=torch.int64, device=device)),
        lambda: edge_sum_of_squares(*rows, given),
        lambda: edge_distance(EdgeTerms(x_base, x_query), EdgeTerms(*rows), given),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert int(norm.num_batches_tracked) == 0


@pytest.mark.parametrize("relu", [False, True])
def test_sides_of_different_widths_are_not_compared(device, relu):
    x_base, x_query, idx = graph(device)
    with pytest.raises(ValueError, match="both sides' edges must have as many channels, got 5 and 1"):
        edge_distance(EdgeTerms(x_base, x_query, relu), EdgeTerms(x_base[:, :1], x_query[:, :1]), edge_graph(idx, 12))


def test_a_norm_of_another_width_is_left_as_it_was():
    x_base, x_query, idx = graph()
    norm = nn.BatchNorm1d(4).double()
    with pytest.raises(ValueError, match="norm must have as many features as edges have channels, 3, got 4"):
        edge_conv(x_base, x_query, idx, weights(3, 10), norm=norm)
    assert int(norm.num_batches_tracked) == 0 and norm.running_mean.tolist() == [0] * 4


def test_wrong_tables_are_named():
    ops = torch.ops.pcdet
    idx, (narrow, _, start, edge, _), base, query, other_base, _ = tables()
    rest = None, None, narrow, start, edge, False, False
    for call, message in [
        (lambda: edge_graph(idx.int(), 12), r"idx must have shape \(G, K\) and dtype int64, got \[7, 4\], Int"),
        (lambda: edge_graph(idx, -1), "fewer than 2\\^31 rows, got 28 and -1"),
        (lambda: ops.edge_transpose(narrow, -1), r"num_base must lie in \[0, 2\^31 - 1\), got -1"),
        (lambda: ops.edge_distance(base.int(), query, *rest), "base must be float32 or float64, got Int"),
        (lambda: ops.edge_distance(base, query.float(), *rest), "query must match base"),
        (
            lambda: ops.edge_distance(base, query[:, :2], *rest),
            r"base and query must have shapes \(M, C\) and \(G, C\)",
        ),
        (lambda: ops.edge_distance(base, query[:3], *rest), "idx must have one row for each of the 3 rows of query"),
        (lambda: ops.edge_distance(base, query, None, None, idx, *rest[3:]), "idx must have shape .* dtype int32"),
        (lambda: ops.edge_distance(base, query, other_base, None, *rest[2:]), "given together or not at all"),
        (lambda: ops.edge_distance(base, query, base[1:], query, *rest[2:]), "both sides must have the same shapes"),
        (lambda: ops.edge_argmax(base[0], narrow), r"base must have shape \(M, C\), got \[3\]"),
        (lambda: ops.edge_sum_backward(query, base, query, narrow, start[1:], edge, False), "as edge_transpose gives"),
        (lambda: ops.edge_sum_backward(query, base, query, narrow, start.long(), edge, False), "must be int32 on cpu"),
        (lambda: ops.edge_sum_backward(base, base, query, narrow, start, edge, False), "grad must have shape"),
        (lambda: ops.edge_gather_backward(query, base, query, narrow, start, edge, False), "grad must have shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.gpu
def test_devices_must_agree(gpu):
    x_base, x_query, idx = graph(gpu)
    with pytest.raises(ValueError, match=f"idx must have shape .* be on {gpu}, got .* on cpu"):
        edge_sum_of_squares(x_base, x_query, edge_graph(idx.cpu(), 12))
