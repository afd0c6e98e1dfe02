"""Builds, loads and places detectors: the one place where a configuration and a checkpoint become a model.

Commands and scripts come here: ``build_detector``, ``load_weights`` and ``place`` for a model to train or evaluate,
``load_teacher`` for a distillation, ``Detector`` for boxes in point clouds.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from easydict import EasyDict
from torch import nn

from pcdet.config import ConfigError, cfg_from_yaml_file, require_sections
from pcdet.datasets.point_folder import PointClouds, name_of_cloud
from pcdet.engine.precision import Precision
from pcdet.engine.runtime import select_device
from pcdet.models import build_network
from pcdet.models.kd.features.teacher_batch import TeacherInput, teacher_input
from pcdet.models.kd.schema import KDConfig
from pcdet.registry import parse_node
from pcdet.utils.common_utils import batch_to_device
from pcdet.utils.native_ops import require_kernels
from pcdet.utils.visualize import Boxes
from pcdet.utils.weights import MisfitError

__all__ = ["Boxes", "Detector", "build_detector", "load_teacher", "load_weights", "place"]


def build_detector(
    cfg: Mapping,
    dataset: Any,
    *,
    ckpt: str | os.PathLike | None = None,
    allow_partial: bool = False,
    logger: logging.Logger | None = None,
) -> nn.Module:
    """The detector of a configuration's ``MODEL`` block, on the CPU and in training mode.

    Args:
        cfg: a configuration with MODEL.
        dataset: what it is built for; see ``Detector3DTemplate``. Its class_names count.
        ckpt: weights to begin with; None leaves the model as it initialises itself.
        allow_partial: take what fits of the checkpoint and report the rest; otherwise all that differs is an error.
        logger: told what was loaded and what was not.

    Raises:
        ConfigError: with every wrong key of the first part that cannot be built.
        CheckpointError: the checkpoint cannot be read.
        MisfitError: the checkpoint is of another model.
    """
    model = build_network(model_cfg=cfg["MODEL"], num_class=len(dataset.class_names), dataset=dataset)
    if ckpt is not None:
        load_weights(model, ckpt, allow_partial=allow_partial, logger=logger)
    return model


def load_weights(
    model: nn.Module,
    ckpt: str | os.PathLike,
    *,
    pretrained: str | os.PathLike | None = None,
    allow_partial: bool = False,
    logger: logging.Logger | None = None,
) -> None:
    """Puts the weights of a checkpoint into a detector.

    Args:
        model: a detector, on any device.
        ckpt: a checkpoint, written here or by OpenPCDet, or a safetensors file.
        pretrained: a second one, whose weights take precedence.
        allow_partial: take what fits and report the rest; otherwise anything that differs is an error.
        logger: told what was loaded and what was not.

    Raises:
        CheckpointError: a file cannot be read.
        MisfitError: a file is of another model.
    """
    model.load_params_from_file(
        filename=str(ckpt), logger=logger, to_cpu=True, pre_trained_path=pretrained, allow_partial=allow_partial
    )


def place(model: nn.Module, device: torch.device, precision: Precision | None = None) -> nn.Module:
    """The model on a device, in the memory layout that goes with a precision; None leaves the layout as it is.

    Raises:
        NoKernelError: the native ops are not built for this kind of device.
    """
    require_kernels(device)
    model = model.to(device)
    return model if precision is None else precision.lay_out(model)


# ------------------------------------------------------------------------------------------------------------ teachers


def load_teacher(
    cfg: Mapping, dataset: Any, logger: logging.Logger | None = None
) -> tuple[nn.Module, TeacherInput | None]:
    """The teacher that a student's ``KD`` block names, with its weights, and what it is fed with.

    Args:
        cfg: the student's whole configuration; KD.TEACHER.CFG and KD.TEACHER.CKPT say where the teacher is.
        dataset: the student's.
        logger: told what was loaded, and of a grid that differs.

    Returns:
        The teacher, on the CPU, and how the student's batches become its own; None where it reads them as they are.

    Raises:
        ConfigError: with every problem of the block, or a teacher of other classes or points than the student's.
        CheckpointError: the checkpoint cannot be read.
        MisfitError: the checkpoint is not of KD.TEACHER.CFG.
    """
    logger = logger or logging.getLogger("pcdet")
    kd = parse_node(cfg["KD"], KDConfig, path="KD")
    _check_files_named(kd)
    teacher_cfg = cfg_from_yaml_file(kd.teacher.cfg, EasyDict())
    class_names = list(teacher_cfg.get("CLASS_NAMES") or dataset.class_names)
    if class_names != list(dataset.class_names):
        raise ConfigError(
            f"KD.TEACHER.CFG: {kd.teacher.cfg} has CLASS_NAMES {class_names}, the student {list(dataset.class_names)}; "
            "they must be the same, in the same order"
        )
    own_input = teacher_input(teacher_cfg, cfg, dataset, logger)
    if own_input is not None:
        logger.info("the teacher has a grid of its own: %s", own_input.geometry)
    facts = dataset if own_input is None else own_input.facts
    try:
        return build_detector(teacher_cfg, facts, ckpt=kd.teacher.ckpt, logger=logger), own_input
    except MisfitError as error:
        raise MisfitError(f"the teacher of {kd.teacher.cfg}: {error}") from error


def _check_files_named(kd: KDConfig) -> None:
    problems = []
    if not kd.teacher.cfg:
        problems.append("KD.TEACHER.CFG: missing; the teacher's YAML file")
    if not kd.teacher.ckpt:
        problems.append(
            "KD.TEACHER.CKPT: missing; a teacher without training teaches nothing. Give --teacher_ckpt PATH"
        )
    if problems:
        raise ConfigError(problems)


# ----------------------------------------------------------------------------------------------------------- detection


class Detector:
    """A trained detector that finds objects in one point cloud at a time.

    Args:
        model: with its weights; it is put into eval mode.
        clouds: how a cloud becomes the model's input.
        device: where the model runs.
    """

    def __init__(self, model: nn.Module, clouds: PointClouds, device: torch.device):
        self.model, self.clouds, self.device = place(model, device).eval(), clouds, device

    @classmethod
    def from_checkpoint(
        cls,
        cfg: Mapping | str | os.PathLike,
        ckpt: str | os.PathLike,
        *,
        device: str = "auto",
        allow_partial: bool = False,
        logger: logging.Logger | None = None,
    ) -> Detector:
        """Builds the detector of a model file and loads its weights.

        Args:
            cfg: a model file, or a configuration with CLASS_NAMES, DATA_CONFIG and MODEL.
            ckpt: a checkpoint, or a safetensors file.
            device: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.
            allow_partial: take what fits of the checkpoint; otherwise anything that differs is an error.
            logger: told what was loaded and what was not.

        Raises:
            FileNotFoundError: there is no such model file.
            ConfigError: with everything that is wrong with the configuration.
            CheckpointError: the checkpoint cannot be read.
            MisfitError: the checkpoint is of another model.
            ValueError: the device is not there.
        """
        if not isinstance(cfg, Mapping):
            cfg = cfg_from_yaml_file(cfg, EasyDict())
        require_sections(cfg, ("CLASS_NAMES", "DATA_CONFIG", "MODEL"))
        clouds = PointClouds(cfg["DATA_CONFIG"], cfg["CLASS_NAMES"], logger=logger)
        model = build_detector(cfg, clouds, ckpt=ckpt, allow_partial=allow_partial, logger=logger)
        return cls(model, clouds, select_device(device))

    def __call__(self, cloud: np.ndarray | str | os.PathLike, score_thresh: float = 0.0) -> Boxes:
        """The objects of a cloud, with their classes and scores.

        Args:
            cloud: (N, C) points in the LiDAR frame (x forward, y left, z up; metres) with the columns of
                POINT_FEATURE_ENCODING.src_feature_list, or a .bin or .npy file of such, or a .pcd.bin of nuScenes.
            score_thresh: boxes with a lower score are left out.

        Raises:
            BadFrameError: the points have other columns, or hold NaN or infinite values.
        """
        is_array = isinstance(cloud, np.ndarray)
        points = self.clouds.check_cloud(cloud) if is_array else self.clouds.read_cloud(Path(cloud))
        sample = {"points": points, "frame_id": "cloud" if is_array else name_of_cloud(Path(cloud))}
        return self.detect(self.clouds.prepare_data(sample), score_thresh)

    @torch.no_grad()
    def detect(self, sample: dict, score_thresh: float = 0.0) -> Boxes:
        """The objects of a sample that ``clouds`` has prepared, with scores of ``score_thresh`` or more."""
        batch = batch_to_device(self.clouds.collate_batch([sample]), self.device)
        predictions, _ = self.model(batch)
        result = self.clouds.generate_prediction_dicts(batch, predictions, self.clouds.class_names)[0]
        kept = result["score"] >= score_thresh
        return Boxes(result["boxes_lidar"][kept], result["name"][kept].tolist(), result["score"][kept])
