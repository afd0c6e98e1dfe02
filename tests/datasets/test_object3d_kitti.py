import pickle

import numpy as np
import pytest

from pcdet.utils.object3d_kitti import LabelError, Object3d, get_objects_from_label

LINE = "Car 0.10 1 1.85 387.63 181.54 423.81 223.12 1.67 1.87 3.69 -16.53 2.39 58.49 1.57"


def line(height=50.0, truncated=0.0, occluded=0):
    return f"Car {truncated} {occluded} 0 10 100 60 {100 + height - 1} 1.5 1.6 3.9 1 2 30 0.5"


def test_fields_land_where_they_belong():
    item = Object3d(LINE + " 0.75")
    assert (item.cls_type, item.truncation, item.occlusion, item.alpha) == ("Car", 0.1, 1.0, 1.85)
    assert (item.h, item.w, item.l, item.ry, item.score) == (1.67, 1.87, 3.69, 1.57, 0.75)
    np.testing.assert_allclose(item.loc, [-16.53, 2.39, 58.49], rtol=1e-6)
    np.testing.assert_allclose(item.box2d, [387.63, 181.54, 423.81, 223.12], rtol=1e-6)
    assert Object3d(LINE).score == -1
    assert Object3d(LINE).to_kitti_format() == LINE
    thin = LINE.replace(f" {item.l:.2f} ", " 0.00008 ")
    assert Object3d(Object3d(thin).to_kitti_format()).l == 0.00008  # not 0.00, a size that no object has
    assert "Car" in Object3d(LINE).to_str_object()
    assert Object3d(LINE).generate_corners3d().shape == (8, 3)
    assert Object3d(LINE.replace("Car", "Tram")).cls_id == -1


@pytest.mark.parametrize(
    ("height", "truncated", "occluded", "level"),
    [
        (40, 0.15, 0, 0),  # every limit belongs to the level
        (39.9, 0.15, 0, 1),
        (40, 0.16, 0, 1),
        (40, 0.15, 1, 1),
        (25, 0.30, 1, 1),
        (25, 0.31, 1, 2),
        (25, 0.30, 2, 2),
        (25, 0.50, 2, 2),
        (24.9, 0, 0, -1),
        (50, 0.51, 0, -1),
        (50, 0, 3, -1),
    ],
)
def test_difficulty(height, truncated, occluded, level):
    assert Object3d(line(height, truncated, occluded)).get_kitti_obj_level() == level


def test_an_empty_file_has_no_objects(tmp_path):
    path = tmp_path / "label.txt"
    path.write_text("\n  \n")
    assert get_objects_from_label(path) == []


def test_every_malformed_line_is_named(tmp_path):
    path = tmp_path / "000042.txt"
    path.write_text("\n".join([LINE, "Car 0 0", LINE, LINE.replace("1.85", "x"), LINE.replace("1.57", "nan")]))
    with pytest.raises(LabelError) as error:
        get_objects_from_label(path)
    problems = error.value.problems
    assert [p.split(": ")[0].endswith(f"000042.txt, line {n}") for p, n in zip(problems, (2, 4, 5), strict=True)]
    assert "expected 15 fields" in problems[0] and "got 3" in problems[0]
    assert "field 4 must be a number, got 'x'" in problems[1]
    assert "finite" in problems[2]
    assert pickle.loads(pickle.dumps(error.value)).problems == problems


def test_a_binary_file_is_no_label_file(tmp_path):
    path = tmp_path / "label.txt"
    path.write_bytes(b"\xff\xfe\x00Car")
    with pytest.raises(LabelError, match="not a text file"):
        get_objects_from_label(path)
