"""Fake tools with a little nuScenes release, and a plan for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pcdet.datasets.nuscenes.create_infos import create_nuscenes_infos
from pcdet.datasets.nuscenes.layout import info_name
from support import nuscenes_files
from support.fake_tools import SHORT, FakeTools, model_file

MODELS = Path("cfgs/nuscenes_models")
TEACHER = str(MODELS / "cbgs_pp_multihead.yaml")
STUDENT = str(MODELS / "kd" / "cbgs_pp_multihead_4x_paper.yaml")
MAX_SWEEPS = 10  # of these models
SCENES = {"scene-0061": 4, "scene-0103": 7}  # of mini_train and mini_val; key frames in each
TRAIN, VAL = (info_name(split, MAX_SWEEPS) for split in ("train", "val"))
NUSCENES = SHORT | {
    "NAME": "fake_nuscenes",
    "TABLE": "detectors",
    "DATA": {
        "PATH": "../data",
        "VERSION": nuscenes_files.VERSION,
        "TRAIN": {"INFOS": [TRAIN]},
        "SEARCH": {"INFOS": [VAL], "FRAMES": 3},
        "REPORT": {"INFOS": [VAL], "FIRST": 3},
    },
    "TEACHERS": {"full": {"CFG": TEACHER, "EPOCHS": [2]}},
    "STUDENTS": {"4x": {"CFG": STUDENT, "TEACHER": "full", "EPOCHS": 2}},
    "METHODS": {"fitnet": {"LOSSES": [{"NAME": "FitNet", "FEATURE": "spatial_features_2d"}]}},
    "SEARCH": {"EPOCHS": 1, "FACTORS": [1.0]},
}


class FakeNuScenesTools(FakeTools):
    """A folder as that of ``FakeTools``, whose data are a nuScenes release with info files."""

    def __init__(self, root: Path, **settings: Any):
        super().__init__(root, **settings)
        for name in (TEACHER, STUDENT):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(model_file(name))
        nuscenes_files.write_release(root / "data", scenes=SCENES)
        create_nuscenes_infos(root / "data", nuscenes_files.VERSION, MAX_SWEEPS, workers=0, database=False)
