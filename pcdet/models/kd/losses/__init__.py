"""One file per distillation method; importing this package registers them all in ``KD_LOSSES``."""

from pcdet.models.kd.losses.attention_transfer import AttentionTransfer
from pcdet.models.kd.losses.base import KDLoss
from pcdet.models.kd.losses.box_consistency import BoxConsistency
from pcdet.models.kd.losses.crd import CRD
from pcdet.models.kd.losses.cwd import CWD
from pcdet.models.kd.losses.dkd import DKD
from pcdet.models.kd.losses.feature_based import FeatureBased
from pcdet.models.kd.losses.feature_loss import FeatureLoss
from pcdet.models.kd.losses.fgd import FGD
from pcdet.models.kd.losses.fgfi import FGFI
from pcdet.models.kd.losses.fitnet import FitNet
from pcdet.models.kd.losses.map_loss import MapLoss
from pcdet.models.kd.losses.mgd import MGD
from pcdet.models.kd.losses.overhaul import Overhaul
from pcdet.models.kd.losses.pivotal_logit import PivotalLogit
from pcdet.models.kd.losses.pkd import PKD
from pcdet.models.kd.losses.point_distiller import PointDistiller
from pcdet.models.kd.losses.prediction_loss import PredictionLoss
from pcdet.models.kd.losses.rkd import RKD
from pcdet.models.kd.losses.row_set_loss import RowSetLoss
from pcdet.models.kd.losses.similarity_preserving import SimilarityPreserving

__all__ = [
    "AttentionTransfer",
    "BoxConsistency",
    "CRD",
    "CWD",
    "DKD",
    "FGD",
    "FGFI",
    "FeatureBased",
    "FeatureLoss",
    "FitNet",
    "KDLoss",
    "MGD",
    "MapLoss",
    "Overhaul",
    "PKD",
    "PivotalLogit",
    "PointDistiller",
    "PredictionLoss",
    "RKD",
    "RowSetLoss",
    "SimilarityPreserving",
]
