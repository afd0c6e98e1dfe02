"""Edge convolution and its criterion against the readable version: values, gradients, missing neighbours."""

import math
import os
import shutil

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pcdet.ops.edge_conv import (
    EdgeTerms,
    edge_conv,
    edge_distance,
    edge_features,
    edge_graph,
    edge_sum_of_squares,
    linear_terms,
    normed,
    reference,
    some_edges,
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


# ---------------------------------------------------------------------------------------------------- ordinary use


@every_edge
@every_reduction
@with_and_without_missing
@pytest.mark.parametrize("norm", ["none", "plain", "affine", "called"])
@pytest.mark.parametrize("activation", [None, torch.relu, torch.tanh])
def test_values_gradients_and_statistics_equal_the_reference(device, edge, reduce, missing, norm, activation):
    x_base, x_query, idx = graph(device, missing)
    weight, bias = weights(3, 10, device), weights(1, 3, device, seed=2)[0]
    results = []
    for function in (edge_conv, reference.edge_conv):
        norms = None if norm == "none" else batch_norm(3, norm == "affine", device)
        called = (lambda edges, norms=norms: norms(edges)) if norm == "called" else norms
        out = function(x_base, x_query, idx, weight, bias, edge=edge, norm=called, activation=activation, reduce=reduce)
        inputs = [x_base, x_query, weight, *(norms.parameters() if norm == "affine" else [])]
        gradients = torch.autograd.grad(
            (out * torch.arange(out.numel(), device=device).view_as(out).sin()).sum(), inputs
        )
        results.append([out, *gradients, *(norms.buffers() if norms else [])])
    assert_all_close(*results, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("channels, out_channels", [(1, 1), (3, 16), (16, 33), (40, 32), (7, 130)])
@every_reduction
def test_single_precision_is_as_close_to_the_truth_as_pytorch(device, channels, out_channels, reduce):
    x_base, x_query, idx = graph(device, True, 300, 50, 21, channels, torch.float32)
    weight = weights(out_channels, 2 * channels, device, torch.float32)

    def results(function, dtype):
        given = [x.detach().to(dtype).requires_grad_() for x in (x_base, x_query, weight)]
        norm = batch_norm(out_channels, True, device, dtype)
        out = function(given[0], given[1], idx, given[2], norm=norm, activation=torch.relu, reduce=reduce)
        return [out, *torch.autograd.grad(out.square().mean(), given)]

    truth = results(reference.edge_conv, torch.float64)
    for ours, theirs, true in zip(
        results(edge_conv, torch.float32), results(reference.edge_conv, torch.float32), truth, strict=True
    ):
        error, usual = ((x.double() - true).abs().max() for x in (ours, theirs))
        assert error <= 2 * usual + 1e-6 * true.abs().max()


@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"momentum": 0.3}, {"track_running_stats": False}])
def test_statistics_follow_batch_norm_over_several_steps_and_in_eval_mode(options):
    x_base, x_query, idx = graph(missing=True)
    weight = weights(3, 10)
    ours, theirs = batch_norm(3, True, **options), batch_norm(3, True, **options)
    for step in range(3):
        inputs = x_base * (step + 1), x_query - step, idx, weight
        assert_all_close([edge_conv(*inputs, norm=ours)], [reference.edge_conv(*inputs, norm=theirs)])
    assert_all_close(ours.buffers(), theirs.buffers())
    ours.eval(), theirs.eval()
    inputs = x_base, x_query, idx, weight
    assert_all_close([edge_conv(*inputs, norm=ours)], [reference.edge_conv(*inputs, norm=theirs)])
    assert_all_close(ours.buffers(), theirs.buffers())


def test_statistics_keep_their_precision_far_from_zero():
    x_base, x_query, idx = graph(base=100, centres=80, k=16, dtype=torch.float32)
    terms = EdgeTerms(x_base.detach() + 3000, x_query.detach() - 1000)
    graph_of = edge_graph(idx, 100)
    mean, variance, _, _ = torch.ops.pcdet.edge_moments(*terms[:2], graph_of.idx, None, None)
    edges = (terms.base.double()[idx] + terms.query.double()[:, None]).flatten(0, 1)
    torch.testing.assert_close(mean.double(), edges.mean(0), rtol=1e-6, atol=0)
    torch.testing.assert_close(variance.double(), edges.var(0, unbiased=False), rtol=1e-4, atol=0)


def test_a_centre_without_neighbours_takes_no_part_in_the_statistics_whatever_its_row_holds(device):
    x_base, x_query, idx = graph(device, missing=True)
    rows = x_base.detach(), x_query.detach().clone()
    table = edge_graph(idx, 12).idx
    wanted = torch.ops.pcdet.edge_moments(*rows, table, None, None)
    rows[1][2] = math.nan  # which graph() leaves without neighbours
    assert_all_close(torch.ops.pcdet.edge_moments(*rows, table, None, None), wanted, rtol=0, atol=0)


def test_one_edge_is_normed_by_running_statistics_and_leaves_them_alone(device):
    norm = batch_norm(6, True, device, torch.float32)
    norm.running_mean.fill_(0.5)
    idx = torch.tensor([[0, -1]], device=device)
    inputs = torch.randn(1, 4, device=device), torch.randn(1, 4, device=device), idx, torch.randn(6, 8, device=device)
    out = edge_conv(*inputs, norm=norm)
    assert norm.running_mean.tolist() == [0.5] * 6 and int(norm.num_batches_tracked) == 0
    torch.testing.assert_close(out, edge_conv(*inputs, norm=norm.eval()))


def test_gradients_are_those_of_the_values(device):
    x_base, x_query, idx = graph(device, missing=True, base=6, centres=4, k=3, channels=2)
    weight = weights(3, 4, device)
    for reduce in ("none", "max", "mean"):
        assert torch.autograd.gradcheck(
            lambda *inputs, how=reduce: edge_conv(
                inputs[0], inputs[1], idx, inputs[2], norm=nn.BatchNorm1d(3), activation=torch.relu, reduce=how
            ),
            (x_base, x_query, weight),
        )
    assert torch.autograd.gradcheck(lambda b, q: edge_conv(b, q, idx, weight, activation=torch.tanh), (x_base, x_query))


@every_edge
@every_reduction
@with_and_without_missing
def test_edges_themselves_are_what_an_identity_weight_gives(device, edge, reduce, missing):
    x_base, x_query, idx = graph(device, missing)
    given = edge_features(x_base, x_query, idx, edge=edge, reduce=reduce)
    torch.testing.assert_close(given, reference.edge_conv(x_base, x_query, idx, edge=edge, reduce=reduce))


def test_of_equal_neighbours_the_first_gets_the_gradient(device):
    x_base = torch.ones(4, 1, device=device, requires_grad=True)
    idx = torch.tensor([[2, 1, 3]], device=device)
    edge_features(x_base, torch.zeros(1, 1, device=device), idx, reduce="max")[:, 0].sum().backward()
    assert x_base.grad.flatten().tolist() == [0, 0, 1, 0]


def test_missing_neighbours_take_no_part_in_what_a_norm_of_the_callers_sees():
    x_base, x_query, idx = graph(missing=True)
    seen = []
    edge_conv(x_base, x_query, idx, weights(3, 10), norm=lambda edges: seen.append(len(edges)) or edges)
    assert seen == [int((idx >= 0).sum())]


def test_half_precision_is_computed_in_single(device):
    x_base, x_query, idx = graph(device)
    halves = [x.detach().bfloat16().requires_grad_() for x in (x_base, x_query, weights(3, 10, device))]
    out = edge_conv(halves[0], halves[1], idx, halves[2], activation=torch.relu)
    wanted = reference.edge_conv(halves[0].float(), halves[1].float(), idx, halves[2].float(), activation=torch.relu)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, wanted)
    out.sum().backward()
    assert halves[0].grad.dtype == torch.bfloat16
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert edge_conv(x_base.float(), x_query.float(), idx, weights(3, 10, device).float()).dtype == torch.float32


def test_views_are_read_as_they_are(device):
    x_base, x_query, idx = graph(device, channels=10, k=8)
    views = x_base[::2, ::2], x_query[:, :5], idx[:, ::2] // 2
    weight = weights(6, 20, device)[::2, ::2]
    out = edge_conv(*views, weight, activation=torch.relu)
    torch.testing.assert_close(out, reference.edge_conv(*views, weight, activation=torch.relu))
    tables = EdgeTerms(x_base[:, ::2], x_query[:, ::2])
    wanted = reference.edge_sum_of_squares(*tables[:2], idx)
    torch.testing.assert_close(edge_sum_of_squares(*tables[:2], idx.T.contiguous().T), wanted)


# ---------------------------------------------------------------------------------------------------- the criterion


@every_edge
@with_and_without_missing
@pytest.mark.parametrize("relus", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("norms", ["none", "plain", "affine"])
def test_distances_and_all_their_gradients_equal_the_reference(device, edge, missing, relus, norms):
    x_base, x_query, idx = graph(device, missing)
    y_base, y_query, _ = graph(device, channels=3, seed=3)
    weight = torch.rand(7, dtype=torch.float64, device=device)
    sides = [(x_base, x_query, weights(4, 10, device)), (y_base, y_query, weights(4, 6, device, seed=5))]
    results = []
    for ours in (True, False):
        together = edge_graph(idx, 12)
        described, parameters = [], []
        for (base, query, matrix), relu in zip(sides, relus, strict=True):
            norm = None if norms == "none" else batch_norm(4, norms == "affine", device)
            if ours:
                terms = linear_terms(base, query, matrix, edge=edge)
                terms = terms if norm is None else normed(terms, together, norm)
                described.append(terms._replace(relu=relu))
            else:
                act = torch.relu if relu else None
                described.append(reference.edge_conv(base, query, idx, matrix, edge=edge, norm=norm, activation=act))
            parameters += [base, query, matrix, *(norm.parameters() if norms == "affine" else [])]
        distance = edge_distance(*described, together) if ours else reference.edge_distance(*described)
        results.append([distance, *torch.autograd.grad((weight * distance).sum(), parameters)])
    assert_all_close(*results, rtol=1e-8, atol=1e-8)


def test_distances_in_single_precision_are_as_close_to_the_truth_as_pytorch(device):
    x_base, x_query, idx = graph(device, True, 400, 100, 40, 24, torch.float32)
    y_base, y_query, _ = graph(device, False, 400, 100, 40, 48, torch.float32, seed=3)
    matrices = weights(32, 48, device, torch.float32), weights(32, 96, device, torch.float32, seed=5)

    def results(ours, dtype):
        norms = [batch_norm(32, True, device, dtype) for _ in range(2)]
        inputs = [x.detach().to(dtype).requires_grad_() for x in (x_base, x_query, matrices[0])]
        others = [x.detach().to(dtype) for x in (y_base, y_query, matrices[1])]
        if ours:
            together = edge_graph(idx, 400)
            sides = [
                normed(linear_terms(b, q, w), together, norm)._replace(relu=True)
                for (b, q, w), norm in zip((inputs, others), norms, strict=True)
            ]
            distance = edge_distance(*sides, together)
        else:
            sides = [
                reference.edge_conv(b, q, idx, w, norm=norm, activation=torch.relu)
                for (b, q, w), norm in zip((inputs, others), norms, strict=True)
            ]
            distance = reference.edge_distance(*sides)
        return [distance, *torch.autograd.grad(distance.mean(), [*inputs, *norms[0].parameters()])]

    truth = results(False, torch.float64)
    for ours, theirs, true in zip(results(True, torch.float32), results(False, torch.float32), truth, strict=True):
        error, usual = ((x.double() - true).abs().max() for x in (ours, theirs))
        assert error <= 2 * usual + 1e-6 * true.abs().max()


@with_and_without_missing
def test_sum_of_squares_equals_the_reference(device, missing):
    x_base, x_query, idx = graph(device, missing=missing)
    given = edge_sum_of_squares(x_base, x_query, idx)
    wanted = reference.edge_sum_of_squares(x_base, x_query, idx)
    gradients = (torch.autograd.grad(x.square().sum(), [x_base, x_query]) for x in (given, wanted))
    assert_all_close(*([x, *g] for x, g in zip((given, wanted), gradients, strict=True)), rtol=1e-10, atol=1e-10)
    assert torch.autograd.gradcheck(lambda b, q: edge_sum_of_squares(b, q, idx), (x_base, x_query))


def test_sum_of_squares_does_not_cancel(device):
    x_base = torch.randn(20, 8, device=device)
    idx = torch.arange(20, device=device)[:, None]
    assert float(edge_sum_of_squares(x_base, -x_base, idx).abs().max()) == 0


def test_frames_that_share_a_call_do_not_meet():
    x_base, x_query, idx = graph(base=20, centres=10)
    idx = idx % 10 + torch.tensor([0, 10]).repeat_interleave(5)[:, None]
    both = edge_sum_of_squares(x_base, x_query, idx)
    alone = (
        edge_sum_of_squares(x_base[:10], x_query[:5], idx[:5]),
        edge_sum_of_squares(x_base[10:], x_query[5:], idx[5:] - 10),
    )
    assert torch.equal(both, torch.cat(alone))


def test_repeated_calls_give_the_same_bits_where_that_is_asked_for(device):
    x_base, x_query, idx = graph(device, base=50, centres=400, k=60, channels=40, dtype=torch.float32)
    idx[:200] = 3  # one neighbour of many
    y_base, y_query, _ = graph(device, base=50, centres=400, channels=40, dtype=torch.float32, seed=4)
    torch.use_deterministic_algorithms(True)
    try:
        runs = []
        for _ in range(3):
            distance = edge_distance(
                EdgeTerms(x_base, x_query, True), EdgeTerms(y_base, y_query, True), edge_graph(idx, 50)
            )
            runs.append([distance, *torch.autograd.grad(distance.sum(), [x_base, x_query, y_base, y_query])])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


def test_work_shared_between_threads_gives_the_same_sums():
    x_base, x_query, idx = graph(base=3000, centres=2000, k=64, channels=64, dtype=torch.float32)
    y_base, y_query, _ = graph(base=3000, centres=2000, channels=64, dtype=torch.float32, seed=4)
    before, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            together = edge_graph(idx, 3000)
            distance = edge_distance(EdgeTerms(x_base, x_query, True), EdgeTerms(y_base, y_query, True), together)
            moments = torch.ops.pcdet.edge_moments(x_base, x_query, together.idx, None, None)
            edges = torch.ops.pcdet.edge_gather(x_base, x_query, together.idx, together.start, together.edge, False)
            gradients = torch.autograd.grad(distance.sum() + moments[1].sum() + edges.square().sum(), [x_base, x_query])
            runs.append([*together[:4], distance, *moments, *gradients])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(runs[0][:-2], runs[1][:-2], strict=True))
    assert_all_close(runs[0][-2:], runs[1][-2:], rtol=1e-4, atol=1e-3)


def test_some_edges_are_those_at_the_places_asked_for(device):
    x_base, x_query, idx = graph(device, missing=True)
    places = torch.tensor([0, 5, 9, 27], device=device)
    terms = linear_terms(x_base, x_query, weights(3, 10, device))._replace(relu=True)
    wanted = edge_conv(x_base, x_query, idx, weights(3, 10, device), activation=torch.relu).flatten(0, 1)[places]
    torch.testing.assert_close(some_edges(terms, edge_graph(idx, 12), places), wanted)


# ---------------------------------------------------------------------------------------------- the graph, and PyTorch


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


def tables(device="cpu"):
    generator = torch.Generator().manual_seed(0)
    base, query, other_base, other_query = (
        torch.randn(n, 3, generator=generator, dtype=torch.float64).to(device).requires_grad_() for n in (12, 7, 12, 7)
    )
    _, _, idx = graph(device, missing=True)
    return idx, edge_graph(idx, 12), base, query, other_base, other_query


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
    for name, arguments in cases.items():
        for given in arguments:
            torch.library.opcheck(getattr(torch.ops.pcdet, name).default, given)


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


# ------------------------------------------------------------------------------------------------------- strange input


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
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_devices_must_agree():
    x_base, x_query, idx = graph("cuda")
    with pytest.raises(ValueError, match="idx must have shape .* be on cuda:0, got .* on cpu"):
        edge_sum_of_squares(x_base, x_query, edge_graph(idx.cpu(), 12))
