"""A synchronised norm over the edges of two processes is a plain norm over all of them in one."""

import pytest
import torch
from support.ranks import call_in_ranks
from torch import distributed, nn

from pcdet.ops.edge_conv import edge_conv

# Base rows, centres and neighbours of each process.
CASES = {
    "unequal": [(9, 7, 4), (30, 11, 4)],
    "one without centres": [(9, 7, 4), (5, 0, 4)],
    "one without edges": [(9, 7, 4), (0, 3, 4)],
}
ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


def part(case, rank):
    """x_base, x_query, idx of one process, some neighbours missing."""
    base, centres, k = CASES[case][rank]
    generator = torch.Generator().manual_seed(rank)
    x_base, x_query = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (base, centres))
    idx = torch.randint(-1, base, (centres, k), generator=generator)
    return x_base + 3 * rank, x_query, idx  # whose means differ


def joined(parts):
    """Both processes' rows and graphs as those of one."""
    (base, query, idx), (other_base, other_query, other_idx) = parts
    other_idx = torch.where(other_idx < 0, -1, other_idx + len(base))
    return torch.cat([base, other_base]), torch.cat([query, other_query]), torch.cat([idx, other_idx])


def norm_of(kind):
    norm = kind(3, momentum=None).double()
    nn.init.uniform_(norm.weight, generator=torch.Generator().manual_seed(1))
    return norm


def results(x_base, x_query, idx, norm, activation):
    """Values, gradients by the rows, gradients by the parameters, and the norm's buffers after two steps."""
    weight = torch.randn(3, 10, generator=torch.Generator().manual_seed(9), dtype=torch.float64).requires_grad_()
    rows = [x_base.requires_grad_(), x_query.requires_grad_()]
    edge_conv(x_base * 2, x_query, idx, weight, norm=norm, activation=activation)
    out = edge_conv(*rows, idx, weight, norm=norm, activation=activation)
    slope = torch.linspace(-1, 2, 3, dtype=torch.float64)
    gradients = torch.autograd.grad((slope * out.square()).sum(), [*rows, weight, norm.weight, norm.bias])
    return [out.detach(), *gradients[:2]], list(gradients[2:]), [b.clone() for b in norm.buffers()]


def work(rank, port, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found = {
        (case, name): results(*part(case, rank), norm_of(nn.SyncBatchNorm), activation)
        for case in CASES
        for name, activation in ACTIVATIONS.items()
    }
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    call_in_ranks(work, str(folder))
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_two_processes_find_what_one_finds_on_all_edges(found, case, activation):
    by_row, by_parameter, buffers = results(
        *joined([part(case, rank) for rank in range(2)]), norm_of(nn.BatchNorm1d), ACTIVATIONS[activation]
    )
    first, second = (of_rank[case, activation] for of_rank in found)
    for ours, theirs, wanted in zip(first[0], second[0], by_row, strict=True):
        torch.testing.assert_close(torch.cat([ours, theirs]), wanted, rtol=1e-9, atol=1e-9)
    for ours, theirs, wanted in zip(first[1], second[1], by_parameter, strict=True):
        torch.testing.assert_close(ours + theirs, wanted, rtol=1e-9, atol=1e-9)
    for ours, theirs, wanted in zip(first[2], second[2], buffers, strict=True):
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)


def test_alone_a_synchronised_norm_is_a_plain_one():
    inputs = part("unequal", 1)
    ours, theirs = (results(*inputs, norm_of(kind), torch.relu) for kind in (nn.SyncBatchNorm, nn.BatchNorm1d))
    for a, b in zip(sum(ours, []), sum(theirs, []), strict=True):
        assert torch.equal(a, b)
