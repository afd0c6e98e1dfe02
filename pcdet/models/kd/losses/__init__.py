"""One file per distillation method; importing this package registers them all in ``KD_LOSSES``."""

from pcdet.models.kd.losses.base import KDLoss
from pcdet.models.kd.losses.fitnet import FitNet
from pcdet.models.kd.losses.pivotal_logit import PivotalLogit
from pcdet.models.kd.losses.point_distiller import PointDistiller

__all__ = ["FitNet", "KDLoss", "PivotalLogit", "PointDistiller"]
