"""What all anchor heads share: anchors, targets, losses and the decoding of boxes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pcdet.models.dense_heads.target_assigner.anchor_generator import AnchorConfig, generate_anchors, map_size
from pcdet.models.feature_spec import Entries
from pcdet.models.model_utils.head_template import CodeWeights, HeadTemplate, check_code_weights, total_and_scalars
from pcdet.models.model_utils.precision import full_precision
from pcdet.registry import TARGET_ASSIGNERS, Count, arguments_of, build_from_cfg, find_class, nearest_name
from pcdet.utils import loss_utils
from pcdet.utils.common_utils import limit_period

STRIDE_SLACK = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossWeights(CodeWeights):
    """Weights of the parts of the loss."""

    cls_weight: float = 1.0
    loc_weight: float = 1.0
    dir_weight: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnchorLossConfig:
    """``LOSS_CONFIG`` of an anchor head."""

    loss_weights: LossWeights
    reg_loss_type: Literal["WeightedSmoothL1Loss", "WeightedL1Loss"] = "WeightedSmoothL1Loss"


@dataclasses.dataclass(frozen=True)
class DirectionBins:
    """How headings are cut into bins, from which the direction classifier chooses.

    Attributes:
        num_bins: bins in a full turn.
        offset: radians, where the first bin begins.
        limit_offset: where the decoded heading's range begins, as a fraction of a bin below zero.
    """

    num_bins: int
    offset: float
    limit_offset: float

    @property
    def period(self) -> float:
        """Width of a bin in radians."""
        return 2 * math.pi / self.num_bins

    def bin_of(self, heading: Tensor) -> Tensor:
        """Bin of each heading, int64."""
        turn = limit_period(heading - self.offset, 0, 2 * math.pi)
        return torch.floor(turn / self.period).long().clamp(0, self.num_bins - 1)

    def decode(self, heading: Tensor, bins: Tensor) -> Tensor:
        """Headings moved by whole bins into the bins given."""
        within = limit_period(heading - self.offset, self.limit_offset, self.period)
        return within + self.offset + self.period * bins.to(heading.dtype)


class AnchorHeadTemplate(HeadTemplate):
    """Anchors on a BEV map, their targets and losses, and boxes from their predictions.

    Subclasses make the predictions in ``forward``, put them into ``forward_ret_dict`` as ``cls_preds``
    (B, H, W, A * C), ``box_preds`` (B, H, W, A * D) and ``dir_cls_preds`` (B, H, W, A * bins) or None, and call
    ``finish``.

    Args:
        class_agnostic: one class for all; the detector then gives ``num_class`` 1.
        use_direction_classifier: tell the two directions of a box apart by a classifier. False means none (in OpenPCDet
            the key's mere presence means one).
        dir_offset, dir_limit_offset, num_dir_bins: see ``DirectionBins``.
        anchor_generator_config: anchors of each class.
        target_assigner_config: node of the target assigner, which names the box coder.
        loss_config: weights of the loss.
        num_class, class_names, grid_size, point_cloud_range: what the data set says.
        predict_boxes_when_training: decode boxes in training too, for a second stage.

    Attributes:
        anchor_table: (ny * nx * A, 7 + extra) buffer, absent from ``state_dict()``.
    """

    READS = "spatial_features_2d"
    BOXES_OVERLAP = True
    PREDICTS = "anchors"

    def __init__(
        self,
        *,
        class_agnostic: bool = False,
        use_direction_classifier: bool = False,
        dir_offset: float = 0.0,
        dir_limit_offset: float = 0.0,
        num_dir_bins: Count = 2,
        anchor_generator_config: list[AnchorConfig],
        target_assigner_config: Annotated[dict, TARGET_ASSIGNERS],
        loss_config: AnchorLossConfig,
        num_class: int,
        class_names: Sequence[str],
        grid_size: Sequence[int],
        point_cloud_range: Sequence[float],
        predict_boxes_when_training: bool = False,
    ):
        super().__init__()
        self.num_class = num_class
        self.class_names = list(class_names)
        bins = DirectionBins(num_dir_bins, dir_offset, dir_limit_offset)
        self.directions = bins if use_direction_classifier else None
        self.predict_boxes_when_training = predict_boxes_when_training
        self.target_assigner = self._build_assigner(target_assigner_config, anchor_generator_config)
        self.box_coder = self.target_assigner.box_coder
        self._build_anchors(anchor_generator_config, grid_size, point_cloud_range)
        check_code_weights(loss_config.loss_weights.code_weights, self.box_coder.code_size)
        self.loss_weights = loss_config.loss_weights
        weigh = getattr(loss_utils, loss_config.reg_loss_type)
        self.reg_loss_func = weigh(code_weights=self.loss_weights.code_weights)

    def _build_assigner(self, node: dict, anchors: Sequence[AnchorConfig]) -> Any:
        """The target assigner of these anchors."""
        return build_from_cfg(
            node,
            TARGET_ASSIGNERS,
            path="MODEL.DENSE_HEAD.TARGET_ASSIGNER_CONFIG",
            class_names=self.class_names,
            anchor_configs=anchors,
        )

    def _build_anchors(
        self, configs: Sequence[AnchorConfig], grid_size: Sequence[int], range_: Sequence[float]
    ) -> None:
        sizes = {map_size(config, grid_size) for config in configs}
        if len(sizes) != 1:
            raise ValueError(
                "FEATURE_MAP_STRIDE must be the same for all classes of ANCHOR_GENERATOR_CONFIG, got "
                f"{[config.feature_map_stride for config in configs]}"
            )
        columns = self.box_coder.box_size
        anchors = [
            generate_anchors(c, grid_size=grid_size, point_cloud_range=range_, box_size=columns) for c in configs
        ]
        self._anchor_shapes = [tuple(a.shape[3:5]) for a in anchors]  # sizes and rotations of each class
        grid = torch.cat([a[0].flatten(2, 3) for a in anchors], dim=2)
        self.map_shape = tuple(grid.shape[:2])
        self.num_anchors_per_location = grid.shape[2]
        # of two dimensions, because .to(memory_format=...) rearranges buffers of four
        self.register_buffer("anchor_table", grid.flatten(0, 2), persistent=False)

    @classmethod
    def problems(cls, config: SimpleNamespace, inputs: Entries) -> Iterator[str]:
        """Anchors for every class, weights for their codes, and the map's cells under them."""
        yield from _anchor_problems(config)
        assigner = find_class(config.target_assigner_config, TARGET_ASSIGNERS, "")
        arguments = arguments_of(config.target_assigner_config, TARGET_ASSIGNERS)
        weights = config.loss_config.loss_weights.code_weights
        if arguments is not None and hasattr(assigner, "num_codes"):
            codes = assigner.num_codes(arguments)
            if len(weights) != codes:
                yield (
                    f"LOSS_CONFIG.LOSS_WEIGHTS.code_weights: {arguments.box_coder} makes {codes} codes, got "
                    f"{len(weights)} weights"
                )
        yield from cls._stride_problems(config, inputs)

    @classmethod
    def _stride_problems(cls, config: SimpleNamespace, inputs: Entries, elsewhere: Sequence[str] = ()) -> Iterator[str]:
        """Sentences on anchors whose stride is not the map's; those of the classes ``elsewhere`` stand on another."""
        places = [
            (f"ANCHOR_GENERATOR_CONFIG[{i}].feature_map_stride", anchors.feature_map_stride)
            for i, anchors in enumerate(config.anchor_generator_config)
            if anchors.class_name not in elsewhere
        ]
        stride = inputs[cls.READS].stride[1]
        for place, got in places:
            if abs(got - stride) > STRIDE_SLACK:
                yield f"{place}: the map that the head reads has stride {stride:g} (from MODEL.BACKBONE_2D), got {got}"

    @property
    def anchor_grid(self) -> Tensor:
        """(ny, nx, A, 7 + extra) view of the table: A anchors in a cell."""
        return self.anchor_table.view(*self.map_shape, self.num_anchors_per_location, -1)

    @property
    def anchors(self) -> list[Tensor]:
        """Anchors of each class, (1, ny, nx, sizes, rotations, 7 + extra), as views of the table."""
        parts = self.anchor_grid.split([s * r for s, r in self._anchor_shapes], dim=2)
        return [part.unflatten(2, shape)[None] for part, shape in zip(parts, self._anchor_shapes, strict=True)]

    @property
    def assigned_anchors(self) -> list[tuple[Any, Tensor]]:
        """Each target assigner, and the anchors whose targets it assigns, (ny, nx, A, 7 + extra)."""
        return [(self.target_assigner, self.anchor_grid)]

    def finish(self, batch_dict: dict) -> dict:
        """Adds targets in training, and boxes where they are wanted.

        Reads: ``gt_boxes`` (B, M, 8 + C) in training; ``decode_boxes``: False leaves out ``batch_box_preds``, for
        those who decode the few boxes that they need by ``decode_rows``.
        Writes: ``batch_cls_preds`` (B, N, num_class) logits, ``batch_box_preds`` (B, N, 7 + C),
        ``cls_preds_normalized`` False; all in evaluation, or if ``predict_boxes_when_training``.
        """
        predictions = self.forward_ret_dict
        cls_preds = predictions["cls_preds"]
        if tuple(cls_preds.shape[1:3]) != self.map_shape:
            raise ValueError(
                f"the feature map has {tuple(cls_preds.shape[1:3])} cells (y, x) but the anchors "
                f"{self.map_shape}; FEATURE_MAP_STRIDE must equal the backbone's total stride"
            )
        if self.training:
            predictions.update(self.assign_targets(batch_dict["gt_boxes"]))
        if not self.training or self.predict_boxes_when_training:
            batch_dict["cls_preds_normalized"] = False
            batch_dict["batch_cls_preds"] = self._logits(cls_preds)
            if batch_dict.get("decode_boxes", True):
                batch_dict["batch_box_preds"] = self._boxes(predictions["box_preds"], predictions["dir_cls_preds"])
        return batch_dict

    def assign_targets(self, gt_boxes: Tensor) -> dict[str, Tensor]:
        """``box_cls_labels``, ``box_reg_targets`` and ``reg_weights`` of every anchor; see ``AnchorTargets``."""
        return self.target_assigner.assign_targets(self.anchor_grid, gt_boxes)._asdict()

    def decode_rows(self, frame: int, rows: Tensor) -> Tensor:
        """Boxes of some anchors of a frame of the last forward.

        Args:
            frame: index within the batch.
            rows: (K,) indices of anchors.

        Returns:
            (K, 7 + C), the same rows of ``batch_box_preds``.
        """
        count, out = len(self.anchor_table), self.forward_ret_dict
        codes = out["box_preds"][frame].reshape(count, -1)[rows]
        directions = out["dir_cls_preds"]
        directions = None if directions is None else directions[frame].reshape(count, -1)[rows]
        return self._decode(codes, directions, self.anchor_table[rows])

    def _logits(self, cls_preds: Tensor) -> Tensor:
        return loss_utils.at_least_float32(cls_preds).reshape(len(cls_preds), len(self.anchor_table), -1)

    def _boxes(self, box_preds: Tensor, dir_cls_preds: Tensor | None) -> Tensor:
        frames, anchors = len(box_preds), self.anchor_table
        directions = None if dir_cls_preds is None else dir_cls_preds.reshape(frames, len(anchors), -1)
        return self._decode(box_preds.reshape(frames, len(anchors), -1), directions, anchors)

    def _decode(self, codes: Tensor, directions: Tensor | None, anchors: Tensor) -> Tensor:
        """(..., 7 + C) boxes of codes (..., D), directions (..., bins) and anchors (..., 7 + C)."""
        with full_precision(codes.device):
            boxes = self.box_coder.decode(loss_utils.at_least_float32(codes), anchors)
            if directions is not None:
                boxes[..., 6] = self.directions.decode(boxes[..., 6], _last_argmax(directions))
        return boxes

    def get_loss(self, tb_dict: dict | None = None) -> tuple[Tensor, dict]:
        """Loss of the last forward, and as numbers ``loss_rpn``, ``rpn_loss_{cls,loc,dir}`` and ``rpn_loss``."""
        with full_precision(self.anchor_table.device):
            parts = self._losses()
        return total_and_scalars(parts, tb_dict)

    def _losses(self) -> dict[str, Tensor]:
        out = self.forward_ret_dict
        labels = out["box_cls_labels"]
        if self.num_class == 1:
            labels = labels.clamp(max=1)  # class-agnostic
        frames, count = labels.shape
        positive = labels > 0
        frame_weights = 1.0 / positive.sum(1).clamp(min=1).to(self.anchor_table.dtype)
        rows = positive.view(-1).nonzero().squeeze(1)
        cls_loss = self._cls_loss(labels, frame_weights, rows)
        losses = {"rpn_loss_cls": cls_loss / frames * self.loss_weights.cls_weight}

        # background and ignored anchors cost nothing below, so they are left out
        weights = frame_weights[torch.div(rows, count, rounding_mode="floor")]
        targets = out["box_reg_targets"].view(frames * count, -1)[rows]
        codes, directions = self.predictions_at(rows)
        losses["rpn_loss_loc"] = self._box_loss(codes, targets, weights) / frames * self.loss_weights.loc_weight
        if directions is not None:
            heading = targets[:, 6] + self.anchor_table[rows % count, 6]
            dir_loss = F.cross_entropy(directions, self.directions.bin_of(heading), reduction="none") * weights
            losses["rpn_loss_dir"] = dir_loss.sum() / frames * self.loss_weights.dir_weight
        return losses

    def _cls_loss(self, labels: Tensor, frame_weights: Tensor, rows: Tensor) -> Tensor:
        """Sum of the class losses of all anchors: ``labels`` (B, N), ``frame_weights`` (B,), positive ``rows`` (K,)."""
        logits = self.forward_ret_dict["cls_preds"].reshape(*labels.shape, -1)
        return loss_utils.sigmoid_focal_sum(logits, labels, frame_weights, rows=rows)

    def predictions_at(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the loss needs of the boxes and directions: those of a few anchors of the last forward.

        Args:
            rows: (K,) indices of anchors within the batch.

        Returns:
            (K, code_size) box codes and (K, bins) directions or None; float32 at least.
        """
        maps = [self.forward_ret_dict[key] for key in ("box_preds", "dir_cls_preds")]
        count = len(self.anchor_table) * len(self.forward_ret_dict["cls_preds"])
        taken = [None if m is None else m.reshape(count, -1).index_select(0, rows) for m in maps]
        return tuple(None if t is None else loss_utils.at_least_float32(t) for t in taken)

    def _box_loss(self, codes: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        if not self.box_coder.encode_angle_by_sincos:
            codes, targets = loss_utils.add_sin_difference(codes, targets)
        return self.reg_loss_func(codes, targets, weights).sum()


def _anchor_problems(config: SimpleNamespace) -> Iterator[str]:
    """Sentences on anchors of no class, and classes without anchors."""
    if config.class_names is None:
        return
    names, anchors = list(config.class_names), config.anchor_generator_config
    for i, entry in enumerate(anchors):
        if entry.class_name not in names:
            near = nearest_name(entry.class_name, names)
            yield f"ANCHOR_GENERATOR_CONFIG[{i}].class_name: {entry.class_name!r} is not among CLASS_NAMES; {near}"
    for name in names:
        if name not in [entry.class_name for entry in anchors]:
            yield f"ANCHOR_GENERATOR_CONFIG: {name!r} of CLASS_NAMES has no anchors"


def _last_argmax(x: Tensor) -> Tensor:
    """Index of the first maximum along the last axis; PyTorch's is slow on short axes, and two is the usual length."""
    return (x[..., 1] > x[..., 0]).long() if x.shape[-1] == 2 else x.argmax(-1)
