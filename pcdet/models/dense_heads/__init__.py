"""Dense heads (and point heads), which turn features into predictions and losses."""

from pcdet.models.dense_heads.anchor_head_multi import AnchorHeadMulti
from pcdet.models.dense_heads.anchor_head_single import AnchorHeadSingle
from pcdet.models.dense_heads.center_head import CenterHead
from pcdet.models.dense_heads.point_head_box import PointHeadBox

__all__ = ["AnchorHeadMulti", "AnchorHeadSingle", "CenterHead", "PointHeadBox"]
