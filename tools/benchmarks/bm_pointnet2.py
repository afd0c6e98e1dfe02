"""Times furthest point sampling, ball query and three nearest neighbours.

    python tools/benchmarks/bm_pointnet2.py [--device cpu] [--repeats 9] [--threads N] [--json FILE]

Contenders: PyTorch alone (the references of the tests), scipy's cKDTree with its tree built in the time (as many
workers as --threads; it finds the nearest points, not the first by index), and fpsample's bucket sampling.
"""

from __future__ import annotations

import math

import torch
from _benchmark import OURS, Benchmark

from pcdet.ops.pointnet2.pointnet2_batch import pointnet2_utils as ops
from pcdet.ops.pointnet2.pointnet2_batch import reference
from pcdet.testing import random_cloud

SLOWEST = 65_536  # points above which the loop of PyTorch calls would take minutes


def cloud(n: int, azimuth: float) -> torch.Tensor:
    """(1, n, 3) points of a scan in random order, as a detector's sampled points come."""
    points = random_cloud(n, azimuth=azimuth)[:, :3]
    return points[torch.randperm(n, generator=torch.Generator().manual_seed(0))][None].contiguous()


def sampling(benchmark: Benchmark, n: int, m: int, azimuth: float) -> None:
    n, m = benchmark.size(n), benchmark.size(m)
    points = cloud(n, azimuth)
    on_device = points.to(benchmark.device)
    contenders = {OURS: lambda: ops.farthest_point_sample(on_device, m)}
    if n <= SLOWEST:
        contenders["PyTorch"] = lambda: reference.furthest_point_sample(on_device, m)
    try:
        import fpsample

        height = 5 if n <= SLOWEST else 7  # the fastest of 5, 7 and 9
        table = points[0].numpy()
        contenders["fpsample kd-line (CPU)"] = lambda: torch.from_numpy(
            fpsample.bucket_fps_kdline_sampling(table, m, h=height, start_idx=0).astype("int32")
        )[None]
    except ImportError:
        benchmark.skip("fpsample kd-line (CPU)", "not installed")

    def same(found, other):
        return f"{(found.cpu() == other.cpu()).float().mean() * 100:.1f} % equal"

    benchmark.run(f"furthest point sampling, {n} -> {m}", contenders, same)


def neighbourhoods(benchmark: Benchmark) -> None:
    points = cloud(benchmark.size(16384), math.pi / 4)
    picks = ops.farthest_point_sample(points, benchmark.size(4096))[0].long()
    centres = points[:, picks].contiguous()
    p, c = points.to(benchmark.device), centres.to(benchmark.device)
    table, centre_table = points[0].numpy(), centres[0].numpy()
    workers = torch.get_num_threads()
    try:
        from scipy.spatial import cKDTree
    except ImportError:
        cKDTree = None
        benchmark.skip("scipy cKDTree", "not installed")

    def same(found, other):
        if not isinstance(other, torch.Tensor):
            return ""
        return "equal" if torch.equal(found.cpu(), other.cpu()) else "DIFFERENT"

    for radius, nsample in ((0.1, 16), (0.5, 32)):
        contenders = {
            OURS: lambda r=radius, k=nsample: ops.ball_query(r, k, p, c),
            "PyTorch": lambda r=radius, k=nsample: reference.ball_query(r, k, p, c),
        }
        if cKDTree is not None:
            contenders["cKDTree.query, bounded (CPU)"] = lambda r=radius, k=nsample: cKDTree(table).query(
                centre_table, k=k, distance_upper_bound=r, workers=workers
            )
            contenders["cKDTree.query_ball_point (CPU)"] = lambda r=radius: cKDTree(table).query_ball_point(
                centre_table, r, workers=workers
            )
        benchmark.run(f"ball query, 4096 in 16384, r = {radius} m, {nsample} points", contenders, same)

    contenders = {OURS: lambda: ops.three_nn(p, c)[1], "PyTorch": lambda: reference.three_nn(p, c)[1]}
    if cKDTree is not None:
        contenders["cKDTree.query (CPU)"] = lambda: torch.from_numpy(
            cKDTree(centre_table).query(table, k=3, workers=workers)[1].astype("int32")
        )[None]
    benchmark.run("three nearest, 16384 in 4096", contenders, same)


def main() -> None:
    benchmark = Benchmark(__doc__, versions=("scipy", "fpsample"))
    sampling(benchmark, 16384, 4096, math.pi / 4)
    sampling(benchmark, 120_000, 16384, math.pi)
    neighbourhoods(benchmark)
    benchmark.finish()


if __name__ == "__main__":
    main()
