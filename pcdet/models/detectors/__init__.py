"""Detectors: which modules, in which order."""

from pcdet.models.detectors.detector3d_template import Detector3DTemplate
from pcdet.models.detectors.pointpillar import PointPillar

__all__ = ["Detector3DTemplate", "PointPillar"]
