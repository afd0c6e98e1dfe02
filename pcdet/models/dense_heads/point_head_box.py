"""PointRCNN's first stage: every point says whether it lies in an object, and in which box (Shi et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace

import torch

from pcdet.models.channel_flow import ChannelFlow, Parts
from pcdet.models.dense_heads.point_head_template import (
    PointHeadTemplate,
    PointLossConfig,
    PointTargetConfig,
    make_fc_layers,
)
from pcdet.models.feature_spec import Entries
from pcdet.registry import POINT_HEADS, Count
from pcdet.utils.loss_utils import at_least_float32

BEFORE_FUSION = "point_features_before_fusion"


@POINT_HEADS.register
class PointHeadBox(PointHeadTemplate):
    """A class and a box for every point. Boxes are coded by residuals, as in OpenPCDet, not by the paper's bins.

    Args:
        cls_fc, reg_fc: channels of the hidden layers.
        class_agnostic: one class for all; the detector then gives ``num_class`` 1.
        use_point_features_before_fusion: read ``point_features_before_fusion`` instead of ``point_features``.
        target_config, loss_config: see their classes.
        input_channels: channels of the point features.
        num_class: number of classes.
        predict_boxes_when_training: decode boxes in training too, for a second stage.
    """

    def __init__(
        self,
        *,
        cls_fc: list[Count],
        reg_fc: list[Count],
        class_agnostic: bool = False,
        use_point_features_before_fusion: bool = False,
        target_config: PointTargetConfig,
        loss_config: PointLossConfig,
        input_channels: int,
        num_class: int,
        predict_boxes_when_training: bool = False,
    ):
        super().__init__(target_config=target_config, loss_config=loss_config, num_class=num_class)
        self.predict_boxes_when_training = predict_boxes_when_training
        self.features_key = BEFORE_FUSION if use_point_features_before_fusion else "point_features"
        self.cls_layers = make_fc_layers(cls_fc, input_channels, num_class)
        self.box_layers = make_fc_layers(reg_fc, input_channels, self.box_coder.code_size)

    @classmethod
    def reads(cls, config: SimpleNamespace) -> str:
        """The features before or after a fusion."""
        return BEFORE_FUSION if config.use_point_features_before_fusion else "point_features"

    @classmethod
    def problems(cls, config: SimpleNamespace, inputs: Entries) -> Iterator[str]:
        """Something makes the features before a fusion, where those are read."""
        if config.use_point_features_before_fusion and inputs.lacks(BEFORE_FUSION):
            yield (
                "USE_POINT_FEATURES_BEFORE_FUSION: nothing makes such features here, as VoxelSetAbstraction is not "
                "covered; set it to False"
            )

    def channel_flow(self, flow: ChannelFlow, path: str, entries: Mapping[str, Parts]) -> dict[str, Parts]:
        """Two sequences of layers on the features of the points."""
        for name in ("cls_layers", "box_layers"):
            flow.sequence(f"{path}.{name}", getattr(self, name), entries[self.features_key])
        return {}

    def forward(self, batch_dict: dict) -> dict:
        """Predicts for every point.

        Reads: ``point_features`` (B * N, C), ``point_coords`` (B * N, 4); ``gt_boxes`` in training.
        Writes: ``point_cls_scores`` (B * N,), the best class's probability; in evaluation, or with a second stage,
        ``batch_cls_preds`` (B * N, num_class) logits, ``batch_box_preds`` (B * N, 7), ``batch_index`` (B * N,) and
        ``cls_preds_normalized`` False.
        """
        features, points = batch_dict[self.features_key], batch_dict["point_coords"]
        cls_preds, box_preds = self.cls_layers(features), self.box_layers(features)
        self.forward_ret_dict = {"point_cls_preds": cls_preds, "point_box_preds": box_preds}
        logits = at_least_float32(cls_preds)
        batch_dict["point_cls_scores"] = torch.sigmoid(logits.max(dim=-1).values)
        if self.training:
            self.forward_ret_dict.update(self.assign_targets(points, batch_dict["gt_boxes"]))
        if not self.training or self.predict_boxes_when_training:
            batch_dict["batch_cls_preds"] = logits
            batch_dict["batch_box_preds"] = self.generate_predicted_boxes(points[:, 1:4], logits, box_preds)
            batch_dict["batch_index"] = points[:, 0]
            batch_dict["cls_preds_normalized"] = False
        return batch_dict
