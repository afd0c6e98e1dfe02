"""Every shipped file that distils the simulated PointPillars or CenterPoint: student and teacher take a step."""

from pathlib import Path

import pytest
import torch
from easydict import EasyDict
from models import pointpillars as pp
from support.detectors import network

from pcdet.config import cfg_from_yaml_file
from pcdet.models.kd import build_distiller

FOLDER = Path(__file__).resolve().parents[3] / "tools" / "cfgs" / "simulated_models" / "kd"
FILES = [path for path in sorted(FOLDER.glob("*pillar_*.yaml")) if "\nKD:\n" in path.read_text()]


@pytest.fixture(scope="module")
def facts():
    """The simulated data set's range, with its pillars."""
    cfg = cfg_from_yaml_file("cfgs/simulated_models/pointpillar.yaml", EasyDict())
    return pp.dataset_facts(cfg.DATA_CONFIG.POINT_CLOUD_RANGE, (0.32, 0.32, 4.0))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_file_builds_and_takes_a_training_step(path, facts):
    cfg = cfg_from_yaml_file(path, EasyDict())
    teacher = network(cfg_from_yaml_file(cfg.KD.TEACHER.CFG, EasyDict()).MODEL, facts, seed=1)
    distiller = build_distiller(cfg, network(cfg.MODEL, facts, seed=0), facts, teacher=teacher).train()
    parameters = [p for p in distiller.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    ret_dict, logs, _ = distiller(pp.random_batch(facts, frames=2, points=600))
    ret_dict["loss"].backward()
    optimizer.step()
    assert all(bool(p.grad.isfinite().all()) for p in parameters)
    assert sum(float((p.detach() - old).abs().sum()) for p, old in zip(parameters, before, strict=True)) > 0
    silent = {label for label in distiller.losses if not logs[f"kd/{label}"] > 0}
    assert silent <= {"BoxConsistency"}  # which needs boxes that both are sure of
    assert bool(distiller.losses) or logs["kd/total"] == 0
