"""The KITTI evaluation equals the official C++ devkit in every case of ``kitti_eval``."""

import json
import math
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pcdet.datasets.kitti.evaluate import evaluate_folders
from pcdet.datasets.kitti.kitti_object_eval_python.rules import DIFFICULTIES

PERCENT, PRECISION = 1e-9, 1e-11  # double precision and the same operations, in another order


def _cases():
    """Names of the case folders; one placeholder, for the skip or the failure, when there are none."""
    root = Path(os.environ.get("PCDET_GOLDENS") or "unset", "kitti_eval")
    names = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    return names or ["no_case"]


@pytest.mark.parametrize("case", _cases())
def test_numbers_equal_the_devkits(goldens, case, tmp_path):
    folder = goldens / "kitti_eval" / case
    golden = json.loads((folder / "golden.json").read_text())
    if (folder / "frames.tar.gz").exists():
        with tarfile.open(folder / "frames.tar.gz") as archive:
            archive.extractall(tmp_path, filter="data")
        folder = tmp_path
    results = evaluate_folders(folder / "label_2", folder / "data")
    assert results["frames"] == golden["frames"]
    for overlaps in ("strict", "loose"):
        for class_name, by_metric in golden[overlaps]["ap"].items():
            for metric, expected in by_metric.items():
                where = f"{overlaps} {class_name} {metric}"
                _compare(results[overlaps]["ap"][class_name][metric], expected, where)
                curves = golden[overlaps]["curves"][class_name][metric]
                _compare_curves(results[overlaps]["curves"][class_name][metric], curves, where)


def _compare(actual, expected, where):
    assert (actual is None) == (expected is None), f"{where}: {actual} for {expected}"
    for level in DIFFICULTIES if expected else ():
        for points, value in expected[level].items():
            value = float(value)
            if math.isnan(value):  # 0 / 0 in the devkit
                assert math.isfinite(actual[level][points]), where
            else:
                assert actual[level][points] == pytest.approx(value, abs=PERCENT), f"{where} {level} {points}"


def _compare_curves(actual, expected, where):
    assert (actual is None) == (expected is None), f"{where}: {actual} for {expected}"
    for level in DIFFICULTIES if expected else ():
        values = np.array(expected[level], dtype=np.float64)  # "nan" where the devkit has 0 / 0
        known = ~np.isnan(values)
        np.testing.assert_allclose(
            np.array(actual[level])[known], values[known], rtol=0, atol=PRECISION, err_msg=f"{where} {level}"
        )
