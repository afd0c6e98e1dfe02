"""Box geometry against OpenPCDet's numbers (reference/targets/units.npz)."""

import numpy as np
import pytest
import torch

from pcdet.utils import box_utils
from pcdet.utils.common_utils import limit_period, rotate_points_along_z


@pytest.fixture(scope="module")
def units(goldens):
    return np.load(goldens / "reference" / "targets" / "units.npz", allow_pickle=False)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_corners_enlarging_and_fake_lidar_equal_the_reference(units, as_tensor):
    boxes = torch.from_numpy(units["box.boxes"]) if as_tensor else units["box.boxes"]
    cases = {
        "box.corners": box_utils.boxes_to_corners_3d(boxes),
        "box.enlarged_0.2_0.3_0.4": box_utils.enlarge_box3d(boxes, (0.2, 0.3, 0.4)),
        "box.fakelidar": box_utils.boxes3d_kitti_lidar_to_fakelidar(boxes),
        "box.from_fakelidar": box_utils.boxes3d_kitti_fakelidar_to_lidar(boxes),
    }
    for key, ours in cases.items():
        assert isinstance(ours, torch.Tensor) == as_tensor
        np.testing.assert_allclose(np.asarray(ours), units[key], rtol=1e-6, atol=1e-5, err_msg=key)


def test_bev_boxes_and_their_overlaps_equal_the_reference(units):
    boxes, others = torch.from_numpy(units["box.boxes"]), torch.from_numpy(units["box.boxes2"])
    np.testing.assert_allclose(
        box_utils.boxes3d_lidar_to_aligned_bev_boxes(boxes), units["box.aligned_bev"], rtol=1e-6, atol=1e-5
    )
    np.testing.assert_allclose(
        box_utils.boxes3d_nearest_bev_iou(boxes, others), units["box.nearest_bev_iou"], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("mask.center", {}),
        ("mask.corners1", {"use_center_to_filter": False, "min_num_corners": 1}),
        ("mask.corners4", {"use_center_to_filter": False, "min_num_corners": 4}),
    ],
)
def test_range_masks_equal_the_reference(units, key, options):
    ours = box_utils.mask_boxes_outside_range_numpy(units["mask.boxes"], units["mask.range"], **options)
    np.testing.assert_array_equal(ours, units[key])


@pytest.mark.parametrize(
    ("offset", "period", "key"),
    [
        (0.5, np.pi, "limit.offset0.5.period1pi"),
        (0.5, 2 * np.pi, "limit.offset0.5.period2pi"),
        (0.0, 2 * np.pi, "limit.offset0.period2pi"),
        (0.0, np.pi, "limit.offset0.0.period1pi"),
        (1.0, 2 * np.pi, "limit.offset1.0.period2pi"),
    ],
)
def test_wrapped_angles_equal_the_reference(units, offset, period, key):
    ours = limit_period(torch.from_numpy(units["limit.x"]), offset, period)
    np.testing.assert_allclose(ours, units[key], atol=1e-5)


def test_rotated_points_equal_the_reference(units):
    points, angle = torch.from_numpy(units["rot.points"]), torch.from_numpy(units["rot.angle"])
    np.testing.assert_allclose(rotate_points_along_z(points, angle), units["rot.out"], atol=1e-5)


def test_points_in_boxes_equal_the_truth_away_from_the_faces(goldens):
    data = np.load(goldens / "reference" / "boxes" / "points_in_boxes.npz", allow_pickle=False)
    points, boxes = data["points"].reshape(-1, 3), data["boxes"].reshape(-1, 7)
    inside = np.unpackbits(data["inside"], axis=-1).reshape(len(boxes), -1)[:, : len(points)].astype(bool)
    clear = np.abs(data["margin"].reshape(len(boxes), len(points)).astype(np.float32)) > 1.5e-2
    ours = box_utils.points_in_boxes_mask(points, boxes)
    np.testing.assert_array_equal(ours[clear], inside[clear])
