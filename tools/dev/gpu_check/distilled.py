"""A distillation of a shipped configuration on synthetic frames: what the steps and the profile have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from _device import Device
from easydict import EasyDict

from gpu_check.machine import ROOT
from gpu_check.synthetic_frames import SyntheticFrames
from pcdet import api
from pcdet.config import cfg_from_yaml_file
from pcdet.engine.optim import build_optimizer, build_scheduler
from pcdet.engine.precision import Precision
from pcdet.engine.trainer import Trainer, TrainSettings
from pcdet.models.kd import build_distiller

CONFIGS = {  # PointDistiller with the default preset on the paper's students: losses on pillars, maps and points
    "pointpillar": "kd/pointpillar_4x_paper.yaml",
    "second": "kd/second_4x_paper.yaml",
    "pointrcnn": "kd/pointrcnn_8x_paper.yaml",
}
STEPS_A_SCHEDULE = 1000  # learning rates are those of its beginning
SMALL_RANGE = {"pointpillar": [0, -5.12, -3, 10.24, 5.12, 1], "second": [0, -3.2, -3, 6.4, 3.2, 1]}
SMALL_FRAMES, SMALL_WIDTH, SMALL_ROIS = 2, 0.25, 16
SMALL_NUM_POINTS, SMALL_NPOINTS = 512, [128, 64, 32, 16]


@dataclass(frozen=True)
class Distillation:
    """A trainer whose steps can be made one by one.

    Attributes:
        config: the file, below tools/cfgs/kitti_models.
        dataset: synthetic frames.
        trainer: of a distiller.
        frames: in a batch.
    """

    config: str
    dataset: SyntheticFrames
    trainer: Trainer
    frames: int

    def batch(self, number: int) -> dict:
        """Batch ``number`` as the loader hands it over, on the host."""
        first = number * self.frames
        samples = [self.dataset[(first + i) % len(self.dataset)] for i in range(self.frames)]
        return self.dataset.collate_batch(samples)

    def step(self, batch: dict) -> float:
        """One update of the weights; the batch is left as it is. Returns the loss."""
        self.trainer.train_step(dict(batch))
        self.trainer.it += 1
        return self.trainer.last.loss


def build_distillation(detector: str, device: Device, small: bool) -> Distillation:
    """The distillation of a detector, untrained.

    Args:
        detector: a key of CONFIGS.
        device: where it trains.
        small: a rehearsal: a small range, narrow networks, two frames of few points.
    """
    models = ROOT / "tools/cfgs/kitti_models"
    cfg = cfg_from_yaml_file(str(models / CONFIGS[detector]), EasyDict())
    teacher_cfg = cfg_from_yaml_file(str(models / f"{detector}.yaml"), EasyDict())
    if small:
        for each, width in ((cfg, SMALL_WIDTH / 2), (teacher_cfg, SMALL_WIDTH)):
            shrink(each, detector, width)
    torch.manual_seed(0)
    dataset = SyntheticFrames(cfg.DATA_CONFIG, list(cfg.CLASS_NAMES), small)
    student, teacher = api.build_detector(cfg, dataset), api.build_detector(teacher_cfg, dataset)
    model = api.place(build_distiller(cfg, student, dataset, teacher=teacher), device.torch).train()
    optimizer = build_optimizer(model, cfg.OPTIMIZATION)
    scheduler = build_scheduler(optimizer, STEPS_A_SCHEDULE, 1, -1, cfg.OPTIMIZATION)
    settings = TrainSettings(
        epochs=1,
        grad_norm_clip=cfg.OPTIMIZATION.GRAD_NORM_CLIP,
        precision=Precision.choose(device.torch, enabled=False),
        seed=0,
    )
    trainer = Trainer(
        model, range(STEPS_A_SCHEDULE), optimizer, scheduler, settings=settings, device=device.torch
    )  # batches come one by one, from ``Distillation.batch``
    frames = SMALL_FRAMES if small else cfg.OPTIMIZATION.BATCH_SIZE_PER_GPU
    return Distillation(CONFIGS[detector], dataset, trainer, frames)


def shrink(cfg: Mapping[str, Any], detector: str, width: float) -> None:
    """Makes a configuration small, in place: its range or points, its networks, its distillation."""
    cfg.MODEL.WIDTH = width
    if detector in SMALL_RANGE:
        cfg.DATA_CONFIG.POINT_CLOUD_RANGE = SMALL_RANGE[detector]
    else:
        cfg.MODEL.BACKBONE_3D.SA_CONFIG.NPOINTS = SMALL_NPOINTS
        cfg.MODEL.ROI_HEAD.ROI_POINT_POOL.NUM_SAMPLED_POINTS = SMALL_NPOINTS[0]
        cfg.MODEL.ROI_HEAD.TARGET_CONFIG.ROI_PER_IMAGE = SMALL_ROIS
        cfg.DATA_CONFIG.POINT_CLOUD_RANGE = SMALL_RANGE["pointpillar"]
        for node in cfg.DATA_CONFIG.DATA_PROCESSOR:
            if node.NAME == "sample_points":
                node.NUM_POINTS = dict.fromkeys(("train", "test"), SMALL_NUM_POINTS)
    for node in (cfg.get("KD") or {}).get("LOSSES", []):
        node.SAMPLE = {"NUM": 50}
