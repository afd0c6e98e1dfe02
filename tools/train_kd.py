"""Distils a teacher into a student: train.py with a distiller around the detector.

    python train_kd.py --cfg_file cfgs/kitti_models/kd/pointpillar_4x.yaml --teacher_ckpt TEACHER.pth

The student's checkpoints are plain detector checkpoints: test.py needs to know nothing of distillation.
"""

from pathlib import Path

import _session
import train

from pcdet.config import ConfigError
from pcdet.models.kd import build_distiller
from pcdet.utils.weights import MisfitError


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
    try:
        return build_distiller(cfg, student, dataset, logger=logger)
    except MisfitError as error:
        raise MisfitError(f"the teacher of {cfg.KD.TEACHER.CFG}: {error}") from error


def main():
    train.main(build_model=build_student_with_teacher, distil=True)


if __name__ == "__main__":
    _session.run(main)
