"""A folder of fake tools with data and plans for them, so that whole plans are carried out in seconds."""

from __future__ import annotations

import copy
import functools
import json
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import yaml
from easydict import EasyDict

from pcdet.cli.experiment import carry_out
from pcdet.config import cfg_from_yaml_file
from pcdet.experiments.plans.plan import load_plan
from pcdet.experiments.results.files import results_content, without_times
from pcdet.experiments.results.schema import Results
from pcdet.experiments.running.places import core_places
from support.kitti_annos import labelled_frames
from support.kitti_files import P2, R0, VELO_TO_CAM

TESTS = Path(__file__).resolve().parents[1]
COMMANDS = {"train.py": "train(distil=False)", "train_kd.py": "train(distil=True)", "kd_measure.py": "measure()"}
COMMANDS |= {"test.py": "test()"}
SCRIPT = """import sys

sys.path.insert(0, {tests!r})
from support import fake_commands

fake_commands.{call}
"""
TEACHER = "cfgs/simulated_models/lab/pointpillar.yaml"
STUDENT = "cfgs/simulated_models/lab/pointpillar_student.yaml"
POLL_S = 0.05
RESAMPLES = 50  # of the bootstrap: its numbers are not looked at here
PLAN = {
    "NAME": "fake",
    "DATA": {
        "PATH": "../data",
        "TRAIN": {"INFOS": ["train.pkl"]},
        "SEARCH": {"INFOS": ["val.pkl"], "FRAMES": 16},
        "REPORT": {"INFOS": ["val.pkl"], "FIRST": 16},
    },
    "TEACHERS": {"full": {"CFG": TEACHER, "EPOCHS": [2, 4]}},
    "STUDENTS": {"4x": {"CFG": STUDENT, "TEACHER": "full", "EPOCHS": 2}},
    "METHODS": {
        "fitnet": {"LOSSES": [{"NAME": "FitNet", "FEATURE": "spatial_features_2d"}]},
        "logits": {"LOSSES": [{"NAME": "PivotalLogit"}]},
        "slices+logits": {"INIT": {"NAME": "slice"}, "LOSSES": [{"NAME": "PivotalLogit"}]},
    },
    "PAIRS": [["slices+logits", "fitnet"]],
    "SEARCH": {"EPOCHS": 1, "WARM_STEPS": 2, "BATCHES": 3},
    "SEEDS": {"SCREENING": 2, "FINALS": 3, "CURVES": 2},
    "FINALISTS": {"BEST": 1, "ALWAYS": ["fitnet"]},
    "LENGTHS": [1, 2],
}
_TEACHER: dict[str, Any] = {"TEACHERS": {"full": {"CFG": TEACHER, "EPOCHS": [2]}}}
# All stages in 21 jobs
SHORT = _TEACHER | {
    "PAIRS": [],
    "METHODS": {name: PLAN["METHODS"][name] for name in ("logits", "slices+logits")},
    "SEARCH": {"EPOCHS": 1, "FACTORS": [1.0, 3.0]},
    "SEEDS": {"SCREENING": 1, "FINALS": 2, "CURVES": 1},
    "FINALISTS": {"BEST": 1},
    "LENGTHS": [1],
}
# Ten jobs: no search, and one method of two goes on
SMALL = _TEACHER | {
    "PAIRS": [],
    "METHODS": {name: PLAN["METHODS"][name] for name in ("fitnet", "logits")},
    "SEARCH": None,
    "SEEDS": {"SCREENING": 1, "FINALS": 1, "CURVES": 1},
    "FINALISTS": {"BEST": 1},
    "LENGTHS": [1],
}


@dataclass
class FakeTools:
    """A folder with ``tools``, ``data`` and ``output``.

    Attributes:
        root: the folder, filled when the object is made.
        settings: of the fake commands, see ``fake_commands.SETTINGS``.
    """

    root: Path
    settings: dict[str, Any]

    def __init__(self, root: Path, **settings: Any):
        self.root, self.settings = root, settings
        self.tools.mkdir(parents=True)
        for name, call in COMMANDS.items():
            (self.tools / name).write_text(SCRIPT.format(tests=str(TESTS), call=call))
        self.set(**settings)
        (root / TEACHER).parent.mkdir(parents=True)
        for name in (TEACHER, STUDENT):
            (root / name).write_text(model_file(name))
        data = root / "data"
        data.mkdir()
        (data / "train.pkl").write_bytes(pickle.dumps(infos(0, "0", 8)))
        (data / "val.pkl").write_bytes(pickle.dumps([*infos(1, "1", 16), *infos(2, "2", 16)]))

    @property
    def tools(self) -> Path:
        """The folder of commands."""
        return self.root / "tools"

    @property
    def output(self) -> Path:
        """The plan's folder."""
        return self.root / "output"

    def set(self, **settings: Any) -> None:
        """Changes settings of the fake commands."""
        self.settings = self.settings | settings
        (self.tools / "fake.json").write_text(json.dumps(self.settings))

    def write_plan(self, *layers: dict) -> Path:
        """The file of the plan, ``PLAN`` with these keys in place of its own."""
        content = copy.deepcopy(PLAN)
        for layer in layers:
            content |= layer
        file = self.root / "plan.yaml"
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        return file

    def carry_out(self, *layers: dict) -> Results:
        """The plan, carried out by this process with the fake commands."""
        plan, content = load_plan(self.write_plan(*layers))
        places = core_places(2)
        places.poll_s = POLL_S
        with mock.patch("pcdet.experiments.plans.collect.RESAMPLES", RESAMPLES):
            return carry_out(plan, content, self.output, places, self.tools)

    def copy(self, root: Path) -> FakeTools:
        """The same with all that was run, in another folder."""
        shutil.copytree(self.root, root)
        twin = object.__new__(FakeTools)
        twin.root, twin.settings = root, self.settings
        return twin

    def results(self, run_id: str) -> list[Path]:
        """The files of detections of a run, or of all that a pattern names."""
        return sorted(self.output.glob(f"{run_id}/eval/eval_with_train/*/val/result.pkl"))

    def starts(self) -> list[str]:
        """The folder of every command that was started, from ``output``, in order."""
        file = self.tools / "starts.txt"
        lines = file.read_text().splitlines() if file.is_file() else []
        return [line.removeprefix("../output/") for line in lines]


@functools.cache
def model_file(name: str) -> str:
    """A model file without bases, to be found before the one of the same name that has five: it is read faster."""
    config = cfg_from_yaml_file(name, EasyDict())
    return yaml.safe_dump(json.loads(json.dumps(config)))


def same(results: Results) -> dict:
    """What another call of the same plan must find again."""
    return without_times(results_content(results))


def infos(seed: int, first_letter: str, number: int) -> list[dict]:
    """Labelled frames as info files hold them, without files behind them."""
    frames = labelled_frames(seed, number)
    calib = {"P2": np.eye(4), "R0_rect": np.eye(4), "Tr_velo_to_cam": np.eye(4)}
    for name, matrix in (("P2", P2), ("R0_rect", R0), ("Tr_velo_to_cam", VELO_TO_CAM)):
        calib[name][: matrix.shape[0], : matrix.shape[1]] = matrix
    return [
        {
            "point_cloud": {"num_features": 4, "lidar_idx": f"{first_letter}{index:05d}"},
            "image": {"image_idx": f"{first_letter}{index:05d}", "image_shape": np.array([375, 1242])},
            "calib": calib,
            "annos": frame,
        }
        for index, frame in enumerate(frames)
    ]
