"""A branch of a centre head: the heat maps of its classes, and what it says of the object at every cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial

import torch.nn as nn
from torch import Tensor

from pcdet.registry import Count

CODES = {"center": 2, "center_z": 1, "dim": 3, "rot": 2, "vel": 2}  # columns, in the order of the targets
OPTIONAL = ("vel",)
HEATMAP_BIAS = -2.19  # of the last layer: a probability of 0.1 everywhere before training (CornerNet, section 3.2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictionConfig:
    """One kind of prediction: an entry of ``HEAD_DICT``.

    Attributes:
        out_channels: columns.
        num_conv: 3x3 convolutions, with that which predicts.
    """

    out_channels: Count
    num_conv: Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeparateHeadConfig:
    """``SEPARATE_HEAD_CFG``: what the branches predict beside heat maps.

    Attributes:
        head_order: the columns of a box code; those of the targets have one order, so there is nothing to choose but
            whether velocities are predicted.
        head_dict: each kind of prediction, in the order of the weights in a checkpoint.
    """

    head_order: list[str]
    head_dict: dict[str, PredictionConfig]

    def __post_init__(self):
        names = list(CODES)
        needed = [name for name in names if name not in OPTIONAL]
        if self.head_order not in (needed, names):
            raise ValueError(
                f"HEAD_ORDER: must be {needed}, with {list(OPTIONAL)} behind where velocities are predicted, as the "
                f"targets have this order; got {self.head_order}"
            )
        if sorted(self.head_dict) != sorted(self.head_order):
            raise ValueError(
                f"HEAD_DICT: must have the entries of HEAD_ORDER, {self.head_order}, got {list(self.head_dict)}; an "
                "IoU branch and others are not covered"
            )
        for name, entry in self.head_dict.items():
            if entry.out_channels != CODES[name]:
                raise ValueError(f"HEAD_DICT.{name}.out_channels: must be {CODES[name]}, got {entry.out_channels}")

    @property
    def num_codes(self) -> int:
        """Columns of a box code."""
        return sum(CODES[name] for name in self.head_order)


class SeparateHead(nn.ModuleDict):
    """A branch: a tower of 3x3 convolutions for each kind of prediction. Its names are those of OpenPCDet's class.

    Args:
        input_channels: channels of the shared map, and of the towers.
        predictions: by name, the heat maps (``hm``) among them.
        use_bias: convolutions in front of a norm have a bias.
        norm: makes the norms.
    """

    def __init__(
        self,
        input_channels: int,
        predictions: Mapping[str, PredictionConfig],
        *,
        use_bias: bool,
        norm: partial,
    ):
        super().__init__({name: _tower(input_channels, entry, use_bias, norm) for name, entry in predictions.items()})
        self.init_weights()

    def init_weights(self) -> None:
        """Starts with objects being rare; what is said of them as He et al. (2015) by the inputs."""
        for name, tower in self.items():
            if name == "hm":
                nn.init.constant_(tower[-1].bias, HEATMAP_BIAS)
                continue
            for layer in tower.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight)
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Shared map (B, C, H, W) -> by name (B, columns, H, W); ``hm`` are logits."""
        return {name: tower(features) for name, tower in self.items()}


def _tower(channels: int, config: PredictionConfig, use_bias: bool, norm: partial) -> nn.Sequential:
    hidden: Sequence[nn.Module] = [
        nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=use_bias), norm(channels), nn.ReLU())
        for _ in range(config.num_conv - 1)
    ]
    return nn.Sequential(*hidden, nn.Conv2d(channels, config.out_channels, 3, padding=1))
