"""PointRCNN in the sizes that the tests need, from the shipped file: blocks, data set facts and batches."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from easydict import EasyDict

from pcdet.config import cfg_from_yaml_file

CLASS_NAMES = ["Car", "Pedestrian", "Cyclist"]
SIZES = {1: (3.9, 1.6, 1.56), 2: (0.8, 0.6, 1.73), 3: (1.76, 0.6, 1.73)}
YAML = Path(__file__).resolve().parents[2] / "tools/cfgs/kitti_models/pointrcnn.yaml"


def model_cfg() -> EasyDict:
    """The MODEL block of pointrcnn.yaml."""
    cfg = EasyDict()
    cfg_from_yaml_file(YAML, cfg)
    return cfg.MODEL


def reduced_model_cfg() -> EasyDict:
    """With fewer centres, pooled points and proposals, as the goldens have it; the weights keep their shapes."""
    cfg = model_cfg()
    cfg.BACKBONE_3D.SA_CONFIG.NPOINTS = [1024, 256, 64, 16]
    cfg.ROI_HEAD.SA_CONFIG.NPOINTS = [32, 16, -1]
    cfg.ROI_HEAD.ROI_POINT_POOL.NUM_SAMPLED_POINTS = 128
    cfg.ROI_HEAD.TARGET_CONFIG.ROI_PER_IMAGE = 32
    cfg.ROI_HEAD.NMS_CONFIG.TRAIN.NMS_POST_MAXSIZE = 64
    cfg.ROI_HEAD.NMS_CONFIG.TEST.NMS_POST_MAXSIZE = 40
    return cfg


def tiny_model_cfg() -> EasyDict:
    """Few centres and narrow layers: quick to train."""
    cfg = reduced_model_cfg()
    cfg.WIDTH = 0.125
    cfg.BACKBONE_3D.SA_CONFIG.NPOINTS = [128, 64, 32, 16]
    cfg.ROI_HEAD.SA_CONFIG.NPOINTS = [16, 8, -1]
    cfg.ROI_HEAD.ROI_POINT_POOL.NUM_SAMPLED_POINTS = 32
    return cfg


def dataset_facts(class_names=CLASS_NAMES, num_point_features: int = 4):
    """What a detector reads of its data set; there are no voxels."""
    return SimpleNamespace(
        class_names=list(class_names),
        point_cloud_range=np.array([0, -40, -3, 70.4, 40, 1], dtype=np.float32),
        voxel_size=None,
        grid_size=None,
        point_feature_encoder=SimpleNamespace(num_point_features=num_point_features),
        depth_downsample_factor=None,
    )


def collate(clouds: list[np.ndarray], gt_boxes: list[np.ndarray]) -> dict:
    """A batch as the loaders hand it to the model: float32 tensors, the frame's number first in the points."""
    points = [np.pad(cloud, ((0, 0), (1, 0)), constant_values=i) for i, cloud in enumerate(clouds)]
    padded = np.zeros((len(gt_boxes), max(map(len, gt_boxes), default=0), 8), dtype=np.float32)
    for row, boxes in zip(padded, gt_boxes, strict=True):
        row[: len(boxes)] = boxes
    return {
        "points": torch.from_numpy(np.concatenate(points)).float(),
        "gt_boxes": torch.from_numpy(padded),
        "batch_size": len(clouds),
    }


def random_batch(frames: int = 2, points: int = 512, objects: int = 4, seed: int = 0) -> dict:
    """Clouds of which half lies in objects of every class on the ground, the rest anywhere within 20 m."""
    rng = np.random.default_rng(seed)
    clouds, boxes = [], []
    for _ in range(frames):
        rows = []
        for i in range(objects):
            label = 1 + i % 3
            centre = (rng.uniform(3, 18), rng.uniform(-8, 8), -0.8)
            rows.append([*centre, *SIZES[label], rng.uniform(-np.pi, np.pi), label])
        cloud = rng.uniform((0, -10, -2), (20, 10, 1), size=(points, 3))
        for k, row in enumerate(rows):
            part = slice(k * points // (2 * objects), (k + 1) * points // (2 * objects))
            cloud[part] = _inside(row, part.stop - part.start, rng)
        clouds.append(np.concatenate([cloud, rng.uniform(size=(points, 1))], axis=1).astype(np.float32))
        boxes.append(np.array(rows, dtype=np.float32).reshape(-1, 8))
    return collate(clouds, boxes)


def _inside(box: list[float], count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 3) points in a box."""
    local = rng.uniform(-0.45, 0.45, size=(count, 3)) * box[3:6]
    cos, sin = np.cos(box[6]), np.sin(box[6])
    turned = [local[:, 0] * cos - local[:, 1] * sin, local[:, 0] * sin + local[:, 1] * cos, local[:, 2]]
    return np.stack(turned, axis=1) + box[:3]
