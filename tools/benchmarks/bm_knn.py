"""Times K nearest neighbours: in feature space at PointDistiller's sizes, and in space on a scan.

    python tools/benchmarks/bm_knn.py [--device cpu] [--repeats 9] [--threads N] [--json FILE]

Contenders in feature space: the released PointDistiller's form (the whole Q x M matrix, then topk), torch.cdist with
topk, a product in chunks with topk, faiss and scikit-learn where they are installed. In space: scipy's cKDTree, built
and queried. Memory, in feature space, is the rise at a first call in a process of its own: the results (float32
distances and int64 rows) and what the call needs beside them; inputs are not counted.
"""

from __future__ import annotations

from functools import partial

import torch
from _benchmark import OURS, Benchmark
from _memory import note_peaks, serve_peak

from pcdet.ops.knn import knn
from pcdet.testing import random_cloud

FEATURE_SIZES = [  # queries, rows, channels, k
    (6000, 16000, 64, 128),
    (6000, 40000, 64, 128),
    (256, 35200, 128, 256),
    (256, 35200, 256, 256),
    (6000, 16384, 128, 128),
]
SMALL = (64, 32, 8, 8)  # which part of each a small case has
SPACE_CASES = [(6000, 16000, 16), (6000, 16000, 128), (6000, 120000, 16), (6000, 120000, 128)]
CHUNK = 2**21  # floats


def full_matrix(query, base, k):
    """Every squared distance as |q|^2 - 2 q b + |b|^2, then topk."""
    table = -2 * (query @ base.T) + query.square().sum(dim=1)[:, None] + base.square().sum(dim=1)[None]
    return table.topk(k, dim=1, largest=False)


def cdist(query, base, k):
    """torch.cdist, then topk."""
    return torch.cdist(query, base).topk(k, dim=1, largest=False)


def in_chunks(query, base, k):
    """The product for some queries at a time."""
    norms = base.square().sum(dim=1)
    parts = [
        torch.addmm(norms, rows, base.T, alpha=-2).topk(k, dim=1, largest=False)
        for rows in query.split(max(1, CHUNK // len(base)))
    ]
    return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])


def faiss_flat(threads):
    """Faiss's exhaustive search."""
    import faiss

    faiss.omp_set_num_threads(threads)

    def search(query, base, k):
        index = faiss.IndexFlatL2(base.shape[1])
        index.add(base.numpy())
        return tuple(torch.from_numpy(part) for part in index.search(query.numpy(), k))

    return search


def sklearn_argkmin(threads):
    """scikit-learn's fused distances and selection."""
    from sklearn.metrics._pairwise_distances_reduction import ArgKmin
    from threadpoolctl import threadpool_limits

    def search(query, base, k):
        with threadpool_limits(threads):
            found = ArgKmin.compute(query.numpy(), base.numpy(), k, metric="sqeuclidean", return_distance=True)
        return tuple(torch.from_numpy(part) for part in found)

    return search


def scipy_tree(query, base, k, threads):
    """A k-d tree, built and queried."""
    from scipy.spatial import cKDTree

    found = cKDTree(base.numpy()).query(query.numpy(), k, workers=threads)
    return tuple(torch.from_numpy(part) for part in found)


def recall(ours, other):
    """Share of the other's neighbours that are ours too, over the first 100 queries."""
    sets = zip(ours[1][:100].tolist(), other[1][:100].tolist(), strict=True)
    return f"{sum(len(set(a) & set(b)) for a, b in sets) / other[1][:100].numel():.5f} shared"


def searches(device: torch.device, threads: int) -> tuple[dict, dict]:
    """The contenders in feature space (name -> search), and those absent (name -> reason)."""
    found = {
        OURS: knn,
        "full matrix + topk (released)": full_matrix,
        "cdist + topk": cdist,
        "chunked addmm + topk": in_chunks,
    }
    absent = {}
    for name, make in (("faiss IndexFlatL2", faiss_flat), ("scikit-learn ArgKmin", sklearn_argkmin)):
        try:
            if device.type == "cpu":
                found[name] = make(threads)
        except ImportError as error:
            absent[name] = str(error)
    return found, absent


def in_features(case: tuple[int, int, int, int], device: torch.device, small: bool) -> dict:
    """The calls of one case, as ``serve_peak`` wants them."""
    queries, bases, channels, k = (size // part for size, part in zip(case, SMALL, strict=True)) if small else case
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(bases, channels, generator=generator).to(device)
    query = base[torch.randperm(bases, generator=generator)[:queries].to(device)].contiguous()
    found, _ = searches(device, torch.get_num_threads())
    return {name: partial(search, query, base, k) for name, search in found.items()}


def title(case: tuple[int, int, int, int]) -> str:
    return "features: {} queries, {} rows, {} channels, k {}".format(*case)


CASES = {title(sizes): partial(in_features, sizes) for sizes in FEATURE_SIZES}


def main() -> None:
    serve_peak(CASES)
    benchmark = Benchmark(__doc__, versions=("scipy", "faiss-cpu", "scikit-learn"))
    on_cpu, threads = benchmark.device.type == "cpu", torch.get_num_threads()
    for name, reason in searches(benchmark.device, threads)[1].items():
        benchmark.skip(name, reason)

    for sizes in FEATURE_SIZES:
        case = title(sizes)
        calls = CASES[case](benchmark.device, benchmark.small)
        benchmark.run(case, calls, recall)
        note_peaks(CASES, case, benchmark.rows[-len(calls) :], benchmark)
        print(f"  {'of which the results':34s} {sizes[0] * sizes[3] * (4 + 8) / 2**20:10.1f} MB")

    for sizes in SPACE_CASES:
        queries, bases, k = (benchmark.size(size) for size in sizes)
        base = random_cloud(bases)[:, :3].contiguous()
        query = base[torch.randperm(bases, generator=torch.Generator().manual_seed(0))[:queries]].contiguous()
        on_device = query.to(benchmark.device), base.to(benchmark.device), k
        calls = {OURS: partial(knn, *on_device)}
        if on_cpu:
            calls["scipy cKDTree"] = partial(scipy_tree, query, base, k, threads)
        benchmark.run(f"space: {queries} queries, {bases} points, k {k}", calls, recall)
    benchmark.finish()


if __name__ == "__main__":
    main()
