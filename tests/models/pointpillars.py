"""PointPillars in every size that the tests need, without configuration files: blocks, data set facts and batches."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from easydict import EasyDict

CLASS_NAMES = ["Car", "Pedestrian", "Cyclist"]
KITTI_RANGE = (0.0, -39.68, -3.0, 69.12, 39.68, 1.0)
SMALL_RANGE = (0.0, -7.68, -3.0, 20.48, 7.68, 1.0)
TINY_RANGE = (0.0, -5.12, -3.0, 10.24, 5.12, 1.0)


def model_cfg(**changes) -> EasyDict:
    """The MODEL block of pointpillar.yaml; ``changes`` name a part and the keys to change in it."""

    def anchors(name, size, bottom, matched, unmatched):
        return {
            "class_name": name,
            "anchor_sizes": [size],
            "anchor_rotations": [0, 1.57],
            "anchor_bottom_heights": [bottom],
            "align_center": False,
            "feature_map_stride": 2,
            "matched_threshold": matched,
            "unmatched_threshold": unmatched,
        }

    cfg = EasyDict(
        NAME="PointPillar",
        VFE=dict(NAME="PillarVFE", WITH_DISTANCE=False, USE_ABSLOTE_XYZ=True, USE_NORM=True, NUM_FILTERS=[64]),
        MAP_TO_BEV=dict(NAME="PointPillarScatter", NUM_BEV_FEATURES=64),
        BACKBONE_2D=dict(
            NAME="BaseBEVBackbone",
            LAYER_NUMS=[3, 5, 5],
            LAYER_STRIDES=[2, 2, 2],
            NUM_FILTERS=[64, 128, 256],
            UPSAMPLE_STRIDES=[1, 2, 4],
            NUM_UPSAMPLE_FILTERS=[128, 128, 128],
        ),
        DENSE_HEAD=dict(
            NAME="AnchorHeadSingle",
            CLASS_AGNOSTIC=False,
            USE_DIRECTION_CLASSIFIER=True,
            DIR_OFFSET=0.78539,
            DIR_LIMIT_OFFSET=0.0,
            NUM_DIR_BINS=2,
            ANCHOR_GENERATOR_CONFIG=[
                anchors("Car", [3.9, 1.6, 1.56], -1.78, 0.6, 0.45),
                anchors("Pedestrian", [0.8, 0.6, 1.73], -0.6, 0.5, 0.35),
                anchors("Cyclist", [1.76, 0.6, 1.73], -0.6, 0.5, 0.35),
            ],
            TARGET_ASSIGNER_CONFIG=dict(
                NAME="AxisAlignedTargetAssigner",
                POS_FRACTION=-1.0,
                SAMPLE_SIZE=512,
                NORM_BY_NUM_EXAMPLES=False,
                MATCH_HEIGHT=False,
                BOX_CODER="ResidualCoder",
            ),
            LOSS_CONFIG=dict(LOSS_WEIGHTS=dict(cls_weight=1.0, loc_weight=2.0, dir_weight=0.2, code_weights=[1.0] * 7)),
        ),
        POST_PROCESSING=dict(
            RECALL_THRESH_LIST=[0.3, 0.5, 0.7],
            SCORE_THRESH=0.1,
            OUTPUT_RAW_SCORE=False,
            EVAL_METRIC="kitti",
            NMS_CONFIG=dict(
                MULTI_CLASSES_NMS=False, NMS_TYPE="nms_gpu", NMS_THRESH=0.01, NMS_PRE_MAXSIZE=4096, NMS_POST_MAXSIZE=500
            ),
        ),
    )
    for part, keys in changes.items():
        cfg[part].update(keys)
    return cfg


def tiny_model_cfg(**changes) -> EasyDict:
    """Three small stages: enough to run, quick to train."""
    cfg = model_cfg(
        VFE={"NUM_FILTERS": [8]},
        MAP_TO_BEV={"NUM_BEV_FEATURES": 8},
        BACKBONE_2D={"LAYER_NUMS": [1, 1, 1], "NUM_FILTERS": [8, 8, 16], "NUM_UPSAMPLE_FILTERS": [8, 8, 8]},
    )
    for part, keys in changes.items():
        cfg[part].update(keys)
    return cfg


def dataset_facts(point_cloud_range=SMALL_RANGE, voxel_size=(0.16, 0.16, 4.0), class_names=CLASS_NAMES, features=4):
    """What a detector reads of its data set."""
    limits = np.array(point_cloud_range, dtype=np.float32)
    return SimpleNamespace(
        class_names=list(class_names),
        point_cloud_range=limits,
        voxel_size=list(voxel_size),
        grid_size=np.round((limits[3:6] - limits[:3]) / np.array(voxel_size)).astype(np.int64),
        point_feature_encoder=SimpleNamespace(num_point_features=features),
        depth_downsample_factor=None,
    )


def voxelise(points: np.ndarray, facts, max_points: int = 32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pillars of a cloud in order of first appearance, in plain Python: voxels, coordinates [z, y, x], counts."""
    low, high = facts.point_cloud_range[:3], facts.point_cloud_range[3:]
    points = points[np.all((points[:, :2] >= low[:2]) & (points[:, :2] <= high[:2]), axis=1)]
    cells = np.floor((points[:, :3] - low) / np.array(facts.voxel_size, dtype=np.float32)).astype(np.int64)
    inside = np.all((cells >= 0) & (cells < facts.grid_size), axis=1)
    slots: dict[tuple, list] = {}
    for cell, point in zip(map(tuple, cells[inside][:, ::-1]), points[inside], strict=True):
        kept = slots.setdefault(cell, [])
        if len(kept) < max_points:
            kept.append(point)
    voxels = np.zeros((len(slots), max_points, points.shape[1]), dtype=np.float32)
    for i, kept in enumerate(slots.values()):
        voxels[i, : len(kept)] = kept
    coords = np.array(list(slots), dtype=np.int32).reshape(-1, 3)
    return voxels, coords, np.array([len(kept) for kept in slots.values()], dtype=np.int32)


def collate(clouds: list[np.ndarray], gt_boxes: list[np.ndarray], facts, max_points: int = 32) -> dict:
    """A batch as the loaders hand it to the model: float32 tensors, frame index first in the coordinates."""
    frames = [voxelise(cloud, facts, max_points) for cloud in clouds]
    coords = [np.pad(c, ((0, 0), (1, 0)), constant_values=i) for i, (_, c, _) in enumerate(frames)]
    columns = max((boxes.shape[1] for boxes in gt_boxes), default=8)
    padded = np.zeros((len(gt_boxes), max(map(len, gt_boxes), default=0), columns), dtype=np.float32)
    for row, boxes in zip(padded, gt_boxes, strict=True):
        row[: len(boxes)] = boxes
    arrays = {
        "voxels": np.concatenate([f[0] for f in frames]),
        "voxel_coords": np.concatenate(coords),
        "voxel_num_points": np.concatenate([f[2] for f in frames]),
        "gt_boxes": padded,
    }
    batch = {key: torch.from_numpy(value).float() for key, value in arrays.items()}
    return {**batch, "batch_size": len(clouds)}


def random_batch(facts, frames: int = 2, points: int = 600, seed: int = 0) -> dict:
    """Clouds spread over the range, with a few objects of each class on the ground."""
    rng = np.random.default_rng(seed)
    low, high = facts.point_cloud_range[:3], facts.point_cloud_range[3:]
    sizes = {1: (3.9, 1.6, 1.56), 2: (0.8, 0.6, 1.73), 3: (1.76, 0.6, 1.73)}
    clouds, boxes = [], []
    for _ in range(frames):
        cloud = rng.uniform(low, high, size=(points, 3))
        clouds.append(np.concatenate([cloud, rng.uniform(size=(points, 1))], axis=1).astype(np.float32))
        rows = []
        for label in (1, 2, 3, 1):
            centre = rng.uniform(low[:2] + 1, high[:2] - 1)
            rows.append([*centre, -0.8, *sizes[label], rng.uniform(-np.pi, np.pi), label])
        boxes.append(np.array(rows, dtype=np.float32))
    return collate(clouds, boxes, facts)
