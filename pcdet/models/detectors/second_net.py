"""SECOND (Yan, Mao and Li, Sensors 2018)."""

from __future__ import annotations

from pcdet.models.detectors.detector3d_template import Detector3DTemplate
from pcdet.registry import DETECTORS


@DETECTORS.register
class SECONDNet(Detector3DTemplate):
    """Voxel features, a sparse 3D backbone, a BEV map, a BEV backbone, an anchor head."""

    REQUIRED = ("vfe", "backbone_3d", "map_to_bev_module", "backbone_2d", "dense_head")
