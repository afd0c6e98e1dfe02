import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pcdet.ops.knn import knn
from pcdet.utils.model_stats import MacCounter, Macs, count_macs, count_macs_by_part, count_pairs, count_parameters
from pcdet.utils.spconv_utils import load_spconv


def test_parameters_of_a_convolution_by_hand():
    assert count_parameters(nn.Conv2d(3, 8, 3)) == 3 * 8 * 9 + 8


def test_macs_of_a_convolution_are_output_cells_times_kernel_times_channels():
    model = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    assert count_macs(model, torch.zeros(1, 3, 10, 12)) == (10 * 12 * 8 * 3 * 9, 0)


def test_macs_of_a_linear_layer_are_rows_times_inputs_times_outputs():
    assert count_macs(nn.Linear(5, 7), torch.zeros(11, 5)) == (11 * 5 * 7, 0)


def test_macs_are_told_part_by_part():
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2))
    expected = {"0": Macs(11 * 5 * 7, 0), "1": Macs(0, 0), "2": Macs(11 * 7 * 2, 0)}
    assert count_macs_by_part(model, torch.zeros(11, 5)) == expected


@pytest.fixture(scope="module")
def spconv():
    pytest.importorskip("spconv")
    return load_spconv()


def sites(shape, share, frames=2, seed=0):
    """(M, 4) int32 random occupied sites [frame, z, y, x] of a grid, every site once."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(frames, *shape, generator=generator) < share).nonzero().int().contiguous()


def sparse_tensor(spconv, indices, shape, channels, frames=2):
    features = torch.randn(len(indices), channels, generator=torch.Generator().manual_seed(1))
    return spconv.SparseConvTensor(features, indices, list(shape), frames)


def test_pairs_of_a_submanifold_convolution_by_hand(spconv):
    """Three sites in a row and a lonely one: 2 + 3 + 2 + 1 pairs, of 3 times 5 channels."""
    indices = torch.tensor([[0, 2, 2, 1], [0, 2, 2, 2], [0, 2, 2, 3], [0, 7, 7, 7]], dtype=torch.int32)
    layer = spconv.SubMConv3d(3, 5, 3, bias=False)
    assert count_macs(layer, sparse_tensor(spconv, indices, (8, 8, 8), 3, frames=1)) == (0, 8 * 3 * 5)


def test_on_a_full_grid_sparse_macs_are_those_of_the_dense_convolution_inside_its_edges(spconv):
    """Without padding every output has all its taps: outputs times taps times channels."""
    x = sparse_tensor(spconv, sites((5, 7, 9), share=2), (5, 7, 9), 2)
    layer = spconv.SparseConv3d(2, 3, 3, stride=2, bias=False)
    assert count_macs(layer, x) == (0, 2 * (2 * 3 * 4) * 27 * 2 * 3)


@pytest.mark.parametrize(
    "keys",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 3, "stride": 2, "padding": (0, 1, 1)},
        {"kernel_size": (3, 1, 1), "stride": (2, 1, 1)},
        {"kernel_size": 3, "padding": 2, "dilation": 2},
    ],
)
def test_pairs_are_those_that_spconv_lists(spconv, keys):
    layer = spconv.SparseConv3d(2, 3, bias=False, indice_key="down", algo=spconv.ConvAlgo.Native, **keys)
    x = sparse_tensor(spconv, sites((8, 9, 7), share=0.1), (8, 9, 7), 2)
    out = layer(x)
    listed = int(out.find_indice_pair("down").indice_pair_num.sum())
    assert count_pairs(layer, x, out) == listed > 0
    inverse = spconv.SparseInverseConv3d(3, 2, keys["kernel_size"], indice_key="down", bias=False)
    if keys.get("dilation") is None:
        assert count_pairs(inverse, out, inverse(out)) == listed


def test_sparse_and_dense_parts_are_told_apart(spconv):
    """spconv's own matrix products, which PyTorch's counter sees on a CPU, do not count as dense."""
    x = sparse_tensor(spconv, sites((6, 6, 6), share=0.2), (6, 6, 6), 4)
    layers = spconv.SubMConv3d(4, 4, 3, bias=False), nn.Linear(4, 6)
    model = spconv.SparseSequential(*layers)
    parts = count_macs_by_part(model, x)
    assert parts["0"].dense == 0 and parts["0"].sparse == count_pairs(layers[0], x, x) * 16
    assert parts["1"] == (len(x.indices) * 4 * 6, 0)
    assert count_macs(model, x).total == parts["0"].sparse + parts["1"].dense


def test_no_sites_are_no_macs(spconv):
    x = sparse_tensor(spconv, torch.zeros(0, 4, dtype=torch.int32), (4, 4, 4), 2)
    assert count_pairs(spconv.SubMConv3d(2, 2, 3), x, x) == 0


def test_a_backward_pass_multiplies_once_for_each_gradient_that_is_asked_for():
    x, forward = torch.zeros(11, 5), 11 * 5 * 7 + 11 * 7 * 2
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 2))
    with MacCounter(model) as counter:
        out = model(x).sum()
        assert counter.done == (forward, 0)
        out.backward()
    to_weights, to_input_of_the_second = forward, 11 * 7 * 2
    assert counter.done == (forward + to_weights + to_input_of_the_second, 0)


def test_a_convolution_multiplies_three_times_as_much_with_both_gradients():
    layer, x = nn.Conv2d(3, 8, 3, padding=1), torch.zeros(2, 3, 10, 12, requires_grad=True)
    with MacCounter(layer) as counter:
        layer(x).sum().backward()
    assert counter.done == (3 * 2 * 10 * 12 * 8 * 3 * 9, 0)


def test_dense_products_are_those_of_pytorchs_counter_forward_and_backward():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.Flatten(2), nn.Linear(256, 5), nn.MultiheadAttention(5, 1, batch_first=True),
    )  # fmt: skip
    x = torch.randn(2, 3, 17, 17)

    def step():
        rows = model[:-1](x)
        model[-1](rows, rows, rows)[0].sum().backward()

    with MacCounter(model) as ours:
        step()
    with FlopCounterMode(display=False) as theirs:
        step()
    assert ours.done.dense == theirs.get_total_flops() // 2 > 0
    with torch.no_grad(), MacCounter(model) as ours, FlopCounterMode(display=False) as theirs:
        model[:-1](x)
    assert ours.done.dense == theirs.get_total_flops() // 2 > 0


@pytest.mark.parametrize("bias", [False, True])
def test_backward_a_sparse_convolution_multiplies_its_pairs_twice_and_dense_layers_keep_their_own(spconv, bias):
    """A linear layer before and one behind: neither gets a product of spconv's, and none of theirs goes to it."""
    x = sparse_tensor(spconv, sites((6, 6, 6), share=0.2), (6, 6, 6), 4)
    before, sparse = nn.Linear(4, 4), spconv.SubMConv3d(4, 4, 3, bias=bias)
    behind, rows = nn.Linear(4, 6), len(x.indices)
    pairs = count_pairs(sparse, x, x)
    with MacCounter(sparse) as counter:
        out = behind(sparse(x.replace_feature(before(x.features))).features).sum()
        out.backward()
    assert counter.done == (rows * (2 * 4 * 4 + 3 * 4 * 6), 3 * pairs * 16)


def test_every_backward_pass_of_a_sparse_convolution_counts_and_none_after_the_block(spconv):
    x = sparse_tensor(spconv, sites((6, 6, 6), share=0.2), (6, 6, 6), 4)
    layer = spconv.SubMConv3d(4, 2, 3, bias=False)
    forward = count_pairs(layer, x, x) * 8
    with MacCounter(layer) as counter:
        out = layer(x).features.sum()
        for passes in (1, 2):
            torch.autograd.grad(out, list(layer.parameters()), retain_graph=True)
            assert counter.done == (0, forward * (1 + 2 * passes))
    out.backward()
    layer(x)
    assert counter.done == (0, 5 * forward)


def distances_by_products(query, base):
    """(Q, M) squared distances as |q|^2 + |b|^2 - 2 q b."""
    return query.square().sum(1)[:, None] + base.square().sum(1)[None] - 2 * query @ base.T


def test_neighbours_among_wide_rows_count_as_the_product_that_gives_all_distances_of_a_frame():
    generator = torch.Generator().manual_seed(0)
    query, base = torch.randn(7, 12, generator=generator), torch.randn(31, 12, generator=generator)
    query_frame, base_frame = torch.tensor([0, 0, 2, 2, 2, 3, 3]), torch.arange(4).repeat_interleave(8)[1:]
    with MacCounter() as counter:
        idx = knn(query, base, 4, query_frame, base_frame)[1]
    with FlopCounterMode(display=False) as plain:
        for frame in range(4):
            of_frame = base[base_frame == frame]
            found = distances_by_products(query[query_frame == frame], of_frame)
            nearest = found.argsort(dim=1)[:, :4] + int((base_frame < frame).sum())
            assert torch.equal(nearest, idx[query_frame == frame])
    assert counter.done == (plain.get_total_flops() // 2, 0) and plain.get_total_flops() > 0
    with MacCounter() as counter:
        knn(query, base, 4)
    assert counter.done == (7 * 31 * 12, 0)


def test_neighbours_in_space_are_searched_for_without_all_distances_and_not_counted():
    with MacCounter() as counter:
        knn(torch.rand(7, 3), torch.rand(31, 3), 4)
    assert counter.done == (0, 0)


def test_distances_between_wide_rows_count_forward_and_for_each_sides_gradient():
    first, second = torch.rand(2, 5, 12, requires_grad=True), torch.rand(2, 9, 12, requires_grad=True)
    with MacCounter() as counter:
        table = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
        assert counter.done == (2 * 5 * 9 * 12, 0)
        table.sum().backward()
    assert counter.done == (3 * 2 * 5 * 9 * 12, 0)
