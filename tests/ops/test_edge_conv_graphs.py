"""Sorted graphs of edges, and what PyTorch sees of the ops: registration, compilation, memory, waits."""

import os
import shutil

import pytest
import torch
from support.edges import assert_all_close, batch_norm, graph, tables, weights
from support.opcheck import opcheck
from torch.utils._python_dispatch import TorchDispatchMode

from pcdet.ops.edge_conv import (
    edge_conv,
    edge_distance,
    edge_graph,
    linear_terms,
    normed,
)


def test_a_sorted_graph_lists_every_edge_at_its_base_row_once(device):
    _, _, idx = graph(device, missing=True, base=9, centres=40, k=7)
    narrow, degree, start, edge, _ = edge_graph(idx, 9)
    flat, start, edge = idx.flatten().tolist(), start.tolist(), edge.tolist()
    assert degree.tolist() == (idx >= 0).sum(1).tolist() and narrow.dtype == torch.int32
    for j in range(9):
        assert sorted(edge[start[j] : start[j + 1]]) == [e for e, given in enumerate(flat) if given == j]
    assert set(edge[start[9] :]) == {-1}


def test_tables_that_lie_reach_no_memory_of_others(device):
    x_base, x_query, _ = graph(device)
    idx = torch.tensor([[99, -7, 3, 2**31 - 1]] * 7, dtype=torch.int32, device=device)
    start = torch.tensor([-5] + [10**6] * 12, dtype=torch.int32, device=device)
    edge = torch.full((28,), 10**6, dtype=torch.int32, device=device)
    distance, slope, _ = torch.ops.pcdet.edge_distance(x_base, x_query, None, None, idx, start, edge, False, False)
    torch.testing.assert_close(distance, (x_base[3] + x_query).square().sum(1))
    torch.autograd.grad(distance.sum(), [x_base, x_query])
    assert torch.ops.pcdet.edge_argmax(x_base, idx).unique().tolist() == [3]


def test_negative_entries_of_a_sorted_graph_are_no_edges(device):
    x_base, x_query, idx = (x.detach() for x in graph(device))
    start = torch.tensor([0, 4] + [4] * 11, dtype=torch.int32, device=device)  # the first base row has four edges
    edge = torch.full((28,), -1, dtype=torch.int32, device=device)
    edge[:4] = torch.tensor([-1, -3, -(2**31), 9])  # of which one exists: of centre 9 // 4
    summed = torch.ops.pcdet.edge_sum_backward(x_query, x_base, x_query, idx.int(), start, edge, False)
    wanted = torch.zeros_like(x_base)
    wanted[0] = x_query[2]
    torch.testing.assert_close(summed, wanted, rtol=0, atol=0)
    weight = torch.ones(7, dtype=x_base.dtype, device=device)
    slope, _ = torch.ops.pcdet.edge_distance_backward(
        weight, x_base, x_query, None, None, idx.int(), start, edge, False, False, False
    )
    wanted[0] += x_base[0]
    torch.testing.assert_close(slope, wanted)


def test_ops_are_registered_soundly(device):
    idx, (narrow, _, start, edge, _), base, query, other_base, other_query = tables(device)
    cases = {
        "edge_index": [(idx, 12)],
        "edge_transpose": [(narrow, 12)],
        "edge_gather": [(base, query, narrow, start, edge, True), (base, query, narrow, None, None, False)],
        "edge_argmax": [(base, narrow)],
        "edge_sum": [(base, query, narrow, start, edge, True)],
        "edge_moments": [(base, query, narrow, start, edge)],
        "edge_distance": [
            (base, query, other_base, other_query, narrow, start, edge, True, True),
            (base, query, other_base.detach(), other_query.detach(), narrow, None, None, True, False),
            (base, query, None, None, narrow, start, edge, False, False),
        ],
    }
    plain = [x.detach() for x in (base, query, other_base, other_query)]
    edges, weight = torch.rand(*idx.shape, 3, dtype=base.dtype, device=device), torch.rand_like(plain[1][:, 0])
    cases["edge_gather_backward"] = [(edges, *plain[:2], narrow, start, edge, True)]
    cases["edge_sum_backward"] = [(plain[1], *plain[:2], narrow, start, edge, True)]
    cases["edge_distance_backward"] = [
        (weight, *plain, narrow, start, edge, True, True, True),
        (weight, *plain[:2], None, None, narrow, start, edge, False, False, False),
    ]
    torch.use_deterministic_algorithms(True)  # opcheck compares two runs, and a GPU's threads place edges in any order
    try:
        for name, arguments in cases.items():
            for given in arguments:
                opcheck(getattr(torch.ops.pcdet, name).default, given)
    finally:
        torch.use_deterministic_algorithms(False)


def criterion_of_edges(device):
    """(x_base, x_query, idx, matrix, norm, criterion): the distance of a normed edge convolution from a fixed one."""
    x_base, x_query, idx = graph(device, missing=True, dtype=torch.float32)
    y_base, y_query, _ = graph(device, dtype=torch.float32, seed=3)
    matrix, other = weights(4, 10, device, torch.float32), weights(4, 10, device, torch.float32, seed=5)
    norm = batch_norm(4, True, device, torch.float32)

    def criterion(x_base, x_query, idx):
        together = edge_graph(idx, len(x_base))
        given = normed(linear_terms(x_base, x_query, matrix), together, norm)._replace(relu=True)
        wanted = linear_terms(y_base.detach(), y_query.detach(), other.detach())
        return edge_distance(given, wanted, together)

    return x_base, x_query, idx, matrix, norm, criterion


@pytest.mark.slow
def test_the_whole_can_be_compiled_as_one_graph(device):
    x_base, x_query, idx, matrix, norm, distance = criterion_of_edges(device)

    def criterion(x_base, x_query, idx):
        together = edge_graph(idx, len(x_base))
        pooled = [edge_conv(x_base, x_query, together, matrix, reduce=how).sum() for how in ("none", "max", "mean")]
        return distance(x_base, x_query, idx).sum() + sum(pooled)

    plain, seen = criterion(x_base, x_query, idx), norm.running_var.clone()
    norm.reset_running_stats()
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")(x_base, x_query, idx)
    assert_all_close([compiled, norm.running_var], [plain, seen])
    assert_all_close(
        torch.autograd.grad(compiled, [x_base, x_query]),
        torch.autograd.grad(plain, [x_base, x_query]),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.slow
@pytest.mark.card("Inductor writes no code for the emulated device")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # raised where Inductor is imported
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="Inductor needs a C++ compiler")
def test_the_criterion_runs_in_code_of_inductors(device):
    x_base, x_query, idx, matrix, norm, criterion = criterion_of_edges(device)
    results = []
    for call in (criterion, torch.compile(criterion, fullgraph=True, backend="inductor")):
        norm.reset_running_stats()
        distance = call(x_base, x_query, idx)
        gradients = torch.autograd.grad(distance.sum(), [x_base, x_query, matrix, norm.weight])
        results.append([distance.detach(), *gradients, norm.running_var.clone()])
    assert_all_close(*results, rtol=1e-4, atol=1e-4)


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any tensor made inside had."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (list, tuple)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_no_tensor_holds_edges_unless_they_are_asked_for():
    x_base, x_query, idx = graph(base=200, centres=100, k=50, channels=64)
    sides = [weights(40, 128), weights(40, 128, seed=2)]
    with LargestTensor() as largest:
        together = edge_graph(idx, 200)
        terms = [normed(linear_terms(x_base, x_query, w), together, batch_norm(40, True)) for w in sides]
        edge_distance(*(t._replace(relu=True) for t in terms), together).sum().backward()
        for reduce in ("max", "mean"):
            norm = batch_norm(40, True)
            edge_conv(x_base, x_query, idx, sides[0], norm=norm, activation=torch.relu, reduce=reduce).sum().backward()
    assert largest.elements <= 200 * 64  # the rows; 100 * 50 * 40 = 200,000 would be edges
    with LargestTensor() as largest:
        edge_conv(x_base, x_query, idx, weights(4, 128)).sum().backward()
    assert largest.elements <= 100 * 50 * 4  # the result; its inputs would be 100 * 50 * 128


class WaitsForNumberOfEdges(TorchDispatchMode):
    """Counts the calls for which the host must know how many edges exist: on a GPU it waits for the device there."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masks = func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put) and any(
            part is not None and part.dtype == torch.bool for part in args[1]
        )
        self.count += masks or func.overloadpacket in (torch.ops.aten.nonzero, torch.ops.aten._local_scalar_dense)
        return func(*args, **(kwargs or {}))


def test_a_norm_of_the_callers_waits_for_the_number_of_edges_once():
    x_base, x_query, idx = graph(missing=True)
    together = edge_graph(idx, 12)
    with WaitsForNumberOfEdges() as waits:
        edge_conv(x_base, x_query, together, weights(3, 10), norm=lambda edges: edges * 2)
    assert waits.count == 1
