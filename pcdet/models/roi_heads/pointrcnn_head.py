"""PointRCNN's second stage: the points in each proposal, seen from it, refine its box (Shi et al., CVPR 2019)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
import torch.nn as nn
from torch import Tensor

from pcdet.models.channel_flow import ChannelFlow, Parts, given, join
from pcdet.models.model_utils.set_abstraction import abstraction_flow
from pcdet.models.roi_heads.roi_head_template import ProposalNMSConfig, RoIHeadTemplate, RoILossConfig
from pcdet.models.roi_heads.target_assigner.proposal_target_layer import ProposalTargetConfig
from pcdet.ops.pointnet2.pointnet2_batch.pointnet2_modules import PointnetSAModule
from pcdet.ops.roipoint_pool3d.roipoint_pool3d_utils import RoIPointPool3d
from pcdet.registry import ROI_HEADS
from pcdet.utils.common_utils import rotate_points_along_z
from pcdet.utils.loss_utils import at_least_float32

OWN_CHANNELS = 5  # of a pooled point before the first stage's features: x, y, z, score, depth
ROIS_AT_ONCE = 8  # a thread, on a CPU in evaluation: they stay in its cache, 2.7 times faster than 100 at once
DEPTH_OFFSET = 0.5  # brings a depth over DEPTH_NORMALIZER to about [-0.5, 0.5]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoIPointPoolConfig:
    """``ROI_POINT_POOL``.

    Attributes:
        pool_extra_width: metres added to a proposal's length, width and height before pooling.
        num_sampled_points: points a proposal.
        depth_normalizer: metres.
    """

    pool_extra_width: list[float]
    num_sampled_points: int
    depth_normalizer: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoISetAbstractionConfig:
    """``SA_CONFIG`` of a second stage: an entry for each level; ``npoints`` -1 is one neighbourhood of all points."""

    npoints: list[int]
    radius: list[float]
    nsample: list[int]
    mlps: list[list[int]]

    def __post_init__(self):
        counts = {key.upper(): len(getattr(self, key)) for key in ("npoints", "radius", "nsample", "mlps")}
        if len(set(counts.values())) > 1:
            raise ValueError(f"SA_CONFIG needs an entry for each level, got {counts}")
        if self.npoints[-1:] != [-1]:
            raise ValueError(f"SA_CONFIG.NPOINTS must end with -1 (one neighbourhood of all), got {self.npoints}")


@ROI_HEADS.register
class PointRCNNHead(RoIHeadTemplate):
    """PointNet++ on the points of each proposal, in the proposal's frame.

    The pooled features carry no gradient: this stage's loss does not reach the backbone, as in OpenPCDet.

    Args:
        class_agnostic: one score for all classes; the detector then gives ``num_class`` 1.
        roi_point_pool: which points a proposal gets.
        xyz_up_layer: channels that lift the points' own columns to the features' width.
        cls_fc, reg_fc: channels of the hidden layers.
        dp_ratio: dropout behind the first of them; negative for no such layer.
        use_bn: batch norms in ``xyz_up_layer`` and the merging layer (set abstraction always has them).
        sa_config: the levels of set abstraction.
        nms_config, target_config, loss_config: see their classes.
        input_channels: channels of ``point_features``.
        num_class: scores of a proposal; must be 1.
    """

    READS = "point_features"
    CHANNEL_KEYS = ("XYZ_UP_LAYER", "CLS_FC", "REG_FC", "SA_CONFIG.MLPS")

    def __init__(
        self,
        *,
        class_agnostic: bool = True,
        roi_point_pool: RoIPointPoolConfig,
        xyz_up_layer: list[int],
        cls_fc: list[int],
        reg_fc: list[int],
        dp_ratio: float = 0.0,
        use_bn: bool = False,
        sa_config: RoISetAbstractionConfig,
        nms_config: ProposalNMSConfig,
        target_config: ProposalTargetConfig,
        loss_config: RoILossConfig,
        input_channels: int,
        num_class: int,
    ):
        super().__init__(
            nms_config=nms_config, target_config=target_config, loss_config=loss_config, num_class=num_class
        )
        self.depth_normalizer = roi_point_pool.depth_normalizer
        self.roipoint_pool3d_layer = RoIPointPool3d(roi_point_pool.num_sampled_points, roi_point_pool.pool_extra_width)

        width = xyz_up_layer[-1]
        self.SA_modules = nn.ModuleList()
        given = width
        levels = zip(sa_config.npoints, sa_config.radius, sa_config.nsample, sa_config.mlps, strict=True)
        for npoint, radius, nsample, mlp in levels:
            npoint = None if npoint == -1 else npoint
            module = PointnetSAModule(npoint=npoint, radius=radius, nsample=nsample, mlp=[given, *mlp])
            self.SA_modules.append(module)
            given = mlp[-1]
        self.xyz_up_layer = _pointwise([OWN_CHANNELS, *xyz_up_layer], use_bn)
        self.merge_down_layer = _pointwise([width + input_channels, width], use_bn)
        self.cls_layers = _head(given, cls_fc, num_class, dp_ratio)
        self.reg_layers = _head(given, reg_fc, self.box_coder.code_size, dp_ratio)
        self.init_weights()

    def channel_flow(self, flow: ChannelFlow, path: str, entries: Mapping[str, Parts]) -> dict[str, Parts]:
        """The points' own columns, lifted, beside the first stage's features; set abstraction; two heads."""
        lifted = flow.sequence(f"{path}.xyz_up_layer", self.xyz_up_layer, given(OWN_CHANNELS))
        merged = join((lifted, entries[self.READS]))
        parts = flow.sequence(f"{path}.merge_down_layer", self.merge_down_layer, merged)
        for i, module in enumerate(self.SA_modules):
            parts = abstraction_flow(flow, f"{path}.SA_modules.{i}", module, parts)
        for name in ("cls_layers", "reg_layers"):
            flow.sequence(f"{path}.{name}", getattr(self, name), parts)
        return {}

    def init_weights(self) -> None:
        """Xavier's normal initialisation; boxes start equal to their proposals."""
        for module in self.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d)):
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.reg_layers[-1].weight, mean=0, std=0.001)

    def forward(self, batch_dict: dict) -> dict:
        """Refines the proposals.

        Reads: ``batch_size``; ``point_coords`` (B * N, 4), ``point_features`` (B * N, C), ``point_cls_scores``
        (B * N,); what ``proposal_layer`` reads; ``gt_boxes`` in training.
        Writes: ``rois``, ``roi_scores``, ``roi_labels`` (in training those sampled), ``has_class_labels``; in
        evaluation ``batch_cls_preds`` (B, R, 1) logits, ``batch_box_preds`` (B, R, 7) and
        ``cls_preds_normalized`` False.
        """
        batch_dict = self.proposal_layer(batch_dict)
        targets = {}
        if self.training:
            targets = self.assign_targets(batch_dict)
            batch_dict.update({key: targets[key] for key in ("rois", "roi_scores", "roi_labels")})
        shared = self._features(self.pool(batch_dict))
        rcnn_cls, rcnn_reg = self.cls_layers(shared).squeeze(-1), self.reg_layers(shared).squeeze(-1)
        self.forward_ret_dict = {}
        if self.training:
            self.forward_ret_dict = {**targets, "rcnn_cls": rcnn_cls, "rcnn_reg": rcnn_reg}
        else:
            logits, boxes = self.generate_predicted_boxes(batch_dict["rois"], rcnn_cls, rcnn_reg)
            batch_dict.update(batch_cls_preds=logits, batch_box_preds=boxes, cls_preds_normalized=False)
        return batch_dict

    @torch.no_grad()
    def pool(self, batch_dict: dict) -> Tensor:
        """(B * R, K, 5 + C) points of each proposal, in its frame: x, y, z, score, depth, features; zeros for none."""
        rois, frames = batch_dict["rois"], int(batch_dict["batch_size"])
        points = batch_dict["point_coords"][:, 1:4]
        depth = points.norm(dim=1, keepdim=True) / self.depth_normalizer - DEPTH_OFFSET
        features = at_least_float32(batch_dict["point_features"])
        features = torch.cat(
            [batch_dict["point_cls_scores"][:, None].to(features), depth.to(features), features], dim=1
        )
        pooled, empty = self.roipoint_pool3d_layer(
            points.to(features).reshape(frames, -1, 3), features.view(frames, -1, features.shape[1]), rois.to(features)
        )
        pooled = pooled.flatten(0, 1)
        offset = pooled[..., :3] - rois[..., :3].reshape(-1, 1, 3)
        pooled[..., :3] = rotate_points_along_z(offset, -rois[..., 6].reshape(-1))
        return pooled.masked_fill_((empty > 0).view(-1, 1, 1), 0)

    def _features(self, pooled: Tensor) -> Tensor:
        """(N, C', 1) features of N proposals from their points (N, K, 5 + C).

        In evaluation on a CPU the layers, and hooks on them, see a few proposals at a time.
        """
        if self.training or pooled.device.type != "cpu":  # batch statistics need all proposals at once
            return self._describe(pooled)
        parts = pooled.split(ROIS_AT_ONCE * torch.get_num_threads())
        return torch.cat([self._describe(part) for part in parts])

    def _describe(self, pooled: Tensor) -> Tensor:
        columns = pooled.mT.unsqueeze(-1)
        lifted = self.xyz_up_layer(columns[:, :OWN_CHANNELS])
        merged = self.merge_down_layer(torch.cat([lifted, columns[:, OWN_CHANNELS:].to(lifted.dtype)], dim=1))
        xyz, features = pooled[..., :3].contiguous(), merged.squeeze(-1)
        for module in self.SA_modules:
            xyz, features = module(xyz, features)
        return features


def _pointwise(channels: list[int], use_bn: bool) -> nn.Sequential:
    """1x1 convolutions with ReLU and, if asked for, batch normalisation in place of the bias."""
    layers: list[nn.Module] = []
    for in_channels, out_channels in zip(channels, channels[1:], strict=False):
        layers.append(nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=not use_bn))
        layers += [nn.BatchNorm2d(out_channels), nn.ReLU()] if use_bn else [nn.ReLU()]
    return nn.Sequential(*layers)


def _head(given: int, channels: list[int], outputs: int, dp_ratio: float) -> nn.Sequential:
    """Fully connected layers with batch normalisation and ReLU, dropout behind the first, and a last, plain one."""
    layers: list[nn.Module] = []
    for i, width in enumerate(channels):
        layers += [nn.Conv1d(given, width, kernel_size=1, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        if i == 0 and dp_ratio >= 0:
            layers.append(nn.Dropout(dp_ratio))
        given = width
    return nn.Sequential(*layers, nn.Conv1d(given, outputs, kernel_size=1))
