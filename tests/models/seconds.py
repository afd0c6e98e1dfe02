"""SECOND in a size for tests: the shipped MODEL blocks on a small range, thin."""

from __future__ import annotations

from pathlib import Path

from easydict import EasyDict
from models.pointpillars import dataset_facts, random_batch

from pcdet.config import cfg_from_yaml_file

VOXEL_SIZE = (0.05, 0.05, 0.1)
KITTI_RANGE = (0.0, -40.0, -3.0, 70.4, 40.0, 1.0)
SMALL_RANGE = (0.0, -3.2, -3.0, 6.4, 3.2, 1.0)
FOLDER = Path(__file__).resolve().parents[2] / "tools/cfgs/kitti_models"


def model_cfg(name: str = "second", width: float | None = 0.25) -> EasyDict:
    """The MODEL block of a shipped file, with a width."""
    cfg = cfg_from_yaml_file(FOLDER / f"{name}.yaml", EasyDict()).MODEL
    if width is not None:
        cfg.WIDTH = width
    return cfg


def facts(point_cloud_range=SMALL_RANGE):
    """What the detector reads of its data set."""
    return dataset_facts(point_cloud_range, VOXEL_SIZE)


def batch(frames: int = 2, points: int = 800, seed: int = 0) -> dict:
    """Clouds with objects on the small range."""
    return random_batch(facts(), frames=frames, points=points, seed=seed)
