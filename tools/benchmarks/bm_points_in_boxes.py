"""Times points in boxes: the mask of every box and point, and the first box of each point.

    python tools/benchmarks/bm_points_in_boxes.py [--device cpu] [--repeats 9] [--threads N] [--json FILE]

Contenders: the plain PyTorch reference, which broadcasts; mmcv's C++ mask (MMCV_SOURCE, see _mmcv.py).
"""

from __future__ import annotations

import _mmcv
import torch
from _benchmark import OURS, Benchmark

from pcdet.ops.roiaware_pool3d import reference
from pcdet.ops.roiaware_pool3d import roiaware_pool3d_utils as ops
from pcdet.testing import random_boxes, random_cloud

NUM_POINTS, NUM_BOXES = 120_000, 50


def main() -> None:
    benchmark = Benchmark(__doc__)
    mmcv = _mmcv.mmcv_kernels() if benchmark.device.type == "cpu" else "CPU only"
    if isinstance(mmcv, str):
        benchmark.skip("mmcv C++", mmcv)
    num_points = benchmark.size(NUM_POINTS)
    boxes = random_boxes(NUM_BOXES, benchmark.device, extent=30)
    scan = random_cloud(num_points, benchmark.device)[:, :3].contiguous()
    shuffled = scan[torch.randperm(num_points, generator=torch.Generator().manual_seed(0)).to(benchmark.device)]

    def flips(ours, other):
        return f"{(ours != other).sum().item()} of {ours.numel()} differ"

    for order, points in (("in scan order", scan), ("shuffled", shuffled)):
        contenders = {
            OURS: lambda p=points: ops.points_in_boxes_cpu(p, boxes),
            "PyTorch reference": lambda p=points: reference.points_in_boxes_mask(p, boxes),
        }
        if not isinstance(mmcv, str):
            bottom = boxes.clone()
            bottom[:, 2] -= bottom[:, 5] / 2
            bottom[:, 3:5] += 0.02  # the same margin
            contenders["mmcv C++"] = lambda p=points, b=bottom: mmcv.mask(p, b)
        benchmark.run(f"mask of {num_points} points x {NUM_BOXES} boxes, {order}", contenders, flips)

        contenders = {
            OURS: lambda p=points: ops.points_in_boxes_gpu(p[None], boxes[None]),
            "PyTorch reference": lambda p=points: reference.points_in_boxes_index(p[None], boxes[None]),
        }
        benchmark.run(f"first box of {num_points} points among {NUM_BOXES}, {order}", contenders, flips)
    benchmark.finish()


if __name__ == "__main__":
    main()
