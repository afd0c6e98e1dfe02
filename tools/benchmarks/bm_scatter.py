"""Times dynamic voxelisation of a nuScenes frame of ten sweeps (300,000 points), and reductions over its voxels.

    python tools/benchmarks/bm_scatter.py [--device cpu] [--repeats 9] [--threads N] [--json FILE]

Contender: the same in PyTorch, as OpenPCDet has it but for torch_scatter's ops: ``torch.unique`` of the
cells, ``index_add_`` and ``scatter_reduce_``. Its equal maxima share the gradient; here the first row has it.
"""

from __future__ import annotations

import math

import torch
from _benchmark import OURS, Benchmark

from pcdet.ops.scatter import RowGroups, expand_groups, scatter_max, scatter_mean
from pcdet.ops.voxel import dynamic_voxelize, reference
from pcdet.testing import random_cloud

NUM_POINTS = 300_000
RANGE = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]
CASES = [("pillars", [0.2, 0.2, 8.0], True), ("voxels", [0.1, 0.1, 0.2], False)]
CHANNELS = 64


def torch_voxelize(points, size, any_height):
    """OpenPCDet's way: cells of the points in the range, and ``unique`` with inverse and counts."""
    return reference.dynamic_voxelize(points, size, RANGE, 1, any_height)[:2]


def with_gradient(function, src):
    """A call of the forward and backward pass."""

    def call():
        out = function(src)
        return out.detach(), *torch.autograd.grad(out, src, torch.ones_like(out))

    return call


def reductions(index, groups, num_groups):
    """Name -> (ours, PyTorch's), functions of rows."""

    def torch_mean(src):
        counts = torch.bincount(index, minlength=num_groups).clamp(min=1)
        return src.new_zeros(num_groups, src.shape[1]).index_add(0, index, src) / counts[:, None]

    def torch_max(src):
        place = index[:, None].expand_as(src)
        return src.new_zeros(num_groups, src.shape[1]).scatter_reduce(0, place, src, "amax", include_self=False)

    def ours_expanded(src):
        return expand_groups(scatter_max(src, groups), groups, len(src))

    return {
        "mean": (lambda src: scatter_mean(src, groups), torch_mean),
        "maximum": (lambda src: scatter_max(src, groups), torch_max),
        "maximum, back to the rows": (ours_expanded, lambda src: torch_max(src)[index]),
    }


def main() -> None:
    benchmark = Benchmark(__doc__)
    number = benchmark.size(NUM_POINTS)
    scan = torch.nn.functional.pad(random_cloud(number, azimuth=math.pi, channels=5), (1, 0)).to(benchmark.device)

    def same_voxels(ours, other):
        return "equal" if torch.equal(ours.coords, other[0]) and torch.equal(ours.inverse, other[1]) else "DIFFERENT"

    def close(ours, other):
        return "equal" if torch.allclose(ours[0], other[0], rtol=1e-4, atol=1e-4) else "DIFFERENT"

    for name, size, any_height in CASES:

        def ours(size=size, any_height=any_height):
            return dynamic_voxelize(scan, size, RANGE, batch_size=1, any_height=any_height)

        found = ours()
        title = f"{name}: {number} points, {len(found.coords)} voxels"
        theirs = {"PyTorch": lambda s=size, a=any_height: torch_voxelize(scan, s, a)}
        benchmark.run(f"voxelisation, {title}", {OURS: ours, **theirs}, same_voxels)
        index, groups = found.inverse[found.order], RowGroups(None, found.offsets)
        rows = torch.randn(len(index), CHANNELS, generator=torch.Generator().manual_seed(1)).to(benchmark.device)
        for what, (own, other) in reductions(index, groups, len(found.coords)).items():
            src = rows.clone().requires_grad_()
            calls = {OURS: with_gradient(own, src), "PyTorch": with_gradient(other, src)}
            benchmark.run(f"{what} with gradient, {CHANNELS} channels, {title}", calls, close)
    benchmark.finish()


if __name__ == "__main__":
    main()
