"""Dense heads (and point heads), which turn features into predictions and losses."""

from pcdet.models.dense_heads.anchor_head_single import AnchorHeadSingle

__all__ = ["AnchorHeadSingle"]
