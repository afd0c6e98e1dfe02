from __future__ import annotations

import copy

import pytest
from easydict import EasyDict
from support.configs import CFGS, load


@pytest.fixture(scope="module")
def loaded() -> EasyDict:
    config = load(CFGS / "kitti_models/kd/pointpillar_4x_paper.yaml")
    config.KD.LOSSES[0].update(
        WEIGHT=1.0,
        SAMPLE={"NUM": 1000, "BY": "num_points"},
        GRAPH={"K": 16, "SPACE": "xyz", "EDGE": "concat", "POOL": "none", "PER_FRAME": True},
        REWEIGHT={"BY": "num_points", "TEMPERATURE": 5.0},
        ADAPTER={"TEACHER": "none", "STUDENT": "linear"},
    )
    config.KD.TEACHER.CKPT = None
    config.KD.LOSSES.append(EasyDict(NAME="PivotalLogit", CLS_WEIGHT=15.0, REG_WEIGHT=0.2))
    return config


@pytest.fixture
def pillars(loaded) -> EasyDict:
    """A PointPillars student's configuration, the test's own."""
    return copy.deepcopy(loaded)
