"""Times rotated IoU matrices and rotated non-maximum suppression.

    python tools/benchmarks/bm_iou3d_nms.py [--device cpu] [--repeats 9] [--threads N] [--json FILE]

Contenders: mmcv's C++ (MMCV_SOURCE, see _mmcv.py), shapely with its search tree.
"""

from __future__ import annotations

import importlib.util

import _mmcv
import numpy as np
import torch
from _benchmark import OURS, Benchmark

from pcdet.ops.iou3d_nms import iou3d_nms_utils as ops
from pcdet.testing import random_boxes


def shapely_iou(boxes: torch.Tensor):
    """The IoU matrix by polygon clipping of the pairs that a search tree proposes."""
    import shapely

    from pcdet.ops.iou3d_nms.reference import corners_bev

    polygons = shapely.polygons(corners_bev(boxes.double()).numpy())
    i, j = shapely.STRtree(polygons).query(polygons)
    shared = shapely.area(shapely.intersection(polygons[i], polygons[j]))
    area = shapely.area(polygons)
    out = np.zeros((len(boxes), len(boxes)), dtype=np.float32)
    out[i, j] = shared / (area[i] + area[j] - shared)
    return torch.from_numpy(out)


def main() -> None:
    benchmark = Benchmark(__doc__, versions=("shapely",))
    on_cpu = benchmark.device.type == "cpu"
    mmcv = _mmcv.mmcv_kernels() if on_cpu else "CPU only"
    if isinstance(mmcv, str):
        benchmark.skip("mmcv C++", mmcv)
    with_shapely = on_cpu and importlib.util.find_spec("shapely") is not None
    if not with_shapely:
        benchmark.skip("shapely + STRtree", "not installed" if on_cpu else "CPU only")

    def farthest(ours, other):
        return f"max difference {(ours.cpu() - other.cpu()).abs().max():.1e}"

    for label, objects in (("around 50 objects", 50), ("scattered", None)):
        boxes = random_boxes(benchmark.size(1000), benchmark.device, objects=objects, extent=40)
        contenders = {OURS: lambda b=boxes: ops.boxes_iou_bev(b, b)}
        if with_shapely:
            contenders["shapely + STRtree"] = lambda b=boxes: shapely_iou(b)
        if not isinstance(mmcv, str):
            flat = boxes[:, [0, 1, 3, 4, 6]].contiguous()
            contenders["mmcv C++"] = lambda b=flat: mmcv.iou(b, b)
        benchmark.run(f"rotated IoU 1000 x 1000, {label}", contenders, farthest)

    def keep_lists(ours, other):
        return "same keep list" if torch.equal(ours.cpu(), other.cpu()) else "DIFFERENT keep list"

    for n in map(benchmark.size, (4096, 9000)):
        for objects in (50, 500):
            for thresh in (0.1, 0.7):
                boxes = random_boxes(n, benchmark.device, objects=objects, extent=40)
                scores = torch.rand(n, generator=torch.Generator().manual_seed(1)).to(benchmark.device)
                contenders = {OURS: lambda b=boxes, s=scores, t=thresh: ops.nms_gpu(b, s, t)[0]}
                if not isinstance(mmcv, str):
                    flat = boxes[:, [0, 1, 3, 4, 6]].contiguous()
                    contenders["mmcv C++"] = lambda b=flat, s=scores, t=thresh: mmcv.nms(b, s, t)
                kept = len(contenders[OURS]())
                case = f"rotated NMS of {n} around {objects} objects, threshold {thresh}, {kept} kept"
                benchmark.run(case, contenders, keep_lists)
    benchmark.finish()


if __name__ == "__main__":
    main()
