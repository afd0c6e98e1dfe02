"""Detectors: which modules, in which order."""

from pcdet.models.detectors.centerpoint import CenterPoint
from pcdet.models.detectors.detector3d_template import Detector3DTemplate
from pcdet.models.detectors.point_rcnn import PointRCNN
from pcdet.models.detectors.pointpillar import PointPillar
from pcdet.models.detectors.second_net import SECONDNet

__all__ = ["CenterPoint", "Detector3DTemplate", "PointPillar", "PointRCNN", "SECONDNet"]
