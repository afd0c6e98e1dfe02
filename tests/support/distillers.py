"""Distillers of model files with a KD block, without their data."""

from __future__ import annotations

from typing import Any

import pytest
from easydict import EasyDict
from models import pointpillars as pp
from torch import nn

from pcdet.config import cfg_from_yaml_file
from pcdet.models import build_network
from pcdet.models.kd import build_distiller
from pcdet.models.kd.distiller import Distiller


def facts_of(cfg: EasyDict) -> Any:
    """What the detectors of a file read of its data set, in front of which only a few metres are seen."""
    data = cfg.DATA_CONFIG
    sizes = [step.VOXEL_SIZE for step in data.DATA_PROCESSOR if "VOXEL_SIZE" in step]
    low, high = data.POINT_CLOUD_RANGE[2], data.POINT_CLOUD_RANGE[5]
    near = (0.0, -9.6, low, 19.2, 9.6, high)  # a whole number of cells of every detector
    features = len(data.POINT_FEATURE_ENCODING.used_feature_list)
    facts = pp.dataset_facts(near, sizes[0] if sizes else (0.16, 0.16, 4.0), cfg.CLASS_NAMES, features)
    if not sizes:
        facts.voxel_size = facts.grid_size = None
    return facts


def distiller_of(cfg: EasyDict) -> tuple[Distiller, nn.Module, nn.Module]:
    """(distiller, student, teacher) of a file; the test is skipped where they need spconv and there is none.

    Every loss is in the distiller, one for each feature that it lists.
    """
    teacher_cfg = cfg_from_yaml_file(cfg.KD.TEACHER.CFG, EasyDict())
    for part in (cfg, teacher_cfg):
        if part.MODEL.get("BACKBONE_3D", {}).get("NAME", "").startswith("Voxel"):
            pytest.importorskip("spconv")
    student, teacher = (
        build_network(c.MODEL, num_class=len(c.CLASS_NAMES), dataset=facts_of(c)) for c in (cfg, teacher_cfg)
    )
    distiller = build_distiller(cfg, student, facts_of(cfg), teacher=teacher)
    taps = [loss.FEATURE for loss in cfg.KD.LOSSES if "FEATURE" in loss]
    assert len(distiller.losses) == len(cfg.KD.LOSSES) + sum(len(tap) - 1 for tap in taps if isinstance(tap, list))
    return distiller, student, teacher
