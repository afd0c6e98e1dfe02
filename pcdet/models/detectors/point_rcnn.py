"""PointRCNN (Shi et al., CVPR 2019)."""

from __future__ import annotations

from pcdet.models.detectors.detector3d_template import Detector3DTemplate
from pcdet.registry import DETECTORS


@DETECTORS.register
class PointRCNN(Detector3DTemplate):
    """Point features, boxes of single points, and a second stage that refines the best of them."""

    REQUIRED = ("backbone_3d", "point_head", "roi_head")
