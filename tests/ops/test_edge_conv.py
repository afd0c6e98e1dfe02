"""Edge convolutions and the criterion on their edges: values, gradients and statistics equal the readable versions."""

import math

import pytest
import torch
from support.edges import (
    assert_all_close,
    batch_norm,
    every_edge,
    every_reduction,
    graph,
    weights,
    with_and_without_missing,
)
from support.gradients import gradcheck

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
    norm = {"norm": batch_norm(3, False, device), "activation": torch.relu}
    for reduce in ("none", "max", "mean"):
        assert gradcheck(
            lambda b, q, w, how=reduce: edge_conv(b, q, idx, w, reduce=how, **norm), (x_base, x_query, weight)
        )
    assert gradcheck(lambda b, q: edge_conv(b, q, idx, weight, activation=torch.tanh), (x_base, x_query))


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
    assert gradcheck(lambda b, q: edge_sum_of_squares(b, q, idx), (x_base, x_query))


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
