import numpy as np
import pytest

RANGE = [0, -25.6, -3, 51.2, 25.6, 1]


@pytest.fixture
def overfit(tool):
    return tool("dev/overfit")


def info(frame, *objects):
    """An info of (class, x, y, points) objects, with a DontCare area behind them as KITTI has it."""
    boxes = np.array([[x, y, -1, 4, 2, 1.5, 0] for _, x, y, _ in objects]).reshape(-1, 7)
    names = np.array([name for name, *_ in objects] + ["DontCare"])
    points = np.array([n for *_, n in objects] + [-1])
    annos = {"name": names, "gt_boxes_lidar": boxes, "num_points_in_gt": points}
    return {"point_cloud": {"lidar_idx": frame}, "annos": annos}


def test_the_frames_to_learn_have_a_car_and_nothing_that_cannot_be_found(overfit):
    infos = [
        info("no_car", ("Pedestrian", 10, 0, 50)),
        info("beyond", ("Car", 10, 0, 50), ("Cyclist", 60, 0, 50)),
        info("beside", ("Car", 10, -26, 50)),
        info("sparse", ("Car", 10, 0, 50), ("Car", 30, 0, 4)),
        info("first", ("Car", 10, 0, 5), ("Pedestrian", 51, 25, 9)),
        info("van_afar", ("Car", 20, 3, 80), ("Van", 70, 0, 1)),
        info("too_many", ("Car", 20, 3, 80)),
    ]
    frames, objects = overfit.frames_to_learn(infos, RANGE, 2)
    assert frames == ["first", "van_afar"]
    assert objects == {"Car": 2, "Pedestrian": 1, "Cyclist": 0}


def test_too_few_fitting_frames_are_an_error_and_not_a_smaller_set(overfit):
    with pytest.raises(SystemExit, match="only 1 of the 1 train frames fit, 2 are asked for"):
        overfit.frames_to_learn([info("one", ("Car", 10, 0, 5))], RANGE, 2)
