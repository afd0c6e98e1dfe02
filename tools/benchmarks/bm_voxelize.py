"""Times hard voxelisation of 120,000 points.

    python tools/benchmarks/bm_voxelize.py [--device cpu] [--repeats 9] [--threads N] [--json FILE]

Contender: spconv's PointToVoxel on the CPU, with its persistent dense map made beforehand.
"""

from __future__ import annotations

import math

import torch
from _benchmark import OURS, Benchmark

from pcdet.ops.voxel import voxelize
from pcdet.testing import random_cloud

NUM_POINTS = 120_000
# name, voxel size, range, points a voxel, voxels, half the horizontal opening of the scan
CASES = [
    ("PointPillars", [0.16, 0.16, 4], [0, -39.68, -3, 69.12, 39.68, 1], 32, 40000, math.pi / 4),
    ("SECOND", [0.05, 0.05, 0.1], [0, -40, -3, 70.4, 40, 1], 5, 40000, math.pi / 4),
    ("full turn", [0.1, 0.1, 0.2], [-51.2, -51.2, -5, 51.2, 51.2, 3], 10, 120000, math.pi),
]


def spconv_voxelizer(size, limits, max_points, max_voxels, points):
    """A call that voxelises ``points``, or a str with the reason why there is none."""
    try:
        from cumm import tensorview as tv
        from spconv.utils import Point2VoxelCPU3d
    except ImportError as error:
        return f"spconv does not load ({error})"
    generator = Point2VoxelCPU3d(size, limits, points.shape[1], max_voxels, max_points)
    given = tv.from_numpy(points.numpy())
    # .numpy() is a view of the generator's own buffers; OpenPCDet copies neither
    return lambda: tuple(torch.from_numpy(part.numpy()) for part in generator.point_to_voxel(given))


def main() -> None:
    benchmark = Benchmark(__doc__, versions=("spconv",))

    def same(ours, other):
        return "equal" if all(torch.equal(x.cpu(), y) for x, y in zip(ours, other, strict=True)) else "DIFFERENT"

    num_points = benchmark.size(NUM_POINTS)
    for name, size, limits, max_points, max_voxels, azimuth in CASES:
        scan = random_cloud(num_points, azimuth=azimuth)
        shuffled = scan[torch.randperm(num_points, generator=torch.Generator().manual_seed(0))]
        for order, points in (("in scan order", scan), ("shuffled", shuffled)):
            on_device = points.to(benchmark.device)
            config = (size, limits, max_points, max_voxels)
            contenders = {OURS: lambda p=on_device, c=config: voxelize(p, *c)}
            theirs = spconv_voxelizer(*config, points)
            if isinstance(theirs, str):
                benchmark.skip("spconv PointToVoxel (CPU)", theirs)
            else:
                contenders["spconv PointToVoxel (CPU)"] = theirs
            voxels = len(contenders[OURS]()[0])
            benchmark.run(f"{name}, {order}: {num_points} points, {voxels} voxels", contenders, same)
    benchmark.finish()


if __name__ == "__main__":
    main()
