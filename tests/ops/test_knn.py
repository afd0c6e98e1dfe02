"""K nearest neighbours against the readable version and against the claims of the docstring."""

import importlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pcdet.ops.knn import knn
from pcdet.ops.knn.reference import knn as reference_knn

knn_module = importlib.import_module("pcdet.ops.knn.knn")


def rows(count, channels, device, seed=0, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, channels, generator=generator) + offset).to(device)


@pytest.mark.parametrize("channels", [1, 3, 8, 9, 64, 200])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 50, 5), (40, 33, 33), (5, 400, 128)])
def test_neighbours_equal_the_reference(device, shape, channels):
    queries, bases, k = shape
    query, base = rows(queries, channels, device, 1), rows(bases, channels, device, 2)
    dist2, idx = knn(query, base, k)
    wanted, wanted_idx = reference_knn(query.cpu().double(), base.cpu().double(), k)
    torch.testing.assert_close(dist2.cpu().double(), wanted, rtol=1e-5, atol=1e-5)
    assert (idx.cpu() == wanted_idx).float().mean() > 0.999


def test_distances_ascend_and_a_row_is_its_own_first_neighbour(device):
    base = rows(300, 48, device, offset=20.0)
    dist2, idx = knn(base, base, 10)
    assert bool((dist2[:, 1:] >= dist2[:, :-1]).all())
    assert idx[:, 0].tolist() == list(range(300))
    assert float(dist2[:, 0].abs().max()) == 0


def test_neighbours_come_from_the_querys_own_frame(device):
    base_frame = torch.tensor([0] * 20 + [1] * 5 + [3] * 30, device=device)
    query_frame = torch.tensor([0, 0, 1, 2, 3, 3], device=device)
    query, base = rows(6, 12, device, 3), rows(55, 12, device, 4)
    dist2, idx = knn(query, base, 8, query_frame, base_frame)
    wanted, wanted_idx = reference_knn(query, base, 8, query_frame, base_frame)
    torch.testing.assert_close(dist2, wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(idx, wanted_idx)
    assert (idx[2] >= 0).sum() == 5 and dist2[2, 5:].isinf().all()  # a frame of five rows
    assert (idx[3] == -1).all() and dist2[3].isinf().all()  # a frame without rows


@pytest.mark.parametrize("queries, bases", [(0, 5), (4, 0), (0, 0)])
def test_empty_sets_give_no_neighbours(device, queries, bases):
    dist2, idx = knn(rows(queries, 3, device), rows(bases, 3, device), 4)
    assert dist2.shape == idx.shape == (queries, 4)
    assert bool((idx == -1).all()) == (bases == 0 or queries == 0)


def test_blocks_of_queries_do_not_change_the_result(monkeypatch):
    query, base = rows(100, 16, "cpu", 5), rows(80, 16, "cpu", 6)
    whole = knn(query, base, 7)
    monkeypatch.setattr(knn_module, "BLOCK_ELEMENTS", 500)
    parts = knn(query, base, 7)
    assert torch.equal(whole[1], parts[1])
    torch.testing.assert_close(whole[0], parts[0])


def test_non_contiguous_rows_are_taken_as_they_are(device):
    base = rows(90, 6, device)
    strided = base[::3].T.contiguous().T
    assert torch.equal(knn(strided, strided, 4)[1], knn(base[::3].contiguous(), base[::3].contiguous(), 4)[1])


def test_half_precision_is_computed_in_float32():
    base = rows(50, 16, "cpu").bfloat16()
    dist2, idx = knn(base, base, 3)
    assert dist2.dtype == torch.float32
    assert torch.equal(idx, knn(base.float(), base.float(), 3)[1])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"query": torch.zeros(3)}, r"shapes \(Q, C\) and \(M, C\), got \[3\] and \[5, 2\]"),
        ({"query": torch.zeros(3, 4)}, r"got \[3, 4\] and \[5, 2\]"),
        ({"query": torch.zeros(3, 2).double()}, "one dtype and device"),
        ({"query": torch.zeros(3, 2).long(), "base": torch.zeros(5, 2).long()}, "must be floats"),
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"query_frame": torch.zeros(3).long()}, "given together"),
        ({"query_frame": torch.zeros(2).long(), "base_frame": torch.zeros(5).long()}, r"query_frame must have shape"),
        ({"query_frame": torch.zeros(3).long(), "base_frame": torch.zeros(5)}, "base_frame must .* dtype int64"),
        (
            {"query_frame": torch.zeros(3).long(), "base_frame": torch.tensor([0, 1, 0, 1, 1])},
            "base_frame must be non-decreasing",
        ),
    ],
)
def test_wrong_input_is_named(change, message):
    given = {"query": torch.zeros(3, 2), "base": torch.zeros(5, 2), "k": 2} | change
    with pytest.raises(ValueError, match=message):
        knn(**given)


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


@pytest.mark.parametrize("channels", [3, 32])
def test_memory_does_not_grow_with_queries_times_rows(monkeypatch, channels):
    monkeypatch.setattr(knn_module, "BLOCK_ELEMENTS", 50_000)
    base = rows(2000, channels, "cpu")
    with LargestTensor() as largest:
        knn(base, base, 4)
    assert largest.elements <= max(50_000, base.numel()) < 2000 * 2000 / 10
