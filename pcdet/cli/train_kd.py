"""Distils a teacher into a student: a training with a distiller around the detector.

The student's checkpoints are plain detector checkpoints: test.py needs to know nothing of distillation.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from easydict import EasyDict
from torch import nn

from pcdet import api
from pcdet.cli import train
from pcdet.cli.ending import run
from pcdet.config import ConfigError, cfg_from_yaml_file, find_config_file
from pcdet.models.kd import build_distiller
from pcdet.models.kd.training_state import OtherLossesError

# A loss that owns nothing leaves no trace in a checkpoint.
GO_ON = (
    "{file} has losses that own such weights: go on with --cfg_file {file} and the same --output_dir or --ckpt. If the "
    "run also had PivotalLogit, as the recommended files had until they were replaced, add it there under KD.LOSSES"
)


def main(argv: Sequence[str] | None = None) -> None:
    """The command; its arguments are those of the process if None."""
    run(lambda: run_distillation(train.parse_args(argv, distil=True)))


def run_distillation(args: argparse.Namespace) -> None:
    """A whole distillation; a checkpoint of other losses is told with the file to go on with, if there is one."""
    built = []

    def build_model(cfg, dataset, *rest):
        built.extend((cfg, dataset))
        return build_student_with_teacher(cfg, dataset, *rest)

    try:
        train.run_training(args, build_model=build_model, distil=True)
    except OtherLossesError as error:
        file = file_with_losses(error.kd_state, args.cfg_file, *built)
        hint = "" if file is None else f"\n{GO_ON.format(file=file)}"
        raise OtherLossesError(f"{error}{hint}", error.kd_state) from error


def build_student_with_teacher(
    cfg: Mapping, dataset: Any, logger: logging.Logger, pretrained: str | None = None
) -> nn.Module:
    """The detector of the ``MODEL`` block inside the distiller of the ``KD`` block.

    Raises:
        ConfigError: there is no ``KD`` block, it names no checkpoint, or something in it is wrong.
        FileNotFoundError: the teacher's checkpoint does not exist.
    """
    if not cfg.get("KD"):
        raise ConfigError("KD: missing, so there is nothing to distil; train the model alone with train.py")
    ckpt = (cfg.KD.get("TEACHER") or {}).get("CKPT")
    if not ckpt:
        raise ConfigError("KD.TEACHER.CKPT: the teacher has no weights; give --teacher_ckpt FILE")
    if not Path(ckpt).is_file():
        raise FileNotFoundError(f"the teacher's checkpoint {ckpt} does not exist; train it first with train.py")
    if pretrained is not None and (cfg.KD.get("INIT") or {}).get("NAME", "none") != "none":
        raise ConfigError("KD.INIT: slices of the teacher would replace --pretrained_model; give one of them")
    student = train.build_detector(cfg, dataset, logger, pretrained)
    teacher, own_input = api.load_teacher(cfg, dataset, logger)
    return build_distiller(cfg, student, dataset, logger, teacher=teacher, own_input=own_input)


def file_with_losses(kd_state: Mapping, cfg_file: str, cfg: Mapping, dataset: Any) -> Path | None:
    """The file beside ``cfg_file``, named after it (``<name>_*.yaml``), whose losses own such tensors; else None.

    A recipe that was replaced is kept under such a name, and a training that began with it can go on there.
    """
    path = find_config_file(cfg_file)
    wanted = {key: value.shape for key, value in kd_state.items()}
    for file in sorted(path.parent.glob(f"{path.stem}_*.yaml")):
        try:
            own = state_of_losses(file, cfg, dataset)
        except ConfigError:  # no training began with a file that cannot be read or built
            continue
        if own is not None and {key: value.shape for key, value in own.items()} == wanted:
            return file
    return None


def state_of_losses(file: Path, cfg: Mapping, dataset: Any) -> Mapping | None:
    """What the losses of a file own, or None if it is not for the student and the teacher of ``cfg``."""
    other = cfg_from_yaml_file(file, EasyDict())
    teacher = (other.get("KD") or {}).get("TEACHER") or {}
    if other.get("MODEL") != cfg.MODEL or teacher.get("CFG") != cfg.KD.TEACHER.CFG:
        return None
    other.KD.TEACHER = cfg.KD.TEACHER
    return build_student_with_teacher(other, dataset, logging.Logger("unheard")).extra_state()["kd_state"]
