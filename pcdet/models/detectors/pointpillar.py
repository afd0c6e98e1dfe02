"""PointPillars (Lang et al., CVPR 2019)."""

from __future__ import annotations

from pcdet.models.detectors.detector3d_template import Detector3DTemplate
from pcdet.registry import DETECTORS


@DETECTORS.register
class PointPillar(Detector3DTemplate):
    """Pillar features, a BEV map, a BEV backbone, an anchor head."""

    REQUIRED = ("vfe", "map_to_bev_module", "backbone_2d", "dense_head")
