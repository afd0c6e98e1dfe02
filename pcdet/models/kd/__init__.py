"""Knowledge distillation between detectors: ``build_distiller`` and the parts it puts together."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import yaml
from torch import nn

from pcdet.models.kd.distiller import Distiller
from pcdet.models.kd.features.grid import Geometry
from pcdet.models.kd.features.taps import check_learns
from pcdet.models.kd.features.teacher_batch import TeacherInput, teacher_input
from pcdet.models.kd.init.weight_slicing import inherit_weights
from pcdet.models.kd.model_outputs import ModelPair
from pcdet.models.kd.schema import KDConfig, resolve
from pcdet.registry import KD_LOSSES, ConfigError, build_from_cfg, load_object

__all__ = ["Distiller", "KDConfig", "build_distiller"]


def build_distiller(
    cfg: Any,
    student: nn.Module,
    dataset: Any,
    logger: logging.Logger | None = None,
    teacher: nn.Module | None = None,
    own_input: TeacherInput | None = None,
) -> Distiller | None:
    """The student with its teacher and losses, as the ``KD:`` block says; None without such a block.

    Args:
        cfg: the student's whole configuration (EasyDict).
        student: built from ``cfg.MODEL``.
        dataset: read for class_names, grid_size, voxel_size, point_cloud_range and point_feature_encoder.
        logger: gets the block with its presets and defaults written out.
        teacher: with its weights; without one it is built from KD.TEACHER.CFG and KD.TEACHER.CKPT, for a grid of its
            own where its DATA_CONFIG names one.
        own_input: of a given teacher whose grid differs from the student's.

    Raises:
        ConfigError: with every problem of the block.
    """
    node = cfg.get("KD")
    if node is None:
        return None
    kd, resolved = resolve(node)
    logger = logger or logging.getLogger("pcdet")
    logger.info("KD block, presets and defaults written out:\n%s", yaml.safe_dump({"KD": resolved}, sort_keys=False))
    if teacher is None:
        teacher, own_input = _load_teacher(kd, cfg, dataset, logger)
    if kd.init.name == "slice":
        logger.info("student begins with slices of the teacher: %d tensors", inherit_weights(student, teacher))
    return Distiller(
        student,
        teacher,
        _build_losses(kd.losses, ModelPair(student, teacher)),
        Geometry.of(dataset),
        own_input=own_input,
        teacher_mode=kd.teacher.mode,
        log_every=kd.log_every,
        target_var_warn=kd.target_var_warn,
        logger=logger,
    )


def _load_teacher(
    kd: KDConfig, student_cfg: Any, dataset: Any, logger: logging.Logger
) -> tuple[nn.Module, TeacherInput | None]:
    """The teacher from its YAML and checkpoint, and what it is fed with if that is not the student's batch."""
    problems = []
    if not kd.teacher.cfg:
        problems.append("KD.TEACHER.CFG: missing; the teacher's YAML file")
    if not kd.teacher.ckpt:
        problems.append(
            "KD.TEACHER.CKPT: missing; a teacher without training teaches nothing. Give --teacher_ckpt PATH"
        )
    if problems:
        raise ConfigError(problems)
    # Both are neighbours on this floor, hence by name: pcdet.config reads files, and the models build detectors.
    cfg = load_object("pcdet.config:cfg_from_yaml_file")(kd.teacher.cfg, load_object("easydict:EasyDict")())
    class_names = list(cfg.get("CLASS_NAMES") or dataset.class_names)
    if class_names != list(dataset.class_names):
        raise ConfigError(
            f"KD.TEACHER.CFG: {kd.teacher.cfg} has CLASS_NAMES {class_names}, the student {list(dataset.class_names)}; "
            "they must be the same, in the same order"
        )
    own_input = teacher_input(cfg, student_cfg, dataset, logger)
    if own_input is not None:
        logger.info("the teacher has a grid of its own: %s", own_input.geometry)
    teacher = load_object("pcdet.models:build_network")(
        model_cfg=cfg.MODEL, num_class=len(class_names), dataset=dataset if own_input is None else own_input.facts
    )
    teacher.load_params_from_file(filename=kd.teacher.ckpt, logger=logger, to_cpu=True)
    return teacher, own_input


def _build_losses(nodes: list[dict], pair: ModelPair) -> dict[str, nn.Module]:
    """Label -> loss; ConfigError with what every constructor complains about, and where."""
    losses, problems = {}, []
    for i, (label, node) in enumerate(zip(_labels(nodes), nodes, strict=True)):
        path = f"KD.LOSSES[{i}]"
        try:
            losses[label] = build_from_cfg(node, KD_LOSSES, path=path, pair=pair)
            for tap in losses[label].student_taps:
                check_learns(pair.student, tap)
        except ConfigError as error:
            problems += error.problems
        except ValueError as error:
            problems.append(f"{path}: {error}")
    if problems:
        raise ConfigError(problems)
    return losses


def _labels(losses: list[dict]) -> list[str]:
    """A name for each loss: its class, numbered where there are several."""
    totals, seen = Counter(loss["NAME"] for loss in losses), Counter()
    labels = []
    for loss in losses:
        name = loss["NAME"]
        seen[name] += 1
        labels.append(name if totals[name] == 1 else f"{name}_{seen[name]}")
    return labels
