"""Boxes: true areas and IoUs (shapely, float64), greedy keep lists on the true IoU, and points inside."""

import numpy as np
import pytest
import torch

from pcdet.ops.iou3d_nms import iou3d_nms_utils as iou_ops
from pcdet.ops.roiaware_pool3d import roiaware_pool3d_utils as point_ops

NEAR_TIE = 1e-4  # keep lists are compared where the closest decision is further from the threshold
FACE = 1.5e-2  # metres; points nearer to a face may fall on either side


def load(goldens, name, device="cpu"):
    with np.load(goldens / "reference" / "boxes" / name, allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]).to(device) for key in file.files if file[key].dtype.kind in "iuf"}


def assert_near_truth(found, truth):
    torch.testing.assert_close(found.double(), truth, rtol=0, atol=1e-5)


def test_random_pairs_are_near_the_truth(goldens, device):
    case = load(goldens, "iou_random.npz", device)
    a, b = case["boxes_a"], case["boxes_b"]
    assert_near_truth(iou_ops.boxes_overlap_bev(a, b), case["overlap_area"])
    assert_near_truth(iou_ops.boxes_iou_bev(a, b), case["iou_bev"])
    assert_near_truth(iou_ops.boxes_iou3d(a, b), case["iou_3d"])


def test_degenerate_pairs_are_near_the_truth(goldens, device):
    case = load(goldens, "iou_degenerate_pairs.npz", device)
    a, b = case["boxes_a"], case["boxes_b"]
    assert_near_truth(iou_ops.boxes_overlap_bev(a, b).diagonal(), case["overlap_area"])
    assert_near_truth(iou_ops.boxes_iou_bev(a, b).diagonal(), case["iou_bev"])
    assert_near_truth(iou_ops.paired_boxes_iou3d(a, b), case["iou_3d"])


@pytest.mark.parametrize("scene", ["small", "dense", "sparse", "clusters"])
@pytest.mark.parametrize(("kind", "nms"), [("rotated", iou_ops.nms_gpu), ("normal", iou_ops.nms_normal_gpu)])
def test_keep_lists_are_equal(goldens, device, scene, kind, nms):
    case = load(goldens, "nms.npz", device)
    compared = 0
    for thresh in ("0.01", "0.1", "0.5", "0.7", "0.8"):
        key = f"{scene}.{kind}.{thresh}"
        if case[f"{key}.min_gap_to_threshold"] < NEAR_TIE:
            continue
        keep, _ = nms(case[f"{scene}.boxes"], case[f"{scene}.scores"], float(thresh))
        assert torch.equal(keep, case[f"{key}.keep"]), key
        compared += 1
    assert compared >= 4


def test_points_in_boxes(goldens, device):
    case = load(goldens, "points_in_boxes.npz", device)
    points, boxes = case["points"], case["boxes"]

    def unpack(bits):
        unpacked = np.unpackbits(bits.cpu().numpy(), axis=1)[:, : len(points)]
        return torch.from_numpy(unpacked).to(device)

    clear = case["margin"].abs() > FACE
    mask = point_ops.points_in_boxes_cpu(points, boxes)
    assert torch.equal(mask[clear], unpack(case["inside"]).int()[clear])
    assert torch.equal(mask, unpack(case["reference_cpu"]).int())  # the margin of 1 cm included
    index = point_ops.points_in_boxes_gpu(points[None], boxes[None])[0]
    assert torch.equal(index, case["reference_gpu_first_box"])
