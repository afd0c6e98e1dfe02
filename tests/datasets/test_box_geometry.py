"""Boxes and the camera: hand values, round trips, properties."""

import numpy as np
import pytest
import torch
from support.kitti_files import P2, R0, VELO_TO_CAM, calib_text

from pcdet.utils import box_utils
from pcdet.utils.calibration_kitti import Calibration, CalibrationError, get_calib_from_file

# A rotated, shifted camera: nothing in it is zero by accident.
TURNED = {
    "P2": np.array([[721.5, 0, 609.6, 44.9], [0, 721.5, 172.9, 0.2], [0, 0, 1, 0.0027]]),
    "R0": np.array(
        [[0.9999239, 0.00983776, -0.007445048], [-0.0098698, 0.9999421, -0.0042785], [0.0074025, 0.0043516, 0.9999631]]
    ),
    "Tr_velo2cam": np.array(
        [[0.00753375, -0.9999714, -0.000616602, -0.00406977], [0.01480249, 0.00072807, -0.9998902, -0.07631618],
         [0.9998621, 0.00752379, 0.01480755, -0.2717806]]
    ),
}  # fmt: skip


@pytest.fixture
def calib():
    return Calibration(TURNED)


@pytest.fixture
def simple():
    return Calibration({"P2": P2, "R0": R0, "Tr_velo2cam": VELO_TO_CAM})


def boxes(n=50, seed=0):
    rng = np.random.default_rng(seed)
    centre = rng.uniform([5, -20, -2], [60, 20, 1], (n, 3))
    return np.column_stack([centre, rng.uniform(0.5, 5, (n, 3)), rng.uniform(-np.pi, np.pi, n)])


def test_a_point_ahead_projects_to_the_principal_point(simple):
    rect = simple.lidar_to_rect(np.array([[10.0, 0, 0]]))
    np.testing.assert_allclose(rect, [[0, 0, 10]])
    for project in (simple.rect_to_img, simple.project_rect):
        pixels, depth = project(rect)
        np.testing.assert_allclose(pixels, [[600, 180]])
        np.testing.assert_allclose(depth, [10])


def test_one_metre_left_and_up_moves_the_pixel_left_and_up(simple):
    pixels, _ = simple.lidar_to_img(np.array([[10.0, 1, 1]]))
    np.testing.assert_allclose(pixels, [[600 - 70, 180 - 70]])


def test_points_come_back_from_the_camera_and_from_the_image(calib):
    points = boxes()[:, :3]
    rect = calib.lidar_to_rect(points)
    np.testing.assert_allclose(calib.rect_to_lidar(rect), points, atol=1e-10)
    pixels, _ = calib.rect_to_img(rect)
    # img_to_rect leaves out P2[2, 3] as OpenPCDet does, and so inverts rect_to_img exactly
    np.testing.assert_allclose(calib.img_to_rect(pixels[:, 0], pixels[:, 1], rect[:, 2]), rect, atol=1e-9)


def test_the_two_projections_differ_by_the_offset_between_the_cameras_only(calib):
    rect = calib.lidar_to_rect(boxes()[:, :3])
    exact, depth = calib.project_rect(rect)
    theirs, their_depth = calib.rect_to_img(rect)
    np.testing.assert_allclose(theirs * rect[:, 2:], exact * depth[:, None], rtol=1e-12)
    np.testing.assert_allclose(depth - their_depth, 0.0027, atol=1e-12)


def test_a_calibration_file_is_read_by_names(tmp_path):
    path = tmp_path / "calib.txt"
    lines = calib_text().splitlines()
    path.write_text("\n".join(reversed(lines)) + "\n\n")
    matrices = get_calib_from_file(path)
    np.testing.assert_array_equal(matrices["P2"], P2)
    np.testing.assert_array_equal(matrices["Tr_velo2cam"], VELO_TO_CAM)
    path.write_text("\n".join(lines).replace("R0_rect:", "R_rect").replace("Tr_velo_to_cam:", "Tr_velo_cam"))
    np.testing.assert_array_equal(get_calib_from_file(path)["R0"], R0)


def test_a_broken_calibration_names_the_file_and_every_entry(tmp_path):
    path = tmp_path / "000007.txt"
    path.write_text("P2: 1 2 3\nR0_rect: " + "x " * 9 + "\n")
    with pytest.raises(CalibrationError, match="000007.txt.*P2 must hold 12.*got 3.*R0_rect.*Tr_velo_to_cam"):
        Calibration(path)


def test_a_car_ahead_has_the_camera_box_one_expects(simple):
    # heading 0 (away from the camera) is ry = -pi/2; the camera's y points down, to the bottom face
    camera = box_utils.boxes3d_lidar_to_kitti_camera(np.array([[20.0, 2, -1, 4, 1.8, 1.5, 0]]), simple)
    np.testing.assert_allclose(camera, [[-2, 1.75, 20, 4, 1.5, 1.8, -np.pi / 2]])


def test_boxes_come_back_from_the_camera(calib):
    lidar = boxes()
    back = box_utils.boxes3d_kitti_camera_to_lidar(box_utils.boxes3d_lidar_to_kitti_camera(lidar, calib), calib)
    np.testing.assert_allclose(back, lidar, atol=1e-9)


def test_boxes_come_back_from_fake_lidar():
    lidar = boxes()
    back = box_utils.boxes3d_kitti_fakelidar_to_lidar(box_utils.boxes3d_kitti_lidar_to_fakelidar(lidar))
    np.testing.assert_allclose(back, lidar, atol=1e-12)


def test_corners_of_both_frames_are_the_same_points(simple):
    lidar = boxes()
    camera = box_utils.boxes3d_lidar_to_kitti_camera(lidar, simple)
    ours = box_utils.boxes3d_to_corners3d_kitti_camera(camera)
    other = simple.lidar_to_rect(box_utils.boxes_to_corners_3d(lidar).reshape(-1, 3)).reshape(-1, 8, 3)

    def ordered(corners):
        return np.stack([c[np.lexsort(c.round(6).T)] for c in corners])

    np.testing.assert_allclose(ordered(ours), ordered(other), atol=1e-5)
    assert (ours[:, :4, 1] > ours[:, 4:, 1]).all(), "the bottom face comes first, and y is down"
    lifted = box_utils.boxes3d_to_corners3d_kitti_camera(camera, bottom_center=False)
    np.testing.assert_allclose(lifted[:, :, 1] - ours[:, :, 1], np.repeat(camera[:, 4:5] / 2, 8, 1), atol=1e-9)


def test_image_boxes_of_a_hand_computed_box(simple):
    # faces at 9 and 11 m, 2 m wide and high about the axis: the nearer one spans 700 / 9 pixels each way
    camera = np.array([[0.0, 1, 10, 2, 2, 2, 0]])
    half = 700 / 9
    expected = [[600 - half, 180 - half, 600 + half, 180 + half]]
    np.testing.assert_allclose(box_utils.boxes3d_kitti_camera_to_imageboxes(camera, simple), expected)
    clipped = box_utils.boxes3d_kitti_camera_to_imageboxes(camera, simple, image_shape=(200, 620))
    np.testing.assert_allclose(clipped, [[600 - half, 180 - half, 619, 199]])
    around, corners = simple.corners3d_to_img_boxes(box_utils.boxes3d_to_corners3d_kitti_camera(camera))
    np.testing.assert_allclose(around, expected)
    assert corners.shape == (1, 8, 2)


def test_points_inside_are_those_inside_the_hull_of_the_corners():
    rng = np.random.default_rng(3)
    some = boxes(12, seed=3)
    points = rng.uniform([0, -25, -4], [65, 25, 3], (20000, 3))
    ours = box_utils.points_in_boxes_mask(points, some, margin=0.0)
    for mask, corners in zip(ours, box_utils.boxes_to_corners_3d(some), strict=True):
        np.testing.assert_array_equal(mask, box_utils.in_hull(points, corners))
    assert ours.any()


def test_a_flat_hull_contains_nothing():
    assert not box_utils.in_hull(np.zeros((3, 3)), np.zeros((8, 3))).any()


def test_removing_points_keeps_the_order_of_the_rest():
    points = np.array([[0.0, 0, 0, 1], [5, 0, 0, 2], [9, 0, 0, 3]], dtype=np.float32)
    box = np.array([[5.0, 0, 0, 2, 2, 2, 0.4]], dtype=np.float32)
    for kind in (np.asarray, torch.from_numpy):
        left = box_utils.remove_points_in_boxes3d(kind(points), kind(box))
        np.testing.assert_array_equal(np.asarray(left), points[[0, 2]])
    assert len(box_utils.remove_points_in_boxes3d(points, box[:0])) == 3


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_no_boxes_give_no_corners_and_precision_is_kept(kind):
    assert tuple(box_utils.boxes_to_corners_3d(kind(np.zeros((0, 7)))).shape) == (0, 8, 3)
    assert np.asarray(box_utils.boxes_to_corners_3d(kind(boxes()))).dtype == np.float64


def test_overlaps_of_hand_computed_rectangles():
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 0, 0]])
    b = torch.tensor([[1.0, 1, 3, 3], [5, 5, 6, 6], [0, 0, 0, 0]])
    expected = torch.tensor([[1 / 7, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(box_utils.boxes_iou_normal(a, b), expected)


def test_the_nearest_overlap_ignores_half_turns_and_snaps_to_the_axes():
    box = torch.tensor([[0.0, 0, 0, 4, 2, 1, 0.1]])
    turned = box + torch.tensor([0, 0, 0, 0, 0, 0, np.pi])
    quarter = torch.tensor([[0.0, 0, 0, 2, 4, 1, np.pi / 2 - 0.1]])
    for other in (turned, quarter.float()):
        torch.testing.assert_close(box_utils.boxes3d_nearest_bev_iou(box, other.float()), torch.ones(1, 1))


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"shape \(N, 7\+\).*got \[3, 6\]"):
        box_utils.boxes_to_corners_3d(np.zeros((3, 6)))


@pytest.mark.parametrize("shift", [0.0, 3e6])
def test_many_boxes_in_a_large_cloud_hold_the_points_that_each_holds_alone(shift):
    rng = np.random.default_rng(3)
    points = rng.uniform(-60, 60, (20_000, 5)).astype(np.float32)
    points[:, 2] *= 0.05
    boxes = np.concatenate([rng.uniform(-70, 70, (12, 2)), np.zeros((12, 1)), rng.uniform(0.5, 12, (12, 4))], axis=1)
    points[:, :2] += shift
    boxes[:, :2] += shift
    points[:3, 0] = np.nan, np.inf, -np.inf
    alone = [box_utils.points_in_boxes_mask(points, box[None])[0] for box in boxes]
    together = box_utils.points_in_boxes_mask(points, boxes)
    np.testing.assert_array_equal(together, alone)
    assert together.any() and not together[:, :3].any()
    np.testing.assert_array_equal(box_utils.points_in_any_box(points, boxes), together.any(axis=0))
