"""CenterPoint, its first stage (Yin, Zhou and Krähenbühl, CVPR 2021)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from pcdet.models.detectors.detector3d_template import Detector3DTemplate
from pcdet.models.model_utils.post_processing import generate_recall_record
from pcdet.registry import DETECTORS

# Keys of MODEL.POST_PROCESSING that other detectors read, and that OpenPCDet's CenterPoint ignores too.
UNREAD = ("SCORE_THRESH", "OUTPUT_RAW_SCORE", "NMS_CONFIG", "MULTI_CLASSES_NMS")


@DETECTORS.register
class CenterPoint(Detector3DTemplate):
    """Pillar or voxel features, a BEV map, a BEV backbone, a centre head, which suppresses its boxes itself."""

    REQUIRED = ("vfe", "map_to_bev_module", "backbone_2d", "dense_head")

    def __init__(self, model_cfg: Mapping, num_class: int, dataset: Any):
        super().__init__(model_cfg, num_class, dataset)
        if unread := [key for key in UNREAD if model_cfg["POST_PROCESSING"].get(key)]:
            logging.getLogger("pcdet").warning(
                f"MODEL.POST_PROCESSING: {type(self).__name__} does not read {', '.join(unread)}; its head chooses the "
                "boxes, by MODEL.DENSE_HEAD.POST_PROCESSING"
            )

    @torch.no_grad()
    def post_processing(self, batch_dict: dict) -> tuple[list[dict], dict]:
        """Final boxes of every frame.

        Reads: ``final_box_dicts``, or the head's last predictions where it was told to leave them as they are
        (``decode_boxes`` False); ``gt_boxes``.
        Writes: ``final_box_dicts``.
        """
        if "final_box_dicts" not in batch_dict:
            if not hasattr(self.dense_head, "final_boxes"):
                raise ValueError(
                    f"{type(self).__name__} needs a head that leaves final_box_dicts, such as CenterHead, got "
                    f"{type(self.dense_head).__name__}; set MODEL.NAME to the detector of this head"
                )
            batch_dict["final_box_dicts"] = self.dense_head.final_boxes()
        found = batch_dict["final_box_dicts"]
        boxes, threshs = [frame["pred_boxes"] for frame in found], self.post_processing_cfg.recall_thresh_list
        return found, generate_recall_record(boxes, None, batch_dict.get("gt_boxes"), threshs)
