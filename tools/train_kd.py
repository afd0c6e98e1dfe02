"""Distils a teacher into a student: train.py with a distiller around the detector.

    python train_kd.py --cfg_file cfgs/kitti_models/kd/pointpillar_4x.yaml --teacher_ckpt TEACHER.pth

The student's checkpoints are plain detector checkpoints: test.py needs to know nothing of distillation.
"""

import logging
from pathlib import Path

import _session
import train
from easydict import EasyDict

from pcdet.api import load_teacher
from pcdet.config import ConfigError, cfg_from_yaml_file, find_config_file
from pcdet.engine.checkpoint import OtherLossesError, checkpoint_state
from pcdet.models.kd import build_distiller


def build_student_with_teacher(cfg, dataset, logger, pretrained=None):
    """The detector of the ``MODEL`` block inside the distiller of the ``KD`` block."""
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
    teacher, own_input = load_teacher(cfg, dataset, logger)
    return build_distiller(cfg, student, dataset, logger, teacher=teacher, own_input=own_input)


# A loss that owns nothing leaves no trace in a checkpoint.
GO_ON = (
    "{file} has losses that own such weights: go on with --cfg_file {file} and the same --output_dir or --ckpt. If the "
    "run also had PivotalLogit, as the recommended files had until they were replaced, add it there under KD.LOSSES"
)


def file_with_losses(kd_state, cfg_file, cfg, dataset):
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


def state_of_losses(file, cfg, dataset):
    """What the losses of a file own, or None if it is not for the student and the teacher of ``cfg``."""
    other = cfg_from_yaml_file(file, EasyDict())
    teacher = (other.get("KD") or {}).get("TEACHER") or {}
    if other.get("MODEL") != cfg.MODEL or teacher.get("CFG") != cfg.KD.TEACHER.CFG:
        return None
    other.KD.TEACHER = cfg.KD.TEACHER
    return checkpoint_state(build_student_with_teacher(other, dataset, logging.Logger("unheard")))["kd_state"]


def main():
    built = []

    def build_model(cfg, dataset, *args):
        built.extend((cfg, dataset))
        return build_student_with_teacher(cfg, dataset, *args)

    try:
        train.main(build_model=build_model, distil=True)
    except OtherLossesError as error:
        file = file_with_losses(error.kd_state, train.parse_args(distil=True).cfg_file, *built)
        hint = "" if file is None else f"\n{GO_ON.format(file=file)}"
        raise OtherLossesError(f"{error}{hint}", error.kd_state) from error


if __name__ == "__main__":
    _session.run(main)
