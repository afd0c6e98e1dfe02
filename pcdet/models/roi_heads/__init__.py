"""Second stages, which refine proposals."""

from pcdet.models.roi_heads.pointrcnn_head import PointRCNNHead

__all__ = ["PointRCNNHead"]
