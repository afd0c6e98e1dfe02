"""Small SECOND and PointRCNN networks of any width, their batches, and PointPillars on the same points."""

from pathlib import Path

import numpy as np
import pytest
import torch
from easydict import EasyDict
from models import pointpillars as pp
from models import pointrcnn
from support.detectors import network

from pcdet.config import cfg_from_yaml_file

CFGS = Path(__file__).resolve().parents[3] / "tools" / "cfgs" / "kitti_models"
NEAR = (0.0, -3.2, -3.0, 6.4, 3.2, 1.0)
VOXELS = pp.dataset_facts(NEAR, voxel_size=(0.05, 0.05, 0.1))  # 128 x 128 x 40
POINTS = pointrcnn.dataset_facts()


def second_cfg(width):
    """SECOND's MODEL block, shallower, with all channels scaled."""
    cfg = cfg_from_yaml_file(CFGS / "second.yaml", EasyDict()).MODEL
    cfg.BACKBONE_2D.LAYER_NUMS = [1, 1]
    cfg.WIDTH = width
    return cfg


def pointrcnn_cfg(width):
    cfg = pointrcnn.tiny_model_cfg()
    cfg.WIDTH = width
    return cfg


def second(width, seed=0):
    pytest.importorskip("spconv")
    return network(second_cfg(width), VOXELS, seed)


def point_rcnn(width, seed=0):
    return network(pointrcnn_cfg(width), POINTS, seed)


def voxel_batch(facts=VOXELS, seed=0):
    """Two frames of clustered points in the voxels of ``facts``; the points themselves are in the batch."""
    rng = np.random.default_rng(seed)
    low, high = np.array(NEAR[:3]), np.array(NEAR[3:])
    clouds = []
    for number in (700, 400):
        centres = rng.uniform(low + 0.3, high - 0.3, size=(12, 3))
        xyz = centres[rng.integers(12, size=number)] + rng.normal(scale=0.15, size=(number, 3))
        xyz = xyz.clip(low + 1e-3, high - 1e-3)
        clouds.append(np.concatenate([xyz, rng.uniform(size=(number, 1))], axis=1).astype(np.float32))
    boxes = [np.array([[3.0, 0.5, -0.8, 3.9, 1.6, 1.56, 0.3, 1]], dtype=np.float32)] * 2
    batch = pp.collate(clouds, boxes, facts, max_points=5 if facts is VOXELS else 32)
    rows = [np.pad(cloud, ((0, 0), (1, 0)), constant_values=i) for i, cloud in enumerate(clouds)]
    return {**batch, "points": torch.from_numpy(np.concatenate(rows)).float()}
