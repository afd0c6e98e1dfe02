import subprocess
import sys

import numpy as np
import pytest

from pcdet.datasets.simulated import camera
from pcdet.datasets.simulated.frame import make_frame
from pcdet.datasets.simulated.render import png, render
from pcdet.utils import palette
from pcdet.utils.calibration_kitti import Calibration
from pcdet.utils.object3d_kitti import Object3d
from pcdet.utils.visualize import Boxes, boxes_of_labels, draw_bev, draw_image, read_image

LIMITS = [0, -20, -3, 40, 20, 1]


@pytest.fixture(scope="module")
def frame():
    return make_frame(0, 0)


@pytest.fixture(scope="module")
def calib(tmp_path_factory):
    path = tmp_path_factory.mktemp("calib") / "000000.txt"
    path.write_text(camera.calibration_text())
    return Calibration(path)


def pixels_of(colour, path):
    """(row, column) of the pixels that have a colour, or nearly."""
    wanted = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return np.argwhere((np.abs(read_image(path) - wanted) < 0.15).all(axis=-1))


def test_a_box_appears_where_it_is_seen_from_above(tmp_path):
    boxes = Boxes(np.array([[30.0, 15.0, -1, 4, 2, 1.5, 0.3]]))
    drawn = pixels_of(palette.FOUND, draw_bev(np.zeros((1, 3)), None, boxes, tmp_path / "bev.png", limits=LIMITS))
    height, width = read_image(tmp_path / "bev.png").shape[:2]
    assert len(drawn) > 50
    assert drawn[:, 0].max() < height / 2 and drawn[:, 1].max() < width / 2  # ahead is up, left is left


def test_a_velocity_leads_ahead_of_its_box_and_an_unknown_one_nowhere(tmp_path):
    box = np.array([[30.0, 0, -1, 4, 2, 1.5, 0]])
    lowest = {}
    for name, velocity in (("still", [0, 0]), ("backwards", [-15, 0]), ("unknown", [np.nan, np.nan])):
        path = draw_bev(np.zeros((1, 3)), None, np.hstack([box, [velocity]]), tmp_path / f"{name}.png", limits=LIMITS)
        lowest[name] = pixels_of(palette.FOUND, path)[:, 0].max()
    height = read_image(path).shape[0]
    assert lowest["backwards"] - lowest["still"] > 0.2 * height  # 13 of 40 m, margins aside
    assert lowest["unknown"] == lowest["still"]


def test_a_birds_eye_view_takes_truth_predictions_and_large_clouds(frame, tmp_path):
    truth = np.stack([b.box for b in frame.scene.bodies if b.label])
    names = [b.label for b in frame.scene.bodies if b.label]
    cloud = np.tile(frame.scan.points, (20, 1))
    path = draw_bev(cloud, truth, Boxes(truth, names, np.ones(len(truth))), tmp_path / "new" / "bev.png", title="a")
    assert read_image(path).std() > 0.02


def test_an_empty_frame_can_be_drawn(tmp_path):
    assert draw_bev(np.zeros((0, 4)), None, None, tmp_path / "empty.png").stat().st_size > 0


def test_drawing_the_same_thing_twice_gives_the_same_picture(frame, tmp_path):
    first = draw_bev(frame.scan.points, None, None, tmp_path / "a.png", limits=LIMITS)
    second = draw_bev(frame.scan.points, None, None, tmp_path / "b.png", limits=LIMITS)
    np.testing.assert_array_equal(read_image(first), read_image(second))


def test_boxes_in_a_picture_lie_on_the_objects(frame, calib, tmp_path):
    label = next(x for x in frame.labels if x.name == "Car" and x.truncated == 0)
    boxes = boxes_of_labels([Object3d(label.line())], calib, ["Car"])
    grey = np.full((camera.IMAGE_HEIGHT, camera.IMAGE_WIDTH, 3), 128, np.uint8)
    drawn = pixels_of(palette.CLASSES["Car"], draw_image(grey, calib, None, boxes, tmp_path / "image.png"))
    assert read_image(tmp_path / "image.png").shape == grey.shape
    found = np.array([drawn[:, 1].min(), drawn[:, 1].max(), drawn[:, 0].max()])  # the caption lies above the box
    np.testing.assert_allclose(found, label.bbox[[0, 2, 3]], atol=4)


def test_boxes_behind_and_around_the_camera_do_not_break_the_picture(calib, tmp_path):
    boxes = Boxes(np.array([[-10.0, 0, -1, 4, 2, 1.5, 0], [0.5, 0, -1, 4, 2, 1.5, 0]]), ["Car", "Car"], np.ones(2))
    picture = np.zeros((camera.IMAGE_HEIGHT, camera.IMAGE_WIDTH, 3), np.uint8)
    assert np.isfinite(read_image(draw_image(picture, calib, boxes.boxes, boxes, tmp_path / "a.png"))).all()


def test_a_rendered_scene_can_be_read_back(frame, tmp_path):
    picture = render(frame.scene)
    (tmp_path / "a.png").write_bytes(png(picture))
    np.testing.assert_array_equal(np.round(read_image(tmp_path / "a.png") * 255), picture)


def test_labels_of_other_classes_are_left_out(frame, calib):
    objects = [Object3d(label.line()) for label in frame.labels]
    boxes = boxes_of_labels(objects, calib, ["Pedestrian"])
    assert set(boxes.names) == {"Pedestrian"}
    assert boxes_of_labels([], calib, ["Car"]).boxes.shape == (0, 7)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (np.zeros((2, 6)), r"boxes must have shape \(M, 7 or more\).*got \[2, 6\]"),
        (Boxes(np.zeros((2, 7)), ["Car"]), "names must have one entry for each of 2 boxes, got 1"),
        (Boxes(np.zeros((2, 7)), None, np.zeros(3)), "scores must have one entry for each of 2 boxes, got 3"),
    ],
)
def test_boxes_that_do_not_fit_are_named(boxes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        draw_bev(np.zeros((0, 3)), None, boxes, tmp_path / "a.png")


def test_points_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"points must have shape \(N, 3 or more\).*got \[5\]"):
        draw_bev(np.zeros(5), None, None, tmp_path / "a.png")


def test_importing_the_module_does_not_import_matplotlib():
    code = "import sys, pcdet.utils.visualize; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
