"""Times K nearest neighbours: in feature space at PointDistiller's sizes, and in space on a scan.

    python tools/benchmarks/bm_knn.py [--device cpu] [--repeats 9] [--threads N] [--json FILE]

Contenders in feature space: the released PointDistiller's form (the whole Q x M matrix, then topk), torch.cdist with
topk, a product in chunks with topk, faiss and scikit-learn where they are installed. In space: scipy's cKDTree, built
and queried.
"""

from __future__ import annotations

import torch
from _contest import OURS, Contest

from pcdet.ops.knn import knn
from pcdet.testing import random_cloud

FEATURE_CASES = [(6000, 16000, 64, 128), (6000, 40000, 64, 128), (256, 35200, 128, 256), (6000, 16384, 128, 128)]
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


def main() -> None:
    contest = Contest(__doc__, versions=("scipy", "faiss-cpu", "scikit-learn"))
    on_cpu, threads = contest.device.type == "cpu", torch.get_num_threads()
    searches = {"full matrix + topk (released)": full_matrix, "cdist + topk": cdist, "chunked addmm + topk": in_chunks}
    for name, make in (("faiss IndexFlatL2", faiss_flat), ("scikit-learn ArgKmin", sklearn_argkmin)):
        try:
            if on_cpu:
                searches[name] = make(threads)
        except ImportError as error:
            contest.skip(name, str(error))

    generator = torch.Generator().manual_seed(0)
    for queries, bases, channels, k in FEATURE_CASES:
        base = torch.randn(bases, channels, generator=generator).to(contest.device)
        query = base[torch.randperm(bases, generator=generator)[:queries].to(contest.device)].contiguous()
        calls = {name: lambda s=s, q=query, b=base, k=k: s(q, b, k) for name, s in {OURS: knn, **searches}.items()}
        contest.run(f"features: {queries} queries, {bases} rows, {channels} channels, k {k}", calls, recall)

    for queries, bases, k in SPACE_CASES:
        base = random_cloud(bases)[:, :3].contiguous()
        query = base[torch.randperm(bases, generator=generator)[:queries]].contiguous()
        on_device = query.to(contest.device), base.to(contest.device), k
        calls = {OURS: lambda args=on_device: knn(*args)}
        if on_cpu:
            calls["scipy cKDTree"] = lambda q=query, b=base, k=k: scipy_tree(q, b, k, threads)
        contest.run(f"space: {queries} queries, {bases} points, k {k}", calls, recall)
    contest.finish()


if __name__ == "__main__":
    main()
