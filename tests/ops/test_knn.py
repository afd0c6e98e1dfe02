"""K nearest neighbours against the readable version and against the claims of the docstring."""

import math
import os
import resource
import subprocess
import sys

import pytest
import torch
from support.opcheck import opcheck

from pcdet.ops.knn import knn
from pcdet.ops.knn.reference import knn as reference_knn
from pcdet.testing import random_cloud


def rows(count, channels, device, seed=0, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, channels, generator=generator) + offset).to(device)


def assert_exact(found, query, base):
    """Every neighbour is as near as the float64 reference's of the same rank, to float32's rounding of its distance."""
    dist2, idx = (part.cpu() for part in found)
    query, base = query.cpu().double(), base.cpu().double()
    wanted, wanted_idx = reference_knn(query, base, dist2.shape[1])
    assert torch.equal(idx >= 0, wanted_idx >= 0) and torch.equal(dist2.isinf(), wanted.isinf())
    there = idx >= 0
    true = (query[:, None] - base[idx.clamp(min=0)]).square().sum(dim=2)
    torch.testing.assert_close(true[there], wanted[there], rtol=3e-6, atol=1e-9)
    torch.testing.assert_close(dist2.double()[there], true[there], rtol=3e-6, atol=1e-9)
    assert all(len(set(row[row >= 0].tolist())) == (row >= 0).sum() for row in idx)  # no row twice


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 8, 9, 64, 200])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 50, 5), (40, 33, 33), (5, 400, 128), (3, 10, 20)])
def test_neighbours_equal_the_reference(device, shape, channels):
    queries, bases, k = shape
    query, base = rows(queries, channels, device, 1), rows(bases, channels, device, 2)
    found = knn(query, base, k)
    assert_exact(found, query, base)
    wanted_idx = reference_knn(query.cpu().double(), base.cpu().double(), k)[1]
    assert (found[1].cpu() == wanted_idx).float().mean() > 0.999


@pytest.mark.parametrize("shape", [(150, 5000, 20, 100), (30, 9000, 40, 512), (500, 700, 64, 3)])
def test_many_tiles_and_cuts_lose_nothing(device, shape):
    queries, bases, channels, k = shape
    query, base = rows(queries, channels, device, 1), rows(bases, channels, device, 2)
    assert_exact(knn(query, base, k), query, base)


def test_tight_clusters_far_from_the_origin_are_resolved(device):
    centres = rows(5, 32, device, 1) * 10 + 100
    base = centres.repeat_interleave(300, dim=0) + rows(1500, 32, device, 2) * 0.01
    assert_exact(knn(base[::7], base, 40), base[::7], base)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e16])
def test_neither_scale_nor_offset_of_all_rows_matters(device, scale, offset):
    base = (rows(3000, 33, device, 1) + offset) * scale
    dist2, idx = knn(base[::50], base, 40)
    wanted, wanted_idx = reference_knn(base[::50].cpu().double(), base.cpu().double(), 40)
    assert (idx.cpu() == wanted_idx).float().mean() > 0.99
    torch.testing.assert_close(dist2.cpu().double() / scale**2, wanted / scale**2, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("length", [1e2, 1e6, 1e15])
def test_a_few_rows_far_out_do_not_blur_the_others(device, length):
    base = rows(4000, 24, device, 1)
    base[[5, 1700, 3999]] *= length
    query = base[torch.tensor([5, 6, 7, 1000, 1700, 2500])]
    assert_exact(knn(query, base, 50), query, base)


def test_all_base_rows_far_from_all_queries(device):
    base, query = rows(1500, 16, device, 1) * 1e-3, rows(30, 16, device, 2) + 1e3
    assert_exact(knn(query, base, 20), query, base)
    assert_exact(knn(base[:30], query, 20), base[:30], query)


@pytest.mark.parametrize("near", ["the rows looked at first", "all other rows"])
def test_a_first_bound_guessed_wrong_loses_nothing(device, near):
    query, base = guessed_wrong(near, device)
    for k in (100, 512):
        assert_exact(knn(query, base, k), query, base)


def test_more_neighbours_than_the_gpu_gives_are_found_on_the_cpu():
    query, base = guessed_wrong("all other rows", "cpu")
    assert_exact(knn(query, base, 1100), query, base)


def guessed_wrong(near, device):
    """Queries, and rows of which all that are near, or none, are among those that a search looks at first."""
    base = rows(8000, 16, device, 1) + 5
    panels = 8000 // 32
    first = torch.arange(8000, device=device) % panels < 32
    base[first if near == "the rows looked at first" else ~first] *= 0.1
    return rows(30, 16, device, 2) * 0.1, base


def test_many_copies_of_a_row_are_ranked_by_number(device):
    base = rows(40, 20, device, 1).repeat(100, 1)  # row i is i % 40
    dist2, idx = knn(base[:40], base, 120)
    for number in range(40):
        assert idx[number, :100].tolist() == list(range(number, 4000, 40))
    assert bool((dist2[:, :100] == 0).all()) and bool((dist2[:, 100:] > 0).all())
    assert_exact((dist2, idx), base[:40], base)


def test_near_ties_are_decided_in_float32(device):
    base = rows(1, 16, device, 1).repeat(3000, 1)
    base[:, 3] += torch.arange(3000, device=device).flip(0) * 1e-6  # steps of some units in the last place
    assert_exact(knn(base[::100], base, 60), base[::100], base)
    spread = torch.cat([base, rows(50, 16, device, 2) * 100])  # and where 1e-6 is far below what the grid resolves
    assert_exact(knn(base[::100], spread, 60), base[::100], spread)


def test_a_distance_that_overflows_is_no_neighbours(device):
    base = rows(600, 8, device, 1)
    base[100:] *= 1e19
    dist2, idx = knn(base, base, 200)
    wanted, wanted_idx = reference_knn(base.cpu(), base.cpu(), 200)
    assert torch.equal(dist2.isinf().cpu(), wanted.isinf()) and torch.equal(idx.cpu() < 0, wanted_idx < 0)
    torch.testing.assert_close(dist2.cpu(), wanted, rtol=1e-5, atol=1e-6)


def test_numbers_whose_squares_vanish_still_find_distinct_rows(device):
    base = rows(700, 12, device, 1) * 1e-40
    dist2, idx = knn(base[:50], base, 30)
    assert bool((dist2 == 0).all())
    assert all(len(set(row)) == 30 and min(row) >= 0 for row in idx.tolist())


def test_a_scan_in_space(device):
    base = random_cloud(6000, device)[:, :3]
    for channels in (2, 3):
        points = base[:, :channels]
        assert_exact(knn(points[::29], points, 50), points[::29], points)


def test_float64_on_the_cpu():
    for channels in (3, 24):
        query, base = rows(20, channels, "cpu", 1).double(), rows(500, channels, "cpu", 2).double()
        dist2, idx = knn(query, base, 30)
        wanted, wanted_idx = reference_knn(query, base, 30)
        torch.testing.assert_close(dist2, wanted, rtol=1e-12, atol=1e-15)
        assert torch.equal(idx, wanted_idx)


def test_among_equal_distances_the_smaller_row_comes_first(device):
    for channels in (3, 20):
        base = torch.zeros(500, channels, device=device)
        dist2, idx = knn(base[:40], base, 9)
        assert bool((dist2 == 0).all()) and idx.tolist() == [list(range(9))] * 40


def test_distances_ascend_and_a_row_is_its_own_first_neighbour(device):
    base = rows(300, 48, device, offset=20.0)
    dist2, idx = knn(base, base, 10)
    assert bool((dist2[:, 1:] >= dist2[:, :-1]).all())
    assert idx[:, 0].tolist() == list(range(300))
    assert float(dist2[:, 0].abs().max()) == 0


@pytest.mark.parametrize("channels", [3, 12])
def test_neighbours_come_from_the_querys_own_frame(device, channels):
    base_frame = torch.tensor([0] * 20 + [1] * 5 + [3] * 30, device=device)
    query_frame = torch.tensor([0, 0, 1, 2, 3, 3], device=device)
    query, base = rows(6, channels, device, 3), rows(55, channels, device, 4)
    dist2, idx = knn(query, base, 8, query_frame, base_frame)
    wanted, wanted_idx = reference_knn(query, base, 8, query_frame, base_frame)
    torch.testing.assert_close(dist2, wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(idx, wanted_idx)
    assert (idx[2] >= 0).sum() == 5 and dist2[2, 5:].isinf().all()  # a frame of five rows
    assert (idx[3] == -1).all() and dist2[3].isinf().all()  # a frame without rows


def test_frames_of_different_sizes_equal_one_call_for_each(device):
    sizes = [700, 3, 0, 1200]
    frame = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes)).to(device)
    base = rows(sum(sizes), 24, device, 5)
    dist2, idx = knn(base[::3], base, 20, frame[::3], frame)
    for number in range(4):
        chosen = frame[::3] == number
        first = int((frame < number).sum())
        alone, alone_idx = knn(base[::3][chosen], base[frame == number], 20)
        torch.testing.assert_close(dist2[chosen], alone, rtol=1e-6, atol=0)
        assert torch.equal(idx[chosen], torch.where(alone_idx < 0, -1, alone_idx + first))


@pytest.mark.parametrize("queries, bases", [(0, 5), (4, 0), (0, 0)])
def test_empty_sets_give_no_neighbours(device, queries, bases):
    for channels in (3, 10):
        dist2, idx = knn(rows(queries, channels, device), rows(bases, channels, device), 4)
        assert dist2.shape == idx.shape == (queries, 4)
        assert bool((idx == -1).all()) == (bases == 0 or queries == 0)


def test_non_contiguous_rows_are_taken_as_they_are(device):
    base = rows(90, 6, device)
    strided = base[::3].T.contiguous().T
    assert torch.equal(knn(strided, strided, 4)[1], knn(base[::3].contiguous(), base[::3].contiguous(), 4)[1])


def test_half_precision_is_computed_in_float32(device):
    base = rows(50, 16, device).bfloat16()
    dist2, idx = knn(base, base, 3)
    assert dist2.dtype == torch.float32
    assert torch.equal(idx, knn(base.float(), base.float(), 3)[1])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"query": torch.zeros(3)}, r"shapes \(Q, C\) and \(M, C\), got \[3\] and \[5, 2\]"),
        ({"query": torch.zeros(3, 4)}, r"got \[3, 4\] and \[5, 2\]"),
        ({"query": torch.zeros(3, 2).double()}, r"base must match query \(Double on cpu\), got Float on cpu"),
        ({"query": torch.zeros(3, 2).long(), "base": torch.zeros(5, 2).long()}, "query must be float32 or float64"),
        ({"query": torch.full((3, 2), math.nan)}, "query must be finite"),
        ({"base": torch.full((5, 2), math.inf)}, "base must be finite"),
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


def test_memory_does_not_grow_with_queries_times_rows():
    base = rows(20_000, 8, "cpu")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    knn(base, base, 4)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 50e6 < base.shape[0] ** 2 * 4 / 30


@pytest.mark.parametrize("limit", ["avx512", "avx2", "baseline"])
def test_older_processors_find_the_same(limit):
    program = (
        "import torch; from pcdet.ops.knn import knn\n"
        "g = torch.Generator().manual_seed(0); base = torch.randn(2500, 21, generator=g)\n"
        "print(knn(base[:70], base, 30)[1].tolist())"
    )
    environment = {**os.environ, "PCDET_SIMD": limit}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(2500, 21, generator=generator)
    assert run.stdout.strip() == str(knn(base[:70], base, 30)[1].tolist())


def test_opcheck_and_one_graph(device):
    query, base, frame = rows(9, 5, device, 1), rows(30, 5, device, 2), torch.zeros(9, dtype=torch.int64, device=device)
    base_frame = torch.zeros(30, dtype=torch.int64, device=device)
    opcheck(torch.ops.pcdet.knn.default, (query, base, 4))
    opcheck(torch.ops.pcdet.knn.default, (query, base, 4, frame, base_frame))
    compiled = torch.compile(knn, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(query, base, 4)[1], knn(query, base, 4)[1])
