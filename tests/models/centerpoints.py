"""CenterPoint on pillars, small, without configuration files: blocks, data set facts and batches of nuScenes' form."""

from __future__ import annotations

import numpy as np
import torch
from easydict import EasyDict
from models.pointpillars import SMALL_RANGE, dataset_facts, random_batch, tiny_model_cfg

GROUPS = [["Car"], ["Pedestrian", "Cyclist"]]
FACTS = dataset_facts(SMALL_RANGE)
CODES = {"center": 2, "center_z": 1, "dim": 3, "rot": 2, "vel": 2}


def head_cfg(velocity: bool = False, **changes) -> EasyDict:
    """A DENSE_HEAD block; with ``velocity`` it predicts velocities."""
    order = list(CODES) if velocity else list(CODES)[:-1]
    cfg = EasyDict(
        NAME="CenterHead",
        CLASS_AGNOSTIC=False,
        CLASS_NAMES_EACH_HEAD=GROUPS,
        SHARED_CONV_CHANNEL=8,
        USE_BIAS_BEFORE_NORM=True,
        NUM_HM_CONV=2,
        SEPARATE_HEAD_CFG=dict(
            HEAD_ORDER=order, HEAD_DICT={name: dict(out_channels=CODES[name], num_conv=2) for name in order}
        ),
        TARGET_ASSIGNER_CONFIG=dict(FEATURE_MAP_STRIDE=2, NUM_MAX_OBJS=20, GAUSSIAN_OVERLAP=0.1, MIN_RADIUS=2),
        LOSS_CONFIG=dict(
            LOSS_WEIGHTS=dict(cls_weight=1.0, loc_weight=0.25, code_weights=[1.0] * 8 + [0.2] * (2 * velocity))
        ),
        POST_PROCESSING=dict(
            SCORE_THRESH=0.1,
            POST_CENTER_LIMIT_RANGE=[-5.0, -15.0, -10.0, 30.0, 15.0, 10.0],
            MAX_OBJ_PER_SAMPLE=50,
            NMS_CONFIG=dict(NMS_TYPE="nms_gpu", NMS_THRESH=0.2, NMS_PRE_MAXSIZE=100, NMS_POST_MAXSIZE=20),
        ),
    )
    cfg.update(changes)
    return cfg


def center_cfg(velocity: bool = False, **head) -> EasyDict:
    """A MODEL block; ``head``: keys of its DENSE_HEAD that are changed."""
    cfg = tiny_model_cfg()
    cfg.NAME, cfg.DENSE_HEAD = "CenterPoint", head_cfg(velocity, **head)
    cfg.POST_PROCESSING = EasyDict(RECALL_THRESH_LIST=[0.3, 0.5, 0.7], EVAL_METRIC="kitti")
    return cfg


def with_velocities(batch: dict, seed: int = 0) -> dict:
    """The batch with velocities between the heading and the class of its boxes."""
    boxes = batch["gt_boxes"]
    speed = torch.from_numpy(np.random.default_rng(seed).normal(size=(*boxes.shape[:2], 2)).astype(np.float32))
    return {**batch, "gt_boxes": torch.cat([boxes[..., :7], speed, boxes[..., 7:]], dim=-1)}


def center_batch(velocity: bool = False, **kwargs) -> dict:
    """Two random frames."""
    batch = random_batch(FACTS, **kwargs)
    return with_velocities(batch) if velocity else batch
