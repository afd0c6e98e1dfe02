"""Voxel feature encoders."""

from pcdet.models.backbones_3d.vfe.mean_vfe import MeanVFE
from pcdet.models.backbones_3d.vfe.pillar_vfe import PillarVFE

__all__ = ["MeanVFE", "PillarVFE"]
