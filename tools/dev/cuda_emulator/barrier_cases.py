"""A small case for every source with barriers: what the kernels give against the ops' readable versions on the CPU.

A case makes its tensors and what is expected of them once, and returns a check: a function of the device that raises
where anything differs. Sizes are the smallest at which every barrier of the source is passed and more than one warp,
tile or step has work.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pcdet.ops.iou3d_nms import iou3d_nms_utils
from pcdet.ops.iou3d_nms import reference as nms_reference
from pcdet.ops.knn import knn
from pcdet.ops.knn.reference import knn as knn_reference
from pcdet.ops.pointnet2.pointnet2_batch import pointnet2_utils
from pcdet.ops.pointnet2.pointnet2_batch import reference as pointnet2_reference
from pcdet.ops.roiaware_pool3d import reference as roi_reference
from pcdet.ops.roiaware_pool3d.roiaware_pool3d_utils import RoIAwarePool3d
from pcdet.testing import random_boxes


def _same(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got.cpu(), expected, check_dtype=False)


Check = Callable[[torch.device], None]


def knn_case() -> Check:
    """Few neighbours and many, whose lists are cut back; channels beyond one tile."""
    base = torch.randn(700, 40)
    query = base[::100] + 0.1
    expected = {k: knn_reference(query.double(), base.double(), k)[1] for k in (5, 70)}

    def check(device: torch.device) -> None:
        for k, rows in expected.items():
            _same(knn(query.to(device), base.to(device), k)[1], rows)

    return check


def furthest_points_case() -> Check:
    """Two frames, several buckets of points."""
    points = torch.rand(2, 500, 3)
    expected = pointnet2_reference.furthest_point_sample(points, 30)
    return lambda device: _same(pointnet2_utils.farthest_point_sample(points.to(device), 30), expected)


def three_nn_case() -> Check:
    """Known points in three tiles."""
    unknown, known = torch.rand(2, 70, 3), torch.rand(2, 600, 3)
    expected = pointnet2_reference.three_nn(unknown, known)[1]
    return lambda device: _same(pointnet2_utils.three_nn(unknown.to(device), known.to(device))[1], expected)


def nms_case() -> Check:
    """Two words of boxes that suppress each other; then a box of the last score, far from thread 0, is no number."""
    boxes, scores = random_boxes(80, extent=6, objects=12, dtype=torch.float64), torch.rand(80)
    expected = nms_reference.nms(boxes, scores, 0.1, True)
    broken = boxes.clone()
    broken[scores.argmin(), 0] = torch.nan

    def check(device: torch.device) -> None:
        _same(iou3d_nms_utils.nms_gpu(boxes.to(device), scores.to(device), 0.1)[0], expected)
        try:
            iou3d_nms_utils.nms_gpu(broken.to(device), scores.to(device), 0.1)
        except ValueError:
            return
        raise AssertionError("nms accepted a box that is no number")

    return check


def roi_pooling_case() -> Check:
    """Voxels with more points than they may hold."""
    rois = random_boxes(4, extent=2, dtype=torch.float64)
    points, features = (torch.rand(300, 3) * 6 - 3).double(), torch.randn(300, 3).double()
    expected = roi_reference.roiaware_pool3d(rois, points, features, (2, 2, 2), 8, "avg")
    pool = RoIAwarePool3d((2, 2, 2), 9)
    return lambda device: _same(pool(rois.to(device), points.to(device), features.to(device), "avg"), expected)


def edge_moments_case() -> Check:
    """Channels beyond one warp's lanes, centres in several parts."""
    base, query = torch.randn(150, 40).double(), torch.randn(130, 40).double()
    idx = torch.randint(0, 150, (130, 7), dtype=torch.int32)
    edges = (base[idx.long()] + query[:, None]).flatten(0, 1)

    def check(device: torch.device) -> None:
        mean, variance, *_ = torch.ops.pcdet.edge_moments(base.to(device), query.to(device), idx.to(device), None, None)
        _same(mean, edges.mean(0))
        _same(variance, edges.var(0, unbiased=False))

    return check


# By the name of the source.
CASES: dict[str, Callable[[], Check]] = {
    "knn_cuda.cu": knn_case,
    "furthest_point_sample_cuda.cu": furthest_points_case,
    "three_nn_cuda.cu": three_nn_case,
    "nms_cuda.cu": nms_case,
    "roiaware_pool3d_cuda.cu": roi_pooling_case,
    "edge_conv_cuda.cu": edge_moments_case,
}
