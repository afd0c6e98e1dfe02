"""nuScenes' evaluation against nuscenes-devkit 1.2.0: a generated set, and a real submission on real tables."""

import json
import math

import pytest

from pcdet.cli.evaluate_nuscenes import main
from pcdet.datasets.nuscenes.evaluate import evaluate_file


def numbers_of(summary, prefix=""):
    """Path -> number of everything in a metrics_summary.json but its time and meta."""
    for key, value in summary.items():
        if isinstance(value, dict):
            yield from numbers_of(value, f"{prefix}{key}/")
        elif key != "eval_time" and prefix != "meta/":
            yield f"{prefix}{key}", value


def assert_equals_devkit(ours, theirs):
    ours, theirs = dict(numbers_of(ours)), dict(numbers_of(theirs))
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        if isinstance(value, float) and math.isnan(value):
            assert math.isnan(ours[name]), name
        else:
            assert ours[name] == (pytest.approx(value, abs=1e-9) if isinstance(value, float) else value), name


def test_every_number_of_the_generated_set_is_the_devkits(goldens):
    folder = goldens / "nuscenes_eval"
    metrics = evaluate_file(folder / "results.json", folder / "dataset", "v1.0-mini")
    theirs = json.loads((folder / "golden.json").read_text())
    assert_equals_devkit(metrics, theirs)


def test_the_command_gives_every_number_of_a_real_submission_as_the_devkit(nuscenes_root, tmp_path, capsys):
    folder, written = nuscenes_root / "results" / "trelpy", tmp_path / "numbers.json"
    results = str(folder / "results_nusc.json")
    main(f"--result_path {results} --dataroot {nuscenes_root} --version v1.0-mini --json {written}".split())
    theirs = json.loads((folder / "metrics_summary.json").read_text())
    ours = json.loads(written.read_text())
    assert_equals_devkit(ours, theirs)
    assert set(ours) == set(theirs) and ours["meta"] == theirs["meta"]
    shown = capsys.readouterr().out
    assert "mAP:\t 0.0755\nNDS:\t 0.1034\n" in shown
    assert "***car error@trans, scale, orient, vel, attr | AP@0.5, 1.0, 2.0, 4.0\n0.18, 0.15, 0.18, 0.36, 0.07" in shown
