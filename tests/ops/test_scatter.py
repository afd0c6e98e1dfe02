"""Reductions over groups of rows: against their references, gradients, ties, NaN, half precision, errors."""

import math

import pytest
import torch
from support.gradients import gradcheck, gradgradcheck
from support.opcheck import opcheck

from pcdet.ops.scatter import (
    RowGroups,
    expand_groups,
    group_rows,
    reference,
    scatter_max,
    scatter_mean,
    scatter_sum,
)

OPS = torch.ops.pcdet
REDUCTIONS = {"sum": scatter_sum, "mean": scatter_mean, "max": scatter_max}


def noise(*shape, device="cpu", dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).to(device)


def random_index(rows, groups, device="cpu"):
    """The group of each row; a third have none, and the last group has no row."""
    index = torch.randint(max(groups - 1, 1), (rows,), generator=torch.Generator().manual_seed(1))
    return torch.where(torch.arange(rows) % 3 == 1, -1, index).to(device)


def in_order(groups):
    """The same groups of rows that lie group by group."""
    return RowGroups(None, groups.offsets)


def on_cpu(function, *given):
    """What a reference gives on the CPU, on the device of the first tensor."""
    moved = (x.cpu() if isinstance(x, torch.Tensor) else x for x in given)
    device, found = next(x.device for x in given if isinstance(x, torch.Tensor)), function(*moved)
    return tuple(x.to(device) for x in found) if isinstance(found, tuple) else found.to(device)


SIZES = [(0, 4), (1, 1), (60, 7), (50, 1), (9, 40), (5, 0)]


@pytest.mark.parametrize(("rows", "groups"), SIZES)
def test_grouping_matches_the_reference(device, rows, groups):
    index = random_index(rows, groups, device) if groups else torch.full((rows,), -1, device=device)
    found = group_rows(index, groups)
    for ours, theirs in zip(found, on_cpu(reference.group_rows, index, groups), strict=True):
        assert ours.dtype == torch.int64 and torch.equal(ours, theirs)


@pytest.mark.parametrize("channels", [1, 3, 33, 0])
@pytest.mark.parametrize(("rows", "num_groups"), SIZES)
@pytest.mark.parametrize("ordered", [False, True])
def test_reductions_match_the_reference(device, rows, num_groups, channels, ordered):
    index = random_index(rows, num_groups, device) if num_groups else torch.full((rows,), -1, device=device)
    groups, src = group_rows(index, num_groups), noise(rows, channels, device=device)
    groups = in_order(groups) if ordered else groups
    for name, reduce in REDUCTIONS.items():
        expected = on_cpu(getattr(reference, f"scatter_{name}"), src, *groups)
        torch.testing.assert_close(reduce(src, groups), expected, rtol=1e-12, atol=1e-12, msg=name)
    values = noise(num_groups, channels, device=device, seed=2)
    assert torch.equal(expand_groups(values, groups, rows), on_cpu(reference.expand_groups, values, *groups, rows))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_rows_match_torch(device, dtype):
    """Enough channels and rows for whole vectors and their rest; the sums of torch are the other side."""
    index, src = random_index(3000, 200, device), noise(3000, 67, device=device, dtype=dtype)
    groups, index = group_rows(index, 200), index.cpu()
    place, members = index[index >= 0][:, None].expand(-1, 67), src.cpu()[index >= 0]
    for name, reduce in (("sum", scatter_sum), ("mean", scatter_mean), ("amax", scatter_max)):
        expected = torch.zeros(200, 67, dtype=dtype).scatter_reduce(0, place, members, name, include_self=False)
        torch.testing.assert_close(reduce(src, groups).cpu(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_gradients(device, name):
    groups, src = group_rows(random_index(14, 5, device), 5), noise(14, 3, device=device).requires_grad_()
    assert gradcheck(lambda x: REDUCTIONS[name](x, groups), (src,))
    assert gradgradcheck(lambda x: REDUCTIONS[name](x, groups).sin(), (src,))


def test_gradients_of_expanding(device):
    groups, values = group_rows(random_index(14, 5, device), 5), noise(5, 3, device=device).requires_grad_()
    assert gradcheck(lambda x: expand_groups(x, groups, 14), (values,))
    assert gradgradcheck(lambda x: expand_groups(x, groups, 14).sin(), (values,))


@pytest.mark.parametrize("name", REDUCTIONS)
def test_gradients_of_no_rows_and_of_empty_groups(device, name):
    src = torch.zeros(0, 3, device=device, requires_grad=True)
    groups = group_rows(torch.zeros(0, dtype=torch.int64, device=device), 4)
    out = REDUCTIONS[name](src, groups)
    assert out.shape == (4, 3) and not out.any()
    (gradient,) = torch.autograd.grad(out.square().sum(), src, create_graph=True)
    assert gradient.shape == (0, 3)
    gradient.sum().backward()


@pytest.mark.parametrize("ordered", [False, True])
def test_the_first_of_equal_rows_has_the_gradient_of_the_maximum(device, ordered):
    src = torch.tensor([[1.0, 5], [2, 5], [2, 3], [0, 5]], device=device, requires_grad=True)
    groups = RowGroups(
        None if ordered else torch.tensor([0, 1, 2, 3], device=device), torch.tensor([0, 4], device=device)
    )
    scatter_max(src, groups).sum().backward()
    assert src.grad.tolist() == [[0, 1], [1, 0], [0, 0], [0, 0]]
    again = src.detach().cpu().requires_grad_()
    reference.scatter_max(again, None, torch.tensor([0, 4])).sum().backward()
    assert torch.equal(src.grad.cpu(), again.grad)


def test_a_nan_is_the_largest_and_keeps_its_gradient(device):
    src = torch.tensor([[1.0], [math.nan], [2], [math.nan]], device=device, requires_grad=True)
    groups = RowGroups(None, torch.tensor([0, 4], device=device))
    out = scatter_max(src, groups)
    assert out.isnan().all() and on_cpu(reference.scatter_max, src, *groups).isnan().all()
    assert torch.autograd.grad(out.sum(), src)[0].tolist() == [[0], [1], [0], [0]]


def test_maxima_of_negative_rows_are_negative(device):
    src = torch.tensor([[-3.0], [-2], [-math.inf]], device=device)
    out = scatter_max(src, RowGroups(None, torch.tensor([0, 2, 3, 3], device=device)))
    assert out.tolist() == [[-2], [-math.inf], [0]]


def test_expanding_is_the_transpose_of_summing(device):
    """<S x, v> = <x, S' v> for all x and v."""
    groups = group_rows(random_index(50, 9, device), 9)
    src, values = noise(50, 4, device=device), noise(9, 4, device=device, seed=1)
    left, right = (scatter_sum(src, groups) * values).sum(), (src * expand_groups(values, groups, 50)).sum()
    torch.testing.assert_close(left, right)


def test_sums_are_conserved(device):
    index, src = random_index(400, 30, device), noise(400, 5, device=device)
    torch.testing.assert_close(scatter_sum(src, group_rows(index, 30)).sum(0), src[index >= 0].sum(0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32_and_keeps_its_type(device, dtype):
    src = torch.full((5000, 2), 40.0, dtype=dtype, device=device).requires_grad_()
    groups = RowGroups(None, torch.tensor([0, 5000], device=device))
    assert scatter_mean(src, groups).tolist() == [[40, 40]]  # whose sum is beyond float16
    rows = noise(300, 6, device=device, dtype=dtype).requires_grad_()
    groups = group_rows(random_index(300, 20, device), 20)
    for name, reduce in REDUCTIONS.items():
        out = reduce(rows, groups)
        exact = on_cpu(getattr(reference, f"scatter_{name}"), rows.detach().double(), *groups)
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), exact.to(dtype).double(), rtol=0, atol=0.07 if name == "sum" else 0.01)
        assert torch.autograd.grad(out.sum(), rows)[0].dtype == dtype
    assert expand_groups(out.detach(), groups, 300).dtype == dtype


def test_views_give_what_their_copies_give(device):
    groups, wide = group_rows(random_index(40, 6, device), 6), noise(80, 10, device=device)
    view = wide[::2, 1::3]
    for reduce in REDUCTIONS.values():
        assert torch.equal(reduce(view, groups), reduce(view.contiguous(), groups))
    values = noise(3, 12, device=device).t()[::2]
    assert torch.equal(expand_groups(values, groups, 40), expand_groups(values.contiguous(), groups, 40))


LONGS = torch.tensor([0, 2, 3])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: group_rows(torch.zeros(2, 2, dtype=torch.int64), 3), r"index must have shape \(N,\), got \[2, 2\]"),
        (lambda: group_rows(torch.zeros(2, dtype=torch.int32), 3), "index must be int64, got Int"),
        (lambda: group_rows(torch.tensor([0, 3]), 3), r"index must lie in \[-1, 3\), got 3 in row 1"),
        (lambda: group_rows(torch.tensor([-2]), 3), r"index must lie in \[-1, 3\), got -2 in row 0"),
        (lambda: group_rows(torch.tensor([0]), -1), r"num_groups must lie in \[0, 2\^31\), got -1"),
        (lambda: scatter_sum(torch.zeros(3), RowGroups(None, LONGS)), r"src must have shape \(N, C\), got \[3\]"),
        (lambda: scatter_max(torch.zeros(3, 1).long(), RowGroups(None, LONGS)), "src must be a floating-point tensor"),
        (lambda: scatter_sum(torch.zeros(3, 1), RowGroups(None, LONGS.int())), "offsets must be int64, got Int"),
        (lambda: scatter_sum(torch.zeros(2, 1), RowGroups(None, LONGS)), r"offsets must ascend within \[0, 2\]"),
        (lambda: scatter_sum(torch.zeros(3, 1), RowGroups(None, LONGS.flip(0))), "offsets must ascend"),
        (lambda: scatter_sum(torch.zeros(3, 1), RowGroups(LONGS + 1, LONGS)), r"order must lie in \[0, 3\)"),
        (lambda: scatter_max(torch.zeros(3, 1), RowGroups(LONGS[None], LONGS)), r"order must have shape \(N,\)"),
        (lambda: expand_groups(torch.zeros(3, 1), RowGroups(None, LONGS), 3), "a row for each of 2 groups, got"),
        (
            lambda: expand_groups(torch.zeros(2, 1), RowGroups(None, LONGS), -1),
            r"rows must lie in \[0, 2\^31\), got -1",
        ),
        (lambda: OPS.scatter_max_backward(torch.zeros(2, 1), LONGS[:2, None], 3), "argmax must be int32, got Long"),
        (lambda: OPS.scatter_max_backward(torch.zeros(2, 1), LONGS.int(), 3), "argmax must have the shape of grad"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.gpu
def test_groups_beyond_the_table_are_cut_on_the_gpu(gpu):
    src = torch.ones(3, 2, device=gpu)
    order, offsets = torch.tensor([0, 7, 2, -1], device=gpu), torch.tensor([-4, 3, 900], device=gpu)
    assert scatter_sum(src, RowGroups(order, offsets)).tolist() == [[2, 2], [0, 0]]
    assert scatter_max(src, RowGroups(order, offsets)).tolist() == [[1, 1], [0, 0]]
    assert expand_groups(src[:2], RowGroups(order, offsets), 3).tolist() == [[1, 1], [0, 0], [1, 1]]
    assert group_rows(torch.tensor([0, 9, -5, 0], device=gpu), 2).offsets.tolist() == [0, 2, 2]


@pytest.mark.parametrize("ordered", [False, True])
def test_opcheck(device, ordered):
    index = random_index(20, 4, device)
    order, offsets = group_rows(index, 4)
    order = None if ordered else order
    src = noise(20, 3, device=device).requires_grad_()
    values = noise(4, 3, device=device).requires_grad_()
    opcheck(OPS.group_rows.default, (index, 4))
    opcheck(OPS.scatter_sum.default, (src, order, offsets))
    opcheck(OPS.scatter_max.default, (src, order, offsets))
    opcheck(OPS.expand_groups.default, (values, order, offsets, 20))
    argmax = OPS.scatter_max(src.detach(), order, offsets)[1]
    opcheck(OPS.scatter_max_backward.default, (values, argmax, 20))


def test_one_graph(device):
    def all_of_them(src, index):
        groups = group_rows(index, 6)
        return expand_groups(scatter_mean(src, groups) + scatter_max(src, groups), groups, len(src))

    src, index = noise(30, 4, device=device).requires_grad_(), random_index(30, 6, device)
    compiled = torch.compile(all_of_them, fullgraph=True, backend="aot_eager")
    results = []
    for function in (all_of_them, compiled):
        out = function(src, index)
        results.append((out, *torch.autograd.grad(out.square().sum(), src)))
    for plain, traced in zip(*results, strict=True):
        assert torch.equal(plain, traced)
