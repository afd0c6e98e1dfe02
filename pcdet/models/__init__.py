"""Detectors and their parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn as nn

from pcdet.models.width import scale_model_cfg
from pcdet.registry import DETECTORS, build_from_cfg
from pcdet.utils.common_utils import batch_to_device


class ModelReturn(NamedTuple):
    """What ``model_fn_decorator``'s function returns."""

    loss: torch.Tensor
    tb_dict: dict
    disp_dict: dict


def build_network(model_cfg: Mapping, num_class: int, dataset: Any) -> nn.Module:
    """The detector that a ``MODEL`` block describes.

    Args:
        model_cfg: the block. ``WIDTH``, if there is one, scales its channels first; see ``pcdet.models.width``.
            ``BN_MOMENTUM`` replaces the momentum of every batch norm: OpenPCDet's 0.01 remembers about a hundred
            iterations, too many for a training of a few hundred, whose last weights then meet stale statistics.
        num_class: number of classes.
        dataset: see ``Detector3DTemplate``.

    Raises:
        ConfigError: with every wrong key of the first part that cannot be built.
    """
    if model_cfg.get("WIDTH") is not None:
        model_cfg = scale_model_cfg(model_cfg, model_cfg["WIDTH"])
    model = build_from_cfg(
        model_cfg, DETECTORS, path="MODEL", model_cfg=model_cfg, num_class=num_class, dataset=dataset
    )
    if model_cfg.get("BN_MOMENTUM") is not None:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = float(model_cfg["BN_MOMENTUM"])
    return model


def load_data_to_gpu(batch_dict: dict) -> dict:
    """Moves a collated batch to the current GPU, or makes tensors of it on the CPU where there is none; in place."""
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    return batch_to_device(batch_dict, device)


def model_fn_decorator():
    """OpenPCDet's training step: a function of a model and a collated batch that returns a ``ModelReturn``."""

    def model_func(model: nn.Module, batch_dict: dict) -> ModelReturn:
        batch_to_device(batch_dict, next(model.parameters()).device)
        ret_dict, tb_dict, disp_dict = model(batch_dict)
        bare = model.module if hasattr(model, "module") else model
        bare.update_global_step()
        return ModelReturn(ret_dict["loss"].mean(), tb_dict, disp_dict)

    return model_func
