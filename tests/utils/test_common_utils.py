import contextlib
import logging
import math

import numpy as np
import pytest
import torch

from pcdet.utils import common_utils


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_limit_period_wraps_into_half_open_interval(kind):
    wrapped = common_utils.limit_period(kind([math.pi, -math.pi, 3.5 * math.pi, 0.3]), 0.5, 2 * math.pi)
    np.testing.assert_allclose(np.asarray(wrapped), [-math.pi, -math.pi, -0.5 * math.pi, 0.3], atol=1e-6)


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_a_quarter_turn_takes_x_to_y_and_keeps_features(kind):
    points = kind([[[1.0, 0.0, 2.0, 9.0]]])
    turned = common_utils.rotate_points_along_z(points, kind([math.pi / 2]))
    np.testing.assert_allclose(np.asarray(turned), [[[0.0, 1.0, 2.0, 9.0]]], atol=1e-6)


def test_range_mask_includes_both_ends_and_ignores_z():
    points = np.array([[0.0, 0.0, 99.0], [10.0, 5.0, 0.0], [10.1, 0.0, 0.0], [5.0, -5.1, 0.0]])
    assert common_utils.mask_points_by_range(points, [0, -5, -3, 10, 5, 1]).tolist() == [True, True, False, False]


def test_voxel_centers_follow_stride_and_range():
    centers = common_utils.get_voxel_centers(torch.tensor([[1, 2, 3]]), 2, [0.5, 0.5, 1.0], [0, -40, -3, 70, 40, 1])
    torch.testing.assert_close(centers, torch.tensor([[3.5, -37.5, 0.0]]))


def test_batch_to_device_makes_floats_and_leaves_host_entries():
    batch = {
        "points": np.ones((2, 5), np.float64),
        "voxel_coords": np.ones((2, 4), np.int32),
        "image_shape": np.array([[375, 1242]]),
        "frame_id": np.array(["000001"]),
        "calib": [object()],
        "batch_size": 1,
    }
    moved = common_utils.batch_to_device(batch, "cpu")
    assert moved["points"].dtype == moved["voxel_coords"].dtype == torch.float32
    assert moved["image_shape"].dtype == torch.int32
    assert isinstance(moved["frame_id"], np.ndarray) and moved["batch_size"] == 1


def test_the_logger_writes_openpcdets_line_format_and_other_ranks_stay_quiet(tmp_path):
    logger = common_utils.create_logger(tmp_path / "log.txt", rank=0)
    logger.info("hello")
    assert (tmp_path / "log.txt").read_text().endswith("   INFO  hello\n")
    assert common_utils.create_logger(tmp_path / "other.txt", rank=1).level == logging.ERROR
    assert not (tmp_path / "other.txt").exists()


def test_a_full_disk_is_told_once_and_the_log_goes_on_when_there_is_room(tmp_path, capfd):
    logger = common_utils.create_logger(tmp_path / "a.log")
    (handler,) = (h for h in logger.handlers if isinstance(h, logging.FileHandler))
    stream, full = handler.stream, open("/dev/full", "w")
    handler.stream = full
    for line in ("one", "two", "three"):
        logger.info(line)
    handler.stream = stream
    logger.info("four")
    said = capfd.readouterr()
    assert "one" in said.out and "Traceback" not in said.err
    assert said.err.count("\n") == 1 and f"cannot be written to {tmp_path / 'a.log'}: No space left" in said.err
    assert (tmp_path / "a.log").read_text().endswith("four\n")
    common_utils.create_logger()
    with contextlib.suppress(OSError):
        full.close()
