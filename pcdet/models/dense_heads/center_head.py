"""The head of CenterPoint: objects as peaks of heat maps, and boxes told at their cells (Yin et al., CVPR 2021)."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import torch
import torch.nn as nn
from torch import Tensor

from pcdet.models.channel_flow import ChannelFlow, Parts
from pcdet.models.dense_heads.center_boxes import (
    CenterNMSConfig,
    CenterPostProcessingConfig,
    find_peaks,
    suppressed_boxes,
    values_at,
)
from pcdet.models.dense_heads.center_branch import PredictionConfig, SeparateHead, SeparateHeadConfig
from pcdet.models.dense_heads.target_assigner.center_assigner import CenterMap, CenterTargetAssigner, CenterTargetConfig
from pcdet.models.feature_spec import Entries, FeatureSpec
from pcdet.models.model_utils.head_template import CodeWeights, HeadTemplate, check_code_weights, total_and_scalars
from pcdet.models.model_utils.precision import full_precision
from pcdet.registry import DENSE_HEADS, Count, Positive
from pcdet.utils import loss_utils

STRIDE_SLACK = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class CenterLossWeights(CodeWeights):
    """Weights of the parts of the loss; ``code_weights``: those of [x, y, z, dx, dy, dz, cos, sin, velocities]."""

    cls_weight: float = 1.0
    loc_weight: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CenterLossConfig:
    """``LOSS_CONFIG`` of a centre head."""

    loss_weights: CenterLossWeights


@DENSE_HEADS.register
class CenterHead(HeadTemplate):
    """A branch for each group of classes: heat maps of its classes, and a box at every cell.

    Args:
        class_agnostic: must be False, as it is in OpenPCDet's files.
        class_names_each_head: the groups; each class stands in one. Names that ``class_names`` lacks are left out with
            a warning, as are groups of which none is left: fewer classes are trained by shortening CLASS_NAMES alone.
        shared_conv_channel: channels of the convolution before the branches, and within them.
        use_bias_before_norm: convolutions in front of a norm have a bias, which changes nothing but a checkpoint.
        num_hm_conv: convolutions of the heat maps, with that which predicts.
        bn_eps, bn_mom: of the norms.
        separate_head_cfg, target_assigner_config, loss_config, post_processing: see their classes.
        iou_reg_loss: must be False; the loss of overlaps is not covered.
        input_channels: channels of ``spatial_features_2d``.
        class_names, grid_size, voxel_size, point_cloud_range: what the data set says.
        predict_boxes_when_training: must be False; a second stage on this head is not covered.

    Attributes:
        forward_ret_dict: of the last forward ``pred_dicts``, for each branch by name (B, columns, H, W), ``hm`` logits;
            after one in training ``target_dicts``, see ``CenterTargetAssigner.assign_targets``.
        class_ids: for each branch the ids, counted from 1, of its heat maps.
        place: where the cells of the maps lie.
    """

    READS = "spatial_features_2d"
    PREDICTS = "centers"
    CHANNEL_KEYS = ("SHARED_CONV_CHANNEL",)

    def __init__(
        self,
        *,
        class_agnostic: bool = False,
        class_names_each_head: list[list[str]],
        shared_conv_channel: Count,
        use_bias_before_norm: bool = False,
        num_hm_conv: Count,
        bn_eps: Positive = 1e-5,
        bn_mom: Positive = 0.1,
        separate_head_cfg: SeparateHeadConfig,
        target_assigner_config: CenterTargetConfig,
        loss_config: CenterLossConfig,
        post_processing: CenterPostProcessingConfig,
        iou_reg_loss: bool = False,
        input_channels: int,
        class_names: Sequence[str],
        grid_size: Sequence[int],
        voxel_size: Sequence[float],
        point_cloud_range: Sequence[float],
        predict_boxes_when_training: bool = False,
    ):
        super().__init__()
        refused = {"CLASS_AGNOSTIC": class_agnostic, "IOU_REG_LOSS": iou_reg_loss}
        for key in (key for key, value in refused.items() if value):
            raise ValueError(f"{key} must be False: CenterHead does not cover it")
        if predict_boxes_when_training:
            raise ValueError("CenterHead makes no proposals for a second stage; remove MODEL.ROI_HEAD")
        groups = _known_groups(class_names_each_head, class_names)
        self.class_ids = _class_ids(groups, class_names)
        _tell_of_dropped(class_names_each_head, groups)
        self.code_names, num_codes = separate_head_cfg.head_order, separate_head_cfg.num_codes
        check_code_weights(loss_config.loss_weights.code_weights, num_codes)
        for sentence in _list_problems(self.class_ids, post_processing.nms_config):
            raise ValueError(sentence)
        self.loss_weights, self.post_processing_cfg = loss_config.loss_weights, post_processing
        self.reg_loss_func = loss_utils.WeightedL1Loss(code_weights=self.loss_weights.code_weights)
        self.place = CenterMap.of(target_assigner_config.feature_map_stride, grid_size, voxel_size, point_cloud_range)
        self.target_assigner = CenterTargetAssigner(
            target_assigner_config, place=self.place, groups=self.class_ids, num_codes=num_codes
        )
        norm = partial(nn.BatchNorm2d, eps=bn_eps, momentum=bn_mom)
        self.shared_conv = nn.Sequential(
            nn.Conv2d(input_channels, shared_conv_channel, 3, padding=1, bias=use_bias_before_norm),
            norm(shared_conv_channel),
            nn.ReLU(),
        )
        self.heads_list = nn.ModuleList(
            SeparateHead(
                shared_conv_channel,
                _predictions(separate_head_cfg, num_hm_conv, len(ids)),
                use_bias=use_bias_before_norm,
                norm=norm,
            )
            for ids in self.class_ids
        )
        self.score_taps = self.box_taps = tuple(f"heads_list.{i}" for i in range(len(self.heads_list)))
        for i, ids in enumerate(self.class_ids):
            self.register_buffer(f"_ids_{i}", torch.tensor(ids), persistent=False)

    @classmethod
    def layers(cls, config: SimpleNamespace, inputs: Entries) -> dict[str, FeatureSpec]:
        """The shared map, and in every branch the maps before and of each kind of prediction."""
        shared = replace(inputs[cls.READS], kind="map", joined=(), channels=config.shared_conv_channel)
        found = {"shared_conv": shared}
        for i, names in enumerate(_known_groups(config.class_names_each_head, config.class_names)):
            found[f"heads_list.{i}"] = shared
            predictions = _predictions(config.separate_head_cfg, config.num_hm_conv, len(names))
            for name, entry in predictions.items():
                path, last = f"heads_list.{i}.{name}", entry.num_conv - 1
                made = replace(shared, channels=entry.out_channels)
                found |= {path: made, **{f"{path}.{k}": shared for k in range(last)}, f"{path}.{last}": made}
        return found

    @classmethod
    def problems(cls, config: SimpleNamespace, inputs: Entries) -> Iterator[str]:
        """Each class stands in one branch; lists have an item for each of what they weigh; the map has its stride."""
        groups = _known_groups(config.class_names_each_head, config.class_names)
        if config.class_names is not None and _misplaced(groups, config.class_names):
            yield _misplaced(groups, config.class_names)
        codes, weights = config.separate_head_cfg.num_codes, config.loss_config.loss_weights.code_weights
        if len(weights) != codes:
            yield (
                f"LOSS_CONFIG.LOSS_WEIGHTS.code_weights: a box code has {codes} columns [x, y, z, dx, dy, dz, cos, "
                f"sin, velocities], got {len(weights)} weights"
            )
        yield from _list_problems(groups, config.post_processing.nms_config)
        stride, got = inputs[cls.READS].stride[1], config.target_assigner_config.feature_map_stride
        if abs(got - stride) > STRIDE_SLACK:
            yield (
                f"TARGET_ASSIGNER_CONFIG.FEATURE_MAP_STRIDE: the map that the head reads has stride {stride:g} (from "
                f"MODEL.BACKBONE_2D), got {got}"
            )

    def channel_flow(self, flow: ChannelFlow, path: str, entries: Mapping[str, Parts]) -> dict[str, Parts]:
        """The shared convolution, and every branch on what it leaves."""
        parts = flow.sequence(f"{path}.shared_conv", self.shared_conv, entries[self.READS])
        for i, branch in enumerate(self.heads_list):
            flow.branches(f"{path}.heads_list.{i}", branch, parts)
        return {}

    def forward(self, batch_dict: dict) -> dict:
        """Predicts for every cell.

        Reads: ``spatial_features_2d`` (B, C, H, W); ``gt_boxes`` (B, M, 8 + C) in training; ``decode_boxes``: False
        leaves the boxes to ``final_boxes``.
        Writes, in evaluation: ``final_box_dicts``, see ``final_boxes``.
        """
        features = batch_dict["spatial_features_2d"]
        if tuple(features.shape[2:]) != self.place.shape:
            raise ValueError(
                f"the feature map has {tuple(features.shape[2:])} cells (y, x) but the head {self.place.shape}; "
                "FEATURE_MAP_STRIDE must equal the backbones' total stride"
            )
        shared = self.shared_conv(features)
        self.forward_ret_dict = {"pred_dicts": [head(shared) for head in self.heads_list]}
        if self.training:
            self.forward_ret_dict["target_dicts"] = self.assign_targets(batch_dict["gt_boxes"])
        elif batch_dict.get("decode_boxes", True):
            batch_dict["final_box_dicts"] = self.final_boxes()
        return batch_dict

    def assign_targets(self, gt_boxes: Tensor) -> dict[str, list[Tensor]]:
        """Targets of every branch; see ``CenterTargetAssigner.assign_targets``."""
        return self.target_assigner.assign_targets(gt_boxes)

    @torch.no_grad()
    def final_boxes(self) -> list[dict[str, Tensor]]:
        """Final boxes of each frame of the last forward; see ``suppressed_boxes``."""
        config = self.post_processing_cfg
        with full_precision(self._ids_0.device):
            peaks = [
                find_peaks(out, self.code_names, getattr(self, f"_ids_{i}"), self.place, config.max_obj_per_sample)
                for i, out in enumerate(self.forward_ret_dict["pred_dicts"])
            ]
            return suppressed_boxes(peaks, self.class_ids, config)

    def get_loss(self, tb_dict: dict | None = None) -> tuple[Tensor, dict]:
        """Loss of the last forward, and as numbers ``loss_rpn``, ``{hm,loc}_loss_head_<i>`` and ``rpn_loss``."""
        with full_precision(self._ids_0.device):
            parts = self._losses()
        return total_and_scalars(parts, tb_dict)

    def _losses(self) -> dict[str, Tensor]:
        predictions, targets = self.forward_ret_dict["pred_dicts"], self.forward_ret_dict["target_dicts"]
        losses = {}
        for i, (out, heatmap) in enumerate(zip(predictions, targets["heatmaps"], strict=True)):
            focal, centres = loss_utils.center_focal_losses(out["hm"], heatmap)
            losses[f"hm_loss_head_{i}"] = (
                focal.sum() / centres.sum().clamp(min=1).to(focal.dtype) * self.loss_weights.cls_weight
            )
            codes = values_at([out[name] for name in self.code_names], targets["inds"][i])
            mask = targets["masks"][i].to(codes.dtype)
            share = mask / mask.sum().clamp(min=1)
            loc = self.reg_loss_func(codes, targets["target_boxes"][i].to(codes.dtype), share).sum()
            losses[f"loc_loss_head_{i}"] = loc * self.loss_weights.loc_weight
        return losses


def _predictions(config: SeparateHeadConfig, num_hm_conv: int, num_classes: int) -> dict[str, PredictionConfig]:
    """What a branch predicts, in the order of its weights in a checkpoint."""
    return {**config.head_dict, "hm": PredictionConfig(out_channels=num_classes, num_conv=num_hm_conv)}


def _known_groups(groups: Sequence[Sequence[str]], class_names: Sequence[str] | None) -> list[list[str]]:
    """The groups with the names that are classes; what has lost all its names is left out, what had none stays."""
    if class_names is None:
        return [list(group) for group in groups]
    known = [[name for name in group if name in class_names] for group in groups]
    return [left for left, group in zip(known, groups, strict=True) if left or not group]


def _tell_of_dropped(groups: Sequence[Sequence[str]], kept: Sequence[Sequence[str]]) -> None:
    """A warning with the names that were left out, if any were."""
    names = {name for group in kept for name in group}
    if dropped := [name for group in groups for name in group if name not in names]:
        logging.getLogger("pcdet").warning(
            f"MODEL.DENSE_HEAD.CLASS_NAMES_EACH_HEAD: left out {', '.join(dropped)}, which CLASS_NAMES lacks; "
            f"{len(kept)} of {len(groups)} branches are left"
        )


def _misplaced(groups: Sequence[Sequence[str]], class_names: Sequence[str]) -> str | None:
    """A sentence unless each class stands in one group."""
    named = [name for group in groups for name in group]
    if sorted(named) == sorted(class_names) and all(groups):
        return None
    return (
        f"CLASS_NAMES_EACH_HEAD: each of CLASS_NAMES {list(class_names)} must stand in one group, and no group be "
        f"empty, got {[list(group) for group in groups]}"
    )


def _class_ids(groups: Sequence[Sequence[str]], class_names: Sequence[str]) -> list[list[int]]:
    names = list(class_names)
    if _misplaced(groups, names):
        raise ValueError(_misplaced(groups, names))
    return [[names.index(name) + 1 for name in group] for group in groups]


def _list_problems(groups: Sequence[Sequence], config: CenterNMSConfig) -> Iterator[str]:
    """Sentences on lists of NMS_CONFIG that have not an item for each class, or for each branch."""
    needed = {"branches": len(groups), "classes": sum(map(len, groups))}
    for key, (count, of) in config.counts().items():
        if count != needed[of]:
            yield f"POST_PROCESSING.NMS_CONFIG.{key}: there are {needed[of]} {of}, got {count} items"
