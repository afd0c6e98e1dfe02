"""Text files: marks and line ends that change nothing, and files that are refused by name."""

from pathlib import Path

import numpy as np
import pytest
from support import kitti_files
from support.kitti_files import CAR, PEDESTRIAN

from pcdet.datasets.errors import DataError
from pcdet.datasets.kitti.evaluate import evaluate_folders
from pcdet.datasets.kitti.kitti_object_eval_python.kitti_common import get_label_anno
from pcdet.datasets.kitti.kitti_utils import read_road_plane
from pcdet.datasets.kitti.split_files import read_split
from pcdet.utils.calibration_kitti import CalibrationError, get_calib_from_file
from pcdet.utils.object3d_kitti import LabelError, get_objects_from_label
from pcdet.utils.text_files import TextFileError, read_text

LABELS = kitti_files.label_line("Car", CAR) + kitti_files.label_line("Pedestrian", PEDESTRIAN)
PLANE = "# Plane\nWidth 4\nHeight 1\n0 -1 0 1.65\n"
REGRESSIONS = Path(__file__).resolve().parents[1] / "regressions"
READERS = {
    "labels": (get_objects_from_label, LabelError),
    "calib": (get_calib_from_file, CalibrationError),
    "planes": (read_road_plane, DataError),
    "splits": (read_split, DataError),
}


@pytest.fixture(params=["mark", "carriage returns", "blanks", "all"])
def as_edited(request):
    """Writes a text as other editors would."""

    def write(path, text):
        if request.param in ("blanks", "all"):
            text = text.replace("\n", " \t\n") + "\n \n"
        if request.param in ("carriage returns", "all"):
            text = text.replace("\n", "\r\n")
        mark = b"\xef\xbb\xbf" if request.param in ("mark", "all") else b""
        path.write_bytes(mark + text.encode())
        return path

    return write


def test_marks_line_ends_and_blanks_change_nothing(tmp_path, as_edited):
    objects = get_objects_from_label(as_edited(tmp_path / "label.txt", LABELS))
    assert [item.cls_type for item in objects] == ["Car", "Pedestrian"]
    assert get_label_anno(tmp_path / "label.txt")["name"].tolist() == ["Car", "Pedestrian"]
    matrices = get_calib_from_file(as_edited(tmp_path / "calib.txt", kitti_files.calib_text()[3:]))  # P0 is not read
    np.testing.assert_array_equal(matrices["P2"], kitti_files.P2)
    matrices = get_calib_from_file(as_edited(tmp_path / "calib.txt", "P2" + kitti_files.calib_text()[2:]))
    np.testing.assert_array_equal(matrices["P2"], kitti_files.P2)
    np.testing.assert_allclose(read_road_plane(as_edited(tmp_path / "plane.txt", PLANE)), [0, -1, 0, 1.65], rtol=1e-6)
    assert read_split(as_edited(tmp_path / "train.txt", "000007\n000003\n")) == ["000007", "000003"]


def test_marks_before_labels_and_results_leave_the_score_as_it_is(tmp_path):
    def score(mark):
        for folder, ending in (("labels", "\n"), ("results", " 0.9\n")):
            (tmp_path / folder).mkdir(exist_ok=True)
            for i in range(4):
                line = kitti_files.label_line("Car", CAR).replace("\n", ending)
                (tmp_path / folder / f"{i:06d}.txt").write_bytes(mark + line.encode())
        return evaluate_folders(tmp_path / "labels", tmp_path / "results", classes=["Car"])

    without, with_marks = score(b""), score(b"\xef\xbb\xbf")
    assert without["strict"]["ap"]["Car"]["3d"]["easy"]["R11"] > 0
    assert with_marks == without


def test_dont_care_areas_need_no_size(tmp_path):
    (tmp_path / "label.txt").write_text(LABELS + kitti_files.DONT_CARE)
    assert [item.cls_type for item in get_objects_from_label(tmp_path / "label.txt")][-1] == "DontCare"


def test_what_is_not_text_is_named_with_its_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("first\nzw\u00f6lf\n".encode("latin-1"))
    with pytest.raises(TextFileError, match=r"a.txt, line 2: not a text file in UTF-8 .* byte 8.*save it as UTF-8"):
        read_text(path)


@pytest.mark.parametrize("path", sorted(p for f in READERS for p in (REGRESSIONS / f).iterdir()), ids=lambda p: p.name)
def test_every_bad_file_is_refused_by_name(path):
    read, kind = READERS[path.parent.name]
    with pytest.raises(kind, match=path.name):
        read(path)


def test_a_list_may_hold_several_names_a_line_each_of_which_is_checked(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("000007 000003\t000004\n\n  000001\n")
    assert read_split(path) == ["000007", "000003", "000004", "000001"]
    path.write_text("000007 000003\n000004 ../000001\n000005 000003\n")
    with pytest.raises(DataError) as error:
        read_split(path)
    assert [problem.partition(", ")[2] for problem in error.value.problems] == [
        "line 2: must hold names of frames, such as 000123, got '../000001'",
        "line 3: lists frame 000003 more than once (first in line 1)",
    ]


@pytest.mark.parametrize("line", ["# frames of the first day", "#000001", "000001 # bad weather"])
def test_a_list_of_frames_has_no_comments(tmp_path, line):
    path = tmp_path / "train.txt"
    path.write_text(f"000000\n{line}\n")
    with pytest.raises(DataError, match=f"train.txt, line 2: a list of frames has no comments, got '{line}'"):
        read_split(path)


def test_repeated_frames_of_a_list_are_named_with_their_lines():
    with pytest.raises(DataError, match=r"repeated.txt, line 3: lists frame 000000 more than once \(first in line 1\)"):
        read_split(REGRESSIONS / "splits" / "repeated.txt")


def test_repeated_frames_are_not_scored_twice(tmp_path):
    for folder, score in (("labels", ""), ("results", " 0.9")):
        (tmp_path / folder).mkdir()
        for frame in ("000000", "000001"):
            line = kitti_files.label_line("Car", CAR)
            (tmp_path / folder / f"{frame}.txt").write_text(line.replace("\n", f"{score}\n"))
    with pytest.raises(DataError, match="lists frame 000000 more than once"):
        evaluate_folders(
            tmp_path / "labels", tmp_path / "results", label_split_file=REGRESSIONS / "splits" / "repeated.txt"
        )
