"""Targets: KITTI's text files, and result files as the evaluation reads them."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from support import kitti_files

from fuzz.target import Target
from pcdet.datasets.errors import DataError
from pcdet.datasets.kitti.evaluate import evaluate_folders, read_split
from pcdet.datasets.kitti.kitti_infos import find_frames
from pcdet.datasets.kitti.kitti_object_eval_python.kitti_common import read_objects
from pcdet.datasets.kitti.kitti_utils import read_road_plane, write_result_file
from pcdet.utils.calibration_kitti import Calibration, CalibrationError
from pcdet.utils.object3d_kitti import LabelError, get_objects_from_label

NUMBERS = (b"-1", b"0.00", b"1e39", b"1e400", b"nan", b"inf", b"1_0", b"0x10", b"+.5", b"1e", "\u0663".encode())
SPACES = (b" ", b"\t", b"\r\n", b"\n", b"\x0b", b"\x85", "\u00a0".encode(), "\ufeff".encode(), b"\x00", b"\xff\xfe")
LABELS = kitti_files.DONT_CARE + "".join(
    kitti_files.label_line(name, getattr(kitti_files, name.upper())) for name in ("Car", "Pedestrian", "Cyclist", "Van")
)
PLANE = "# Plane\nWidth 4\nHeight 1\n-1.851372e-02 -9.998285e-01 -5.362310e-04 1.678761e+00\n"


def _number():
    plain = st.floats(-200, 2000).map(lambda x: f"{x:.2f}")
    return st.one_of(
        plain, plain, plain, st.floats().map(repr), st.integers().map(str), st.sampled_from(["-", "", "x"])
    )


def _lines(columns: int):
    """Files of records with about so many columns behind the name."""
    name = st.sampled_from(["Car", "Pedestrian", "DontCare", "Cyclist", "Van", "Tram", "car", "\u8eca"])
    numbers = st.one_of(
        *[st.lists(_number(), min_size=n, max_size=n) for n in (columns, columns, columns + 1, columns - 1)]
    )
    line = st.tuples(name, numbers).map(lambda pair: " ".join([pair[0], *pair[1]]))
    end = st.sampled_from(["\n", "\n", "\r\n", "\n\n", " "])
    return st.lists(st.tuples(line, end), max_size=4).map(lambda parts: "".join(map("".join, parts)).encode())


def _calibrations():
    entry = st.tuples(
        st.sampled_from(["P0", "P2", "P2", "P3", "R0_rect", "R_rect", "Tr_velo_to_cam", "Tr_velo_cam", "x"]),
        st.sampled_from([": ", " ", ":", ""]),
        st.lists(_number(), min_size=8, max_size=13),
    ).map(lambda e: f"{e[0]}{e[1]}{' '.join(e[2])}\n")
    return st.lists(entry, max_size=3).map(lambda more: (kitti_files.calib_text() + "".join(more)).encode())


# ------------------------------------------------------------------------------------------------------------- checks


def _key(objects: list) -> list:
    return [(o.cls_type, o.truncation, o.occlusion, *map(float, o.box2d), o.h, o.w, o.l, *o.loc, o.ry) for o in objects]


def _check_labels(objects: list, path: Path) -> None:
    for item in objects:
        assert np.isfinite(item.box2d).all() and np.isfinite(item.loc).all(), f"{item.src!r} holds infinite numbers"
    assert _key(get_objects_from_label(path)) == _key(objects), "a second reading differs"
    again = path.with_name("again.txt")
    again.write_text("".join(f"{item.to_kitti_format()}\n" for item in objects))
    copies = get_objects_from_label(again)
    assert [c.cls_type for c in copies] == [o.cls_type for o in objects], "written and read again, the names differ"
    ours, theirs = (np.array([[*o.loc, o.h, o.w, o.l, o.ry] for o in s], dtype=np.float64) for s in (objects, copies))
    assert np.allclose(ours, theirs, rtol=1e-6, atol=0.0051), "written and read again, the numbers differ"


def _check_calibration(calib: Calibration, path: Path) -> None:
    for name in ("P2", "R0", "V2C", "lidar_to_rect_matrix"):
        assert np.isfinite(getattr(calib, name)).all(), f"{name} is not finite"
    assert np.isfinite(calib.rect_to_lidar(np.ones((1, 3)))).all(), "the way back to the LiDAR is not finite"
    again = Calibration(path)
    assert np.array_equal(again.P2, calib.P2) and np.array_equal(again.V2C, calib.V2C), "a second reading differs"


def _check_plane(plane: np.ndarray, path: Path) -> None:
    assert plane.shape == (4,) and plane.dtype == np.float32, f"a plane is {plane!r}"
    assert np.isfinite(plane).all(), f"a plane is {plane.tolist()}"
    assert abs(np.linalg.norm(plane[:3].astype(np.float64)) - 1) < 1e-3 and plane[1] <= 0, (
        f"a plane is {plane.tolist()}"
    )


def _check_names(names: list[str], path: Path) -> None:
    assert all(name and not name.isspace() for name in names), "a frame has an empty name"
    assert not (names and names[0].startswith("\ufeff")), "a byte order mark belongs to a frame's name"


def _check_objects(objects: Any, path: Path) -> None:
    again = read_objects(path.parent, [path.stem], scored=True)
    for name, values in vars(objects).items():
        if isinstance(values, np.ndarray):
            assert values.tobytes() == getattr(again, name).tobytes(), f"a second reading differs in {name}"


def _check_metrics(results: dict, path: Path) -> None:
    assert results["frames"] == 1, f"{results['frames']} frames were scored"


# ----------------------------------------------------------------------------------------------- where the files lie


def _image_sets(folder: Path, name: str) -> Path:
    (folder / "training").mkdir()
    (folder / "ImageSets").mkdir()
    (folder / "ImageSets/val.txt").write_text("000004\n")
    return folder / "ImageSets/train.txt"


def _read_image_sets(path: Path) -> list[str]:
    frames = find_frames(path.parents[1], 4, logging.getLogger("fuzz"))["train"]
    return [files.frame for files in frames]


def _results(folder: Path, name: str) -> Path:
    (folder / "labels").mkdir()
    (folder / "labels/000000.txt").write_text(LABELS)
    return folder / "results/000000.txt"


def _seeds_results() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.txt"
        count = 3
        anno = {"name": ["Car", "Pedestrian", "Cyclist"], "alpha": np.zeros(count), "rotation_y": np.ones(count)}
        anno |= {
            "bbox": np.full((count, 4), [100.0, 100, 200, 200]),
            "dimensions": np.full((count, 3), [4.0, 1.5, 1.8]),
        }
        anno |= {"location": np.full((count, 3), [-2.0, 1.75, 20]), "score": np.array([0.9, 0.5, 0.1])}
        write_result_file(file, anno)
        return [file.read_bytes(), b"", file.read_bytes().replace(b"\n", b" 1 2\n")]


TEXT = {"suffix": ".txt", "text": True, "tokens": (*NUMBERS, *SPACES, b"DontCare", b"Car", b"P2:", b"R0_rect:")}
TARGETS = [
    Target(
        name="kitti_labels",
        folder="labels",
        read=get_objects_from_label,
        modules=("pcdet.utils.object3d_kitti", "pcdet.utils.text_files"),
        refusals=(LabelError,),
        seeds=lambda: [LABELS.encode(), b"", LABELS.splitlines()[1].encode() + b" 0.5\n"],
        structure=lambda: _lines(14),
        check=_check_labels,
        **TEXT,
    ),
    Target(
        name="kitti_calibration",
        folder="calibrations",
        read=Calibration,
        modules=("pcdet.utils.calibration_kitti",),
        refusals=(CalibrationError,),
        seeds=lambda: [kitti_files.calib_text().encode()],
        structure=_calibrations,
        check=_check_calibration,
        **TEXT,
    ),
    Target(
        name="road_plane",
        folder="planes",
        read=read_road_plane,
        modules=("pcdet.datasets.kitti.kitti_utils",),
        refusals=(ValueError,),
        seeds=lambda: [PLANE.encode()],
        structure=lambda: st.lists(_number(), min_size=3, max_size=5).map(
            lambda numbers: ("\n".join(PLANE.splitlines()[:3]) + "\n" + " ".join(numbers)).encode()
        ),
        check=_check_plane,
        **TEXT,
    ),
    Target(
        name="split_file",
        folder="splits",
        read=read_split,
        modules=("pcdet.datasets.kitti.split_files",),
        refusals=(ValueError,),
        seeds=lambda: [b"000000\n000001\n", b"000003"],
        check=_check_names,
        **TEXT,
    ),
    Target(
        name="image_sets",
        folder="splits",
        read=_read_image_sets,
        modules=("pcdet.datasets.kitti.kitti_infos",),
        place=_image_sets,
        refusals=(DataError,),
        seeds=lambda: [b"000000\n000001\n", b"000003"],
        check=_check_names,
        **TEXT,
    ),
    Target(
        name="kitti_results",
        folder="results",
        read=lambda path: read_objects(path.parent, [path.stem], scored=True),
        modules=("pcdet.datasets.kitti.kitti_object_eval_python.kitti_common",),
        refusals=(ValueError,),
        seeds=_seeds_results,
        structure=lambda: _lines(15),
        check=_check_objects,
        **TEXT,
    ),
    Target(
        name="kitti_evaluation",
        folder="results",
        read=lambda path: evaluate_folders(path.parents[1] / "labels", path.parent),
        modules=("pcdet.datasets.kitti.kitti_object_eval_python.kitti_common",),
        place=_results,
        refusals=(ValueError,),
        seeds=_seeds_results,
        structure=lambda: _lines(15),
        check=_check_metrics,
        **TEXT,
    ),
]
