"""Small detectors, alone and distilled, trained by the project's Trainer on any device."""

from __future__ import annotations

import copy

import numpy as np
import torch
from easydict import EasyDict
from models import pointpillars, pointrcnn
from models.kd import kd_detectors, kd_pairs
from support.detectors import network
from torch import nn
from torch.utils.data import Dataset

from pcdet.engine.optim import build_optimizer, build_scheduler
from pcdet.engine.precision import Precision
from pcdet.engine.runtime import seed_process
from pcdet.engine.trainer import Hook, Trainer, TrainSettings
from pcdet.models import build_network
from pcdet.models.kd import build_distiller

OPTIMIZATION = {
    "BATCH_SIZE_PER_GPU": 2, "NUM_EPOCHS": 1, "OPTIMIZER": "adam_onecycle", "LR": 0.0002, "WEIGHT_DECAY": 0.01,
    "GRAD_NORM_CLIP": 10,
}  # fmt: skip
POINTS = {"NAME": "PointDistiller", "FEATURE": "point_features", "SAMPLE": {"NUM": 24}, "GRAPH": {"K": 8}}
PILLARS, MAP, LOGITS = kd_pairs.PILLARS, kd_pairs.MAP, kd_pairs.LOGITS


def as_arrays(batch: dict) -> dict:
    """A batch as collate_batch makes it: numpy arrays, which the Trainer puts onto the device."""
    arrays = {key: value.numpy() if torch.is_tensor(value) else value for key, value in batch.items()}
    return {**arrays, "frame_id": np.array([f"{i:06d}" for i in range(batch["batch_size"])])}


def pillar_batches(count: int = 4, frames: int = 2, points: int = 300) -> list[dict]:
    return [as_arrays(pointpillars.random_batch(kd_pairs.FACTS, frames, points, seed=seed)) for seed in range(count)]


def point_batches(count: int = 4, frames: int = 2, points: int = 64) -> list[dict]:
    return [as_arrays(pointrcnn.random_batch(frames, points, seed=seed)) for seed in range(count)]


def pointpillars_alone() -> nn.Module:
    return kd_pairs.detector()


def pointpillars_of_one_class() -> nn.Module:
    cfg, facts = pointpillars.tiny_model_cfg(), pointpillars.dataset_facts(pointpillars.TINY_RANGE, class_names=["Car"])
    cfg.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG = cfg.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[:1]
    torch.manual_seed(0)
    return build_network(cfg, 1, facts)


def pointrcnn_alone(width: float = 0.125, seed: int = 0) -> nn.Module:
    """Fewer centres and proposals than other tests have: emulated threads are many."""
    cfg = pointrcnn.tiny_model_cfg()
    cfg.WIDTH = width
    cfg.BACKBONE_3D.SA_CONFIG.NPOINTS = [32, 16, 8, 4]
    cfg.ROI_HEAD.SA_CONFIG.NPOINTS = [8, 4, -1]
    cfg.ROI_HEAD.ROI_POINT_POOL.NUM_SAMPLED_POINTS = 16
    cfg.ROI_HEAD.TARGET_CONFIG.ROI_PER_IMAGE = 8
    cfg.ROI_HEAD.NMS_CONFIG.TRAIN.NMS_POST_MAXSIZE = 16
    return network(cfg, kd_detectors.POINTS, seed)


def pointpillars_distilled(*losses: dict) -> nn.Module:
    return kd_pairs.distil(*(losses or (PILLARS, MAP, LOGITS)))


def pointrcnn_distilled() -> nn.Module:
    student, teacher = pointrcnn_alone(), pointrcnn_alone(0.25, seed=1)
    cfg = EasyDict(KD={"TEACHER": {"CFG": "unused"}, "LOSSES": [POINTS]})
    return build_distiller(cfg, student, kd_detectors.POINTS, teacher=teacher)


def first_stage_distilled() -> nn.Module:
    """PointRCNN without its second stage, whose draw of proposals turns a rounding into another training."""
    distiller = pointrcnn_distilled()
    distiller.student.roi_head = distiller.teacher.roi_head = None
    return distiller


def with_even_scores(model: nn.Module) -> nn.Module:
    """The model with scores about a half, of which none is too low for its post-processing."""
    for head in (model.dense_head, model.point_head, model.roi_head):
        for name in ("conv_cls", "cls_layers"):
            layer = getattr(head, name, None)
            if layer is not None:
                nn.init.zeros_((layer if name == "conv_cls" else layer[-1]).bias)
    return model


class Record(Hook):
    """The loss and the norm of the gradient of every iteration."""

    def __init__(self):
        self.losses: list[float] = []
        self.norms: list[float] = []

    def after_iteration(self, trainer):
        self.losses.append(trainer.last.loss)
        self.norms.append(trainer.last.grad_norm)


def train(
    model: nn.Module,
    batches: list[dict],
    device: torch.device,
    precision: Precision | None = None,
    hooks: tuple[Hook, ...] = (),
) -> tuple[Trainer, Record]:
    """Trains a copy of a model for an epoch of these batches; what it draws depends on the seed alone."""
    record, model = Record(), copy.deepcopy(model).to(device)
    settings = TrainSettings(epochs=1, precision=precision or Precision(device.type))
    optimizer = build_optimizer(model, OPTIMIZATION)
    scheduler = build_scheduler(optimizer, len(batches), 1, -1, OPTIMIZATION)
    loader = [dict(batch) for batch in batches]
    trainer = Trainer(model, loader, optimizer, scheduler, [record, *hooks], settings=settings, device=device)
    seed_process(0)
    trainer.run()
    return trainer, record


# ------------------------------------------------------------------------------------------- SECOND behind its voxels


def second_maps(seed: int = 0) -> nn.Module:
    """SECOND's 2D backbone and head, without the sparse part, which reads tensors by their addresses."""
    model = kd_detectors.second(0.125, seed)
    model.vfe = model.backbone_3d = model.map_to_bev_module = None
    return model


def second_maps_alone() -> nn.Module:
    return second_maps()


def second_maps_distilled() -> nn.Module:
    cfg = EasyDict(KD={"TEACHER": {"CFG": "unused"}, "LOSSES": [MAP, LOGITS]})
    return build_distiller(cfg, second_maps(), kd_detectors.VOXELS, teacher=second_maps(seed=1))


def map_batches(count: int = 4, frames: int = 2) -> list[dict]:
    """What the sparse part would leave: a map of features, and boxes."""
    channels = second_maps().backbone_2d.blocks[0][1].in_channels
    batches = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        boxes = np.array([[3.0, 0.5, -0.8, 3.9, 1.6, 1.56, 0.3, 1], [2.0, -1.0, -0.8, 0.8, 0.6, 1.7, 1.0, 2]])
        features = np.maximum(rng.standard_normal((frames, channels, 16, 16)), 0).astype(np.float32)
        batch = {"spatial_features": torch.from_numpy(features), "batch_size": frames}
        batches.append(as_arrays({**batch, "gt_boxes": torch.from_numpy(np.stack([boxes] * frames)).float()}))
    return batches


# --------------------------------------------------------------------------------------------------------- evaluation


class Frames(Dataset):
    """Batches of one frame each as a data set, whose metrics are the number of boxes and their mean score."""

    def __init__(self, batches: list[dict]):
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict:
        return self.batches[index]

    @staticmethod
    def collate(frames: list[dict]) -> dict:
        batch = {"batch_size": len(frames), "frame_id": np.array([str(i) for i in range(len(frames))])}
        for key in frames[0].keys() - batch.keys():
            parts = [frame[key].copy() for frame in frames]
            if key in ("points", "voxel_coords"):
                for i, part in enumerate(parts):
                    part[:, 0] = i
            batch[key] = np.concatenate(parts)
        return batch

    def generate_prediction_dicts(self, batch_dict, pred_dicts, class_names, output_path=None) -> list[dict]:
        host = [{key: value.cpu().numpy() for key, value in frame.items()} for frame in pred_dicts]
        return [{"name": frame["pred_labels"], "score": frame["pred_scores"]} for frame in host]

    def evaluation(self, det_annos, class_names, **kwargs) -> tuple[str, dict]:
        scores = np.concatenate([anno["score"] for anno in det_annos])
        return "", {"boxes": float(len(scores)), "score": float(scores.mean())}
