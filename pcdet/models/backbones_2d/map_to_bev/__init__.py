"""From sparse features to a dense BEV map."""

from pcdet.models.backbones_2d.map_to_bev.height_compression import HeightCompression
from pcdet.models.backbones_2d.map_to_bev.pointpillar_scatter import PointPillarScatter

__all__ = ["HeightCompression", "PointPillarScatter"]
