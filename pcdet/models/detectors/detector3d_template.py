"""The frame of every detector: named slots for modules, which run one after the other on a batch."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from pcdet.models.description import SLOTS, DataFacts, Slot, describe
from pcdet.models.feature_spec import MAPS, Kind
from pcdet.models.model_utils.post_processing import (
    FramePredictions,
    PostProcessingConfig,
    final_boxes,
    generate_recall_record,
)
from pcdet.registry import ConfigError, build_from_cfg, find_class, parse_node
from pcdet.registry_signatures import injected_into
from pcdet.utils import weights
from pcdet.utils.checkpoint_reader import read_checkpoint
from pcdet.utils.transfer import rows_where

HEADS = ("dense_head", "point_head", "roi_head")
LEAST_SHARE = 0.5  # of the parameters: a checkpoint that fills less is hardly the one that was meant


class Detector3DTemplate(nn.Module):
    """A detector built from a ``MODEL`` block.

    Args:
        model_cfg: the block.
        num_class: number of classes.
        dataset: anything with ``class_names``, ``grid_size``, ``voxel_size``, ``point_cloud_range``,
            ``point_feature_encoder.num_point_features`` and, if it has one, ``depth_downsample_factor``.

    Attributes:
        vfe, backbone_3d, map_to_bev_module, pfe, backbone_2d, dense_head, point_head, roi_head: the modules, or None.
        described: what the modules say of the entries that they read and write.
        global_step: (1,) int64 buffer, the number of training steps done.
    """

    REQUIRED: tuple[str, ...] = ()  # slots that the detector cannot do without

    def __init__(self, model_cfg: Mapping, num_class: int, dataset: Any):
        super().__init__()
        self.model_cfg = model_cfg
        self.num_class = num_class
        self.class_names = list(dataset.class_names)
        self.register_buffer("global_step", torch.zeros(1, dtype=torch.int64))
        self.post_processing_cfg = parse_node(
            model_cfg.get("POST_PROCESSING"), PostProcessingConfig, path="MODEL.POST_PROCESSING"
        )
        self._build_networks(dataset)

    @property
    def module_list(self) -> list[nn.Module]:
        """The modules in the order of running."""
        return [module for slot in SLOTS if (module := getattr(self, slot.attribute)) is not None]

    @property
    def mode(self) -> str:
        """``TRAIN`` or ``TEST``."""
        return "TRAIN" if self.training else "TEST"

    def update_global_step(self) -> None:
        """Counts one training step."""
        self.global_step += 1

    def _build_networks(self, dataset: Any) -> None:
        missing = [
            slot.key for slot in SLOTS if slot.attribute in self.REQUIRED and self.model_cfg.get(slot.key) is None
        ]
        if missing:
            raise ConfigError([f"MODEL.{key}: missing; {type(self).__name__} needs it" for key in missing])
        facts = DataFacts.of(dataset)
        self.described = describe(self.model_cfg, facts)
        channels = facts.num_point_features
        for slot in SLOTS:
            node = self.model_cfg.get(slot.key)
            if node is None:
                self.register_module(slot.attribute, None)
                continue
            channels = self._input_channels(slot, channels)
            injected = {
                **facts.injected(),
                "input_channels": channels,
                "backbone_channels": channels,
                "num_class": 1 if node.get("CLASS_AGNOSTIC", False) else self.num_class,
                "predict_boxes_when_training": self.model_cfg.get("ROI_HEAD") is not None,
            }
            module = _build_module(slot, node, injected)
            self.add_module(slot.attribute, module)
            channels = _declared_channels(module, channels)

    def _input_channels(self, slot: Slot, before: int) -> int:
        """Channels of what the module of a slot reads; those that leave the module before it where that is not known.

        A module that says nothing of itself may have written the entry anew: what it declares then counts.
        """
        read = self.described.inputs.get(slot.attribute)
        if read is None:
            return before
        channels = read.spec.channels
        for attribute in read.overwriters:
            channels = _redeclared(getattr(self, attribute), read.spec.kind, channels)
        return channels

    def forward_features(self, batch_dict: dict, *, last: str | None = None, decode_boxes: bool = True) -> dict:
        """Runs the modules on a batch, without losses and without post-processing.

        Args:
            batch_dict: the collated batch; modules write into it.
            last: the slot after which to stop (``"backbone_2d"``); None runs all.
            decode_boxes: let an anchor head decode the boxes of all its anchors (``batch_box_preds``), which costs more
                than its predictions; a second stage needs them.

        Returns:
            ``batch_dict``.
        """
        batch_dict["decode_boxes"] = decode_boxes or self.roi_head is not None
        for slot in SLOTS:
            module = getattr(self, slot.attribute)
            if module is not None:
                batch_dict = module(batch_dict)
            if slot.attribute == last:
                return batch_dict
        if last is not None:
            raise ValueError(f"last must be one of {', '.join(slot.attribute for slot in SLOTS)}, got {last!r}")
        return batch_dict

    def forward(self, batch_dict: dict) -> tuple:
        """Loss in training, boxes in evaluation.

        Returns:
            In training ``({"loss": scalar}, tb_dict, disp_dict)``. In evaluation ``(pred_dicts, recall_dict)``: for
            each frame ``pred_boxes`` (K, 7 + C), ``pred_scores`` (K,) and ``pred_labels`` (K,) counted from 1; and the
            counts of objects and of those found.
        """
        batch_dict = self.forward_features(batch_dict, decode_boxes=False)
        if self.training:
            loss, tb_dict, disp_dict = self.get_training_loss()
            return {"loss": loss}, tb_dict, disp_dict
        return self.post_processing(batch_dict)

    def get_training_loss(self) -> tuple[Tensor, dict, dict]:
        """Sum of the heads' losses after a training forward, their parts by name, and nothing to display."""
        total, tb_dict = 0.0, {}
        for name in HEADS:
            head = getattr(self, name)
            if head is not None:
                loss, tb_dict = head.get_loss(tb_dict)
                total = total + loss
        return total, tb_dict, {}

    @torch.no_grad()
    def post_processing(self, batch_dict: dict) -> tuple[list[dict], dict]:
        """Final boxes of every frame.

        Reads: ``batch_size``; ``batch_cls_preds`` (B, N, C), or (sum N, C) with ``batch_index``, or a list of them with
        ``multihead_label_mapping``; ``batch_box_preds``; ``cls_preds_normalized``; ``has_class_labels`` with
        ``roi_labels`` or ``batch_pred_labels``; ``rois``; ``gt_boxes``.
        """
        config, rois = self.post_processing_cfg, batch_dict.get("rois")
        frames = self._frame_predictions(batch_dict)
        pred_dicts = final_boxes(frames, config)
        found = [pred["pred_boxes"] for pred in pred_dicts] if rois is None else [frame.all_boxes() for frame in frames]
        return pred_dicts, generate_recall_record(found, rois, batch_dict.get("gt_boxes"), config.recall_thresh_list)

    def _frame_predictions(self, batch_dict: dict) -> list[FramePredictions]:
        if "batch_cls_preds" not in batch_dict:
            heads = [type(head).__name__ for name in HEADS if (head := getattr(self, name)) is not None]
            raise ValueError(
                f"{type(self).__name__} has no predictions to choose from: {', '.join(heads) or 'no head'} writes no "
                "batch_cls_preds; a CenterHead needs MODEL.NAME: CenterPoint"
            )
        flat, frames = batch_dict.get("batch_index"), range(int(batch_dict["batch_size"]))
        rows_of: Sequence[Any] = frames if flat is None else rows_where([flat == index for index in frames])
        return [self._predictions_at(batch_dict, index, rows) for index, rows in zip(frames, rows_of, strict=True)]

    def _predictions_at(self, batch_dict: dict, index: int, rows: Any) -> FramePredictions:
        cls_preds = batch_dict["batch_cls_preds"]
        if "batch_box_preds" in batch_dict:
            boxes_of = batch_dict["batch_box_preds"][rows].__getitem__
        else:
            boxes_of = functools.partial(self.dense_head.decode_rows, index)
        if isinstance(cls_preds, list):
            logits, maps = [c[rows] for c in cls_preds], batch_dict["multihead_label_mapping"]
        else:
            logits = [cls_preds[rows]]
            maps = [torch.arange(1, logits[0].shape[1] + 1, device=logits[0].device)]
        labels = None
        if batch_dict.get("has_class_labels", False):
            labels = batch_dict["roi_labels" if "roi_labels" in batch_dict else "batch_pred_labels"][index]
        return FramePredictions(boxes_of, logits, maps, bool(batch_dict.get("cls_preds_normalized", False)), labels)

    def load_params_from_file(
        self,
        filename: str | Path,
        logger: logging.Logger | None = None,
        to_cpu: bool = False,
        pre_trained_path: str | Path | None = None,
        allow_partial: bool = False,
    ) -> weights.WeightsReport:
        """Loads the weights of a checkpoint, written here or by OpenPCDet.

        Args:
            filename: the checkpoint.
            logger: told what was loaded and what was not.
            to_cpu: read the file into main memory instead of onto the model's device.
            pre_trained_path: a second checkpoint, whose weights take precedence.
            allow_partial: take what fits and report the rest; otherwise anything that differs is an error.

        Raises:
            MisfitError: the checkpoint differs from the model (class count, widths, modules), entry by entry; or
                nothing of it fits.
        """
        logger = logger or logging.getLogger(__name__)
        device = torch.device("cpu") if to_cpu else self.global_step.device
        logger.info(f"==> Loading parameters from checkpoint {filename} to {'CPU' if device.type == 'cpu' else 'GPU'}")
        files = [filename] if pre_trained_path is None else [filename, pre_trained_path]
        checkpoints = [read_checkpoint(file, device) for file in files]
        if checkpoints[0].get("version"):
            logger.info(f"==> Checkpoint trained from version: {checkpoints[0]['version']}")
        states = [weights.model_state_of(c, file) for c, file in zip(checkpoints, files, strict=True)]
        name = " with ".join(map(str, files))
        report = weights.load_weights(self, *states, name=name, allow_partial=allow_partial)
        for file, layout in zip(files, report.layouts, strict=True):
            _log_layout(logger, file, layout)
        self._log_report(logger, name, report)
        return report

    def _log_report(self, logger: logging.Logger, name: str, report: weights.WeightsReport) -> None:
        own = self.state_dict()
        for key, value in own.items():
            if key in report.wrong_shape:
                found = report.wrong_shape[key][0]
                logger.info(f"Not updated weight {key}: {tuple(value.shape)}; the file has {found}")
            elif key not in report.fitting:
                logger.info(f"Not updated weight {key}: {tuple(value.shape)}; the file has none")
        for key in report.unexpected:
            logger.info(f"Not used from the checkpoint: {key}")
        share = weights.fitting_share(self, report)
        if share < LEAST_SHARE:
            logger.warning(f"{name} fills {share:.1%} of the model's parameters; the others stay as they were")
        logger.info(f"==> Done (loaded {len(report.fitting)}/{len(own)})")


def _log_layout(logger: logging.Logger, file: str | Path, layout: weights.SparseLayout | None) -> None:
    if layout is None:
        return
    if layout.doubts():
        logger.warning(f"==> {file}: {layout.doubts()}")
    elif layout.name is not None:
        logger.info(f"==> Sparse convolution weights are laid out as in {layout.name}")


def _build_module(slot: Slot, node: Mapping, injected: dict) -> nn.Module:
    """One module; what its constructor complains about is reported with the path of its node."""
    path = f"MODEL.{slot.key}"
    try:
        declared = injected_into(find_class(node, slot.registry, path), slot.registry.injected)
        return build_from_cfg(
            node, slot.registry, path=path, **{name: value for name, value in injected.items() if name in declared}
        )
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _declared_channels(module: nn.Module, channels: int) -> int:
    """Channels that a module tells the next one, in OpenPCDet's manner, once it is built: users' own modules do."""
    if hasattr(module, "get_output_feature_dim"):
        return module.get_output_feature_dim()
    return getattr(module, "num_bev_features", getattr(module, "num_point_features", channels))


def _redeclared(module: nn.Module, kind: Kind, channels: int) -> int:
    """The channels that a module declares, in OpenPCDet's manner, for maps or for rows; ``channels`` if it does not."""
    if kind in MAPS:
        return getattr(module, "num_bev_features", channels)
    if hasattr(module, "get_output_feature_dim"):
        return module.get_output_feature_dim()
    return getattr(module, "num_point_features", channels)
