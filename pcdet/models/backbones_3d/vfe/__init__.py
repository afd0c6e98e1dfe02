"""Voxel feature encoders."""

from pcdet.models.backbones_3d.vfe.dynamic_mean_vfe import DynamicMeanVFE
from pcdet.models.backbones_3d.vfe.dynamic_pillar_vfe import DynamicPillarVFE
from pcdet.models.backbones_3d.vfe.mean_vfe import MeanVFE
from pcdet.models.backbones_3d.vfe.pillar_vfe import PillarVFE

__all__ = ["DynamicMeanVFE", "DynamicPillarVFE", "MeanVFE", "PillarVFE"]
