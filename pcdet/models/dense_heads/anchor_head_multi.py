"""The anchor head with a branch for each group of classes, for classes of different size (CBGS, Zhu et al., 2019)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Annotated, Any

import torch
import torch.nn as nn
from torch import Tensor

from pcdet.models.backbones_2d.base_bev_backbone import BN_EPS, BN_MOMENTUM
from pcdet.models.channel_flow import ChannelFlow, Parts
from pcdet.models.dense_heads.anchor_head_branch import (
    BranchPredictions,
    RPNHeadConfig,
    SeparateRegConfig,
    SingleHead,
)
from pcdet.models.dense_heads.anchor_head_template import (
    AnchorHeadTemplate,
    AnchorLossConfig,
    LossWeights,
)
from pcdet.models.dense_heads.target_assigner.anchor_generator import AnchorConfig, generate_anchors
from pcdet.models.feature_spec import Entries, FeatureSpec
from pcdet.registry import DENSE_HEADS, TARGET_ASSIGNERS, Count
from pcdet.utils import loss_utils


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiHeadLossWeights(LossWeights):
    """Weights of the parts of the loss; those of positive and background anchors weigh the class loss."""

    pos_cls_weight: float = 1.0
    neg_cls_weight: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiHeadLossConfig(AnchorLossConfig):
    """``LOSS_CONFIG`` of a head with branches."""

    loss_weights: MultiHeadLossWeights


@DENSE_HEADS.register
class AnchorHeadMulti(AnchorHeadTemplate):
    """Anchors whose classes, boxes and directions are predicted by a branch for each group of classes.

    The anchors are ordered by branch, class, size, rotation, y, x. Branches may have maps of different strides.

    Args:
        use_multihead: must be True, as it is in OpenPCDet's files.
        separate_multihead: each branch tells its own classes apart; otherwise every branch tells all.
        shared_conv_num_filter: channels of a convolution before the branches; None for none.
        rpn_head_cfgs: the branches; each class stands in one.
        separate_reg_config: separate convolutions in the branches.
        input_channels: channels of ``spatial_features_2d``.
        anchor_generator_config, target_assigner_config, loss_config, class_names, grid_size, **common: see
            ``AnchorHeadTemplate``.

    Attributes:
        branch_maps: (ny, nx) of the map on which each branch's anchors stand.
        class_ids: numbers, from 1, of the classes that each branch tells apart, in the order of its scores.
    """

    PREDICTS = "branches"
    CHANNEL_KEYS = (
        "SHARED_CONV_NUM_FILTER",
        "RPN_HEAD_CFGS.NUM_FILTERS",
        "RPN_HEAD_CFGS.NUM_UPSAMPLE_FILTERS",
        "SEPARATE_REG_CONFIG.NUM_MIDDLE_FILTER",
    )

    def __init__(
        self,
        *,
        use_multihead: bool = True,
        separate_multihead: bool = False,
        shared_conv_num_filter: Count | None = None,
        rpn_head_cfgs: list[RPNHeadConfig],
        separate_reg_config: SeparateRegConfig | None = None,
        anchor_generator_config: list[AnchorConfig],
        target_assigner_config: Annotated[dict, TARGET_ASSIGNERS],
        loss_config: MultiHeadLossConfig,
        input_channels: int,
        class_names: Sequence[str],
        grid_size: Sequence[int],
        **common: Any,
    ):
        if not use_multihead:
            raise ValueError("USE_MULTIHEAD must be True for AnchorHeadMulti; AnchorHeadSingle has no branches")
        groups = _anchors_of_branches(rpn_head_cfgs, anchor_generator_config, class_names)
        anchors = [config for group in groups for config in group]
        super().__init__(
            anchor_generator_config=anchors,
            target_assigner_config=target_assigner_config,
            loss_config=loss_config,
            class_names=class_names,
            grid_size=grid_size,
            **common,
        )
        self.separate_multihead = separate_multihead
        self._class_assigners = [self._build_assigner(target_assigner_config, [config]) for config in anchors]
        self.shared_conv = None
        if shared_conv_num_filter is not None:
            self.shared_conv = _shared_convolution(input_channels, shared_conv_num_filter)
        self.rpn_heads = nn.ModuleList(
            self._branch(config, group, shared_conv_num_filter or input_channels, separate_reg_config)
            for config, group in zip(rpn_head_cfgs, groups, strict=True)
        )
        self.branch_maps = [self._map_of(group, grid_size) for group in groups]
        every = list(range(1, self.num_class + 1))
        own = separate_multihead and self.num_class > 1
        self.class_ids = [self._ids(config) if own else every for config in rpn_head_cfgs]
        self.score_taps = self.box_taps = tuple(f"rpn_heads.{i}" for i in range(len(self.rpn_heads)))

    def _branch(
        self, config: RPNHeadConfig, anchors: list[AnchorConfig], channels: int, separate: SeparateRegConfig | None
    ) -> SingleHead:
        own_classes = self.separate_multihead and self.num_class > 1
        return SingleHead(
            config,
            input_channels=channels,
            num_class=len(config.head_cls_name) if own_classes else self.num_class,
            num_anchors=sum(entry.num_per_location for entry in anchors),
            code_size=self.box_coder.code_size,
            num_dir_bins=self.directions.num_bins if self.directions else 0,
            label_indices=self._ids(config),
            separate_reg=separate,
        )

    def _ids(self, config: RPNHeadConfig) -> list[int]:
        """Numbers of a branch's classes."""
        return [self.class_names.index(name) + 1 for name in config.head_cls_name]

    @classmethod
    def layers(cls, config: SimpleNamespace, inputs: Entries) -> dict[str, FeatureSpec]:
        """The shared map, and the branches, whose stages and predictions are maps."""
        given = replace(inputs[cls.READS], kind="map", joined=())
        shared = config.shared_conv_num_filter
        found = {} if shared is None else {"shared_conv": replace(given, channels=shared)}
        return found | {f"rpn_heads.{i}": given for i in range(len(config.rpn_head_cfgs))}

    @classmethod
    def problems(cls, config: SimpleNamespace, inputs: Entries) -> Iterator[str]:
        """Each class stands in one branch; and as of any anchor head."""
        named = [name for branch in config.rpn_head_cfgs for name in branch.head_cls_name]
        if config.class_names is not None and sorted(named) != sorted(config.class_names):
            yield (
                f"RPN_HEAD_CFGS: each of CLASS_NAMES {list(config.class_names)} must stand in one HEAD_CLS_NAME, in "
                f"any order, got {named}"
            )
        yield from super().problems(config, inputs)

    @classmethod
    def _stride_problems(cls, config: SimpleNamespace, inputs: Entries) -> Iterator[str]:
        """Anchors of a branch with stages of its own stand on another map."""
        own = [b for b in config.rpn_head_cfgs if b.layer_strides or b.upsample_strides]
        yield from super()._stride_problems(config, inputs, [name for branch in own for name in branch.head_cls_name])

    def channel_flow(self, flow: ChannelFlow, path: str, entries: Mapping[str, Parts]) -> dict[str, Parts]:
        """The shared convolution, where there is one, and every branch on what it leaves."""
        parts = entries[self.READS]
        if self.shared_conv is not None:
            parts = flow.sequence(f"{path}.shared_conv", self.shared_conv, parts)
        for i, branch in enumerate(self.rpn_heads):
            branch.flow_to_predictions(flow, f"{path}.rpn_heads.{i}", parts)
        return {}

    def _map_of(self, group: Sequence[AnchorConfig], grid_size: Sequence[int]) -> tuple[int, int]:
        """(ny, nx) of the map on which a branch's anchors stand."""
        strides = {config.feature_map_stride for config in group}
        if len(strides) != 1:
            raise ValueError(
                f"FEATURE_MAP_STRIDE must be the same for the classes of a branch, got {sorted(strides)} for "
                f"{[config.class_name for config in group]}"
            )
        (stride,) = strides
        return int(grid_size[1]) // stride, int(grid_size[0]) // stride

    def _build_anchors(
        self, configs: Sequence[AnchorConfig], grid_size: Sequence[int], range_: Sequence[float]
    ) -> None:
        columns = self.box_coder.box_size
        anchors = [
            generate_anchors(c, grid_size=grid_size, point_cloud_range=range_, box_size=columns)[0] for c in configs
        ]
        self._class_shapes = [tuple(a.shape[:4]) for a in anchors]  # (ny, nx, sizes, rotations)
        table = torch.cat([a.permute(2, 3, 0, 1, 4).flatten(0, 3) for a in anchors])
        self.register_buffer("anchor_table", table, persistent=False)

    @property
    def anchors(self) -> list[Tensor]:
        """Anchors of each class, (1, ny, nx, sizes, rotations, 7 + extra), as views of the table."""
        parts = self.anchor_table.split([math.prod(shape) for shape in self._class_shapes])
        return [
            part.view(sizes, rotations, ny, nx, -1).permute(2, 3, 0, 1, 4)[None]
            for part, (ny, nx, sizes, rotations) in zip(parts, self._class_shapes, strict=True)
        ]

    @property
    def assigned_anchors(self) -> list[tuple[Any, Tensor]]:
        """See the base class: those of each class."""
        return [(assigner, a[0].flatten(2, 3)) for assigner, a in zip(self._class_assigners, self.anchors, strict=True)]

    def forward(self, batch_dict: dict) -> dict:
        """Predicts for every anchor.

        Reads: ``spatial_features_2d`` (B, C, H, W); ``gt_boxes`` (B, M, 8 + C) in training; ``decode_boxes``, see
        ``finish`` of the base class.
        Writes, in evaluation or if ``predict_boxes_when_training``: ``batch_cls_preds`` (B, N, num_class) logits, or
        with separate branches a list of (B, N_h, classes of the branch) and ``multihead_label_mapping``, a list of
        their class ids; ``batch_box_preds`` (B, N, 7 + C); ``cls_preds_normalized`` False.
        """
        features = batch_dict["spatial_features_2d"]
        if self.shared_conv is not None:
            features = self.shared_conv(features)
        branches = []
        for head, anchors_map in zip(self.rpn_heads, self.branch_maps, strict=True):
            predictions, own_map = head(features)
            if own_map != anchors_map:
                raise ValueError(
                    f"the map of a branch has {own_map} cells (y, x) but its anchors {anchors_map}; FEATURE_MAP_STRIDE "
                    "must equal the total stride of the backbones and of the branch"
                )
            branches.append(predictions)
        self.forward_ret_dict = {key: self._joined(branches, key) for key in BranchPredictions._fields}
        return self.finish(batch_dict)

    def _joined(self, branches: list[BranchPredictions], key: str) -> list[Tensor] | Tensor | None:
        parts = [getattr(branch, key) for branch in branches]
        if parts[0] is None:
            return None
        return parts if self.separate_multihead else torch.cat(parts, dim=1)

    def finish(self, batch_dict: dict) -> dict:
        """Adds targets in training, and boxes where they are wanted; see ``forward``."""
        predictions = self.forward_ret_dict
        if self.training:
            predictions.update(self.assign_targets(batch_dict["gt_boxes"]))
        if not self.training or self.predict_boxes_when_training:
            batch_dict["cls_preds_normalized"] = False
            if self.separate_multihead:
                batch_dict["batch_cls_preds"] = [loss_utils.at_least_float32(c) for c in predictions["cls_preds"]]
                batch_dict["multihead_label_mapping"] = [head.head_label_indices for head in self.rpn_heads]
            else:
                batch_dict["batch_cls_preds"] = loss_utils.at_least_float32(predictions["cls_preds"])
            if batch_dict.get("decode_boxes", True):
                batch_dict["batch_box_preds"] = self._boxes(self._all("box_preds"), self._all("dir_cls_preds"))
        return batch_dict

    def assign_targets(self, gt_boxes: Tensor) -> dict[str, Tensor]:
        """``box_cls_labels``, ``box_reg_targets`` and ``reg_weights`` of every anchor; see ``AnchorTargets``."""
        parts: dict[str, list[Tensor]] = {}
        for assigner, grid in self.assigned_anchors:
            for key, value in assigner.assign_targets(grid, gt_boxes)._asdict().items():
                by_anchor = value.unflatten(1, grid.shape[:3]).movedim(3, 1).flatten(1, 3)
                parts.setdefault(key, []).append(by_anchor)
        return {key: torch.cat(values, dim=1) for key, values in parts.items()}

    def decode_rows(self, frame: int, rows: Tensor) -> Tensor:
        """See the base class."""
        codes, directions = (self._all(key, frame) for key in ("box_preds", "dir_cls_preds"))
        return self._decode(codes[rows], None if directions is None else directions[rows], self.anchor_table[rows])

    def predictions_at(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """See the base class."""
        taken = [self._all(key) for key in ("box_preds", "dir_cls_preds")]
        return tuple(
            None if t is None else loss_utils.at_least_float32(t.flatten(0, 1).index_select(0, rows)) for t in taken
        )

    def _all(self, key: str, frame: int | None = None) -> Tensor | None:
        """(B, N, columns) predictions of all branches, or (N, columns) of one frame; None where there are none."""
        value = self.forward_ret_dict[key]
        if isinstance(value, list):
            return torch.cat(value, dim=1) if frame is None else torch.cat([v[frame] for v in value])
        return value if value is None or frame is None else value[frame]

    def _box_loss(self, codes: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        if self.directions is None:  # the sine of a difference would leave it open which way a box points
            return self.reg_loss_func(codes, targets, weights).sum()
        return super()._box_loss(codes, targets, weights)

    def _cls_loss(self, labels: Tensor, frame_weights: Tensor, rows: Tensor) -> Tensor:
        logits = self.forward_ret_dict["cls_preds"]
        if not self.separate_multihead:
            return self._weighed_focal(logits, labels, frame_weights)
        total, start = frame_weights.new_zeros(()), 0
        for head, part in zip(self.rpn_heads, logits, strict=True):
            own = labels[:, start : start + part.shape[1]]
            start += part.shape[1]
            if self.num_class > 1:
                # ids as the branch counts its classes; -1 and 0 stay
                table = torch.arange(-1, self.num_class + 1, device=labels.device)
                ids = torch.arange(1, len(head.head_label_indices) + 1, device=labels.device)
                table[head.head_label_indices + 1] = ids
                own = table[own.long() + 1]
            total = total + self._weighed_focal(part, own, frame_weights)
        return total

    def _weighed_focal(self, logits: Tensor, labels: Tensor, frame_weights: Tensor) -> Tensor:
        weights = self.loss_weights
        loss = weights.neg_cls_weight * loss_utils.sigmoid_focal_sum(logits, labels, frame_weights)
        surplus = weights.pos_cls_weight - weights.neg_cls_weight
        frame, row = (labels > 0).nonzero().unbind(1)
        if surplus and len(frame):
            logits, labels = logits[frame, row][:, None], labels[frame, row][:, None]
            loss = loss + surplus * loss_utils.sigmoid_focal_sum(logits, labels, frame_weights[frame])
        return loss


def _shared_convolution(input_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(input_channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels, eps=BN_EPS, momentum=BN_MOMENTUM),
        nn.ReLU(inplace=True),
    )


def _anchors_of_branches(
    branches: Sequence[RPNHeadConfig], anchors: Sequence[AnchorConfig], class_names: Sequence[str]
) -> list[list[AnchorConfig]]:
    """The anchors of each branch's classes, after a check that every class stands in one branch."""
    named = [name for branch in branches for name in branch.head_cls_name]
    if sorted(named) != sorted(class_names):
        raise ValueError(
            f"HEAD_CLS_NAME of RPN_HEAD_CFGS must name each of CLASS_NAMES {list(class_names)} once, got {named}"
        )
    missing = [name for name in named if all(config.class_name != name for config in anchors)]
    if missing:
        raise ValueError(f"ANCHOR_GENERATOR_CONFIG has no anchors for {missing} of RPN_HEAD_CFGS")
    return [
        [config for name in branch.head_cls_name for config in anchors if config.class_name == name]
        for branch in branches
    ]
