"""Knowledge distillation between detectors: ``build_distiller`` and the parts it puts together."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import yaml
from torch import nn

from pcdet.models.kd.distiller import Distiller
from pcdet.models.kd.features.grid import Geometry
from pcdet.models.kd.features.tap_specs import check_learns, kind_of_tap
from pcdet.models.kd.features.taps import head_kind
from pcdet.models.kd.features.teacher_batch import TeacherInput
from pcdet.models.kd.init.channel_choice import inherit_channels
from pcdet.models.kd.init.weight_slicing import inherit_weights
from pcdet.models.kd.losses.base import KDLoss
from pcdet.models.kd.model_outputs import ModelPair
from pcdet.models.kd.schema import KDConfig, resolve
from pcdet.models.kd.teacher_labels import LabelsConfig
from pcdet.registry import KD_LOSSES, ConfigError, build_from_cfg

__all__ = ["Distiller", "KDConfig", "build_distiller"]


def build_distiller(
    cfg: Any,
    student: nn.Module,
    dataset: Any,
    logger: logging.Logger | None = None,
    *,
    teacher: nn.Module,
    own_input: TeacherInput | None = None,
) -> Distiller | None:
    """The student with its teacher and losses, as the ``KD:`` block says; None without such a block.

    Args:
        cfg: the student's whole configuration (EasyDict).
        student: built from ``cfg.MODEL``.
        dataset: read for class_names, grid_size, voxel_size, point_cloud_range and point_feature_encoder.
        logger: gets the block with its presets and defaults written out.
        teacher: with its weights; ``pcdet.api.load_teacher`` builds the one that the block names.
        own_input: of a teacher whose grid differs from the student's; ``load_teacher`` returns it too.

    Raises:
        ConfigError: with every problem of the block.
    """
    node = cfg.get("KD")
    if node is None:
        return None
    kd, resolved = resolve(node, lambda tap: _kind(student, tap))
    logger = logger or logging.getLogger("pcdet")
    logger.info("KD block, presets and defaults written out:\n%s", yaml.safe_dump({"KD": resolved}, sort_keys=False))
    if kd.init.name == "slice":
        logger.info("student begins with slices of the teacher: %d tensors", inherit_weights(student, teacher))
    elif kd.init.name != "none":
        copied = inherit_channels(student, teacher, kd.init.name)
        logger.info("student begins with the teacher's channels chosen by %s: %d tensors", kd.init.name, copied)
    losses = _build_losses(kd.losses, ModelPair(student, teacher))
    _warn_of_free_targets(losses, logger)
    for label, loss in losses.items():
        if loss.left_out:
            logger.warning("KD loss %s leaves out %s", label, loss.left_out)
    return Distiller(
        student,
        teacher,
        losses,
        Geometry.of(dataset),
        own_input=own_input,
        labels=_checked_labels(kd, student),
        teacher_mode=kd.teacher.mode,
        log_every=kd.log_every,
        target_var_warn=kd.target_var_warn,
        logger=logger,
    )


def _kind(student: nn.Module, tap: str) -> str:
    """What a preset's keys depend on: the kind of a tap, or without one what the head predicts on."""
    return kind_of_tap(student, tap) if tap else head_kind(getattr(student, "dense_head", None))


def _checked_labels(kd: KDConfig, student: nn.Module) -> LabelsConfig | None:
    """Those of the block; ConfigError if they do not fit the student's classes."""
    if kd.labels is not None:
        try:
            kd.labels.check_classes(student.num_class)
        except ValueError as error:
            raise ConfigError(f"KD.LABELS.{error}") from error
    return kd.labels


def _build_losses(nodes: list[dict], pair: ModelPair) -> dict[str, KDLoss]:
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


def _warn_of_free_targets(losses: dict[str, KDLoss], logger: logging.Logger) -> None:
    """One warning of all losses that can make their own target vanish."""
    free = {label: loss.free_target for label, loss in losses.items() if loss.free_target and loss.weight > 0}
    if free:
        logger.warning(
            "KD loss %s: the target is trained by the loss itself (%s), which can make it vanish in place of teaching "
            "the student. Set ADAPTER.TEACHER to frozen or none (PRESET default), or watch target_var_ratio.",
            ", ".join(free),
            "; ".join(sorted(set(free.values()))),
        )


def _labels(losses: list[dict]) -> list[str]:
    """A name for each loss: its class, numbered where there are several."""
    totals, seen = Counter(loss["NAME"] for loss in losses), Counter()
    labels = []
    for loss in losses:
        name = loss["NAME"]
        seen[name] += 1
        labels.append(name if totals[name] == 1 else f"{name}_{seen[name]}")
    return labels
