"""Backbones on the bird's-eye view (BEV) and, in ``map_to_bev``, what leads there."""

from pcdet.models.backbones_2d.base_bev_backbone import BaseBEVBackbone

__all__ = ["BaseBEVBackbone"]
