"""What heads of all kinds share: the last forward's predictions, and weights for the columns of box codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from pcdet.models.feature_spec import SlotModule

Predicts = Literal["anchors", "centers", "branches", ""]


class HeadTemplate(SlotModule):
    """A head.

    Attributes:
        PREDICTS: what its raw predictions belong to, for those who read them off ``forward_ret_dict`` or its layers:
            "anchors", the anchors of one map; "centers", the cells of a map for each group of classes; "branches",
            anchors on the maps of several branches; "", anything else.
        score_taps: paths in the head of the layers whose outputs are its raw class predictions; empty: the head has
            to run as a whole.
        box_taps: the same for its raw boxes.
        forward_ret_dict: predictions of the last forward, and in training its targets.
    """

    PREDICTS: ClassVar[Predicts] = ""
    score_taps: tuple[str, ...] = ()
    box_taps: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.forward_ret_dict: dict[str, Any] = {}

    def __getstate__(self) -> dict:
        """Without the last forward's tensors: those with a graph can be neither copied nor pickled."""
        return {**self.__dict__, "forward_ret_dict": {}}


@dataclass(frozen=True, kw_only=True)
class CodeWeights:
    """``LOSS_WEIGHTS`` of a head: here what weighs the columns of a box code; a subclass adds the parts of its loss."""

    code_weights: list[float]


def check_code_weights(weights: Sequence[float], code_size: int) -> None:
    """ValueError unless there is a weight for each column of a box code."""
    if len(weights) != code_size:
        raise ValueError(
            f"LOSS_CONFIG.LOSS_WEIGHTS.code_weights must have {code_size} items, one for each column of a box code, "
            f"got {len(weights)}"
        )


def total_and_scalars(parts: Mapping[str, Tensor], tb_dict: dict | None) -> tuple[Tensor, dict]:
    """The sum of a first stage's losses, and ``tb_dict`` with ``loss_rpn``, each part and ``rpn_loss`` as numbers.

    The host waits for the GPU once.
    """
    total = sum(parts.values())
    values = torch.stack([*parts.values(), total]).detach().tolist()
    tb_dict = {} if tb_dict is None else tb_dict
    tb_dict["loss_rpn"] = values[-1]
    tb_dict.update(zip(parts, values, strict=False))
    tb_dict["rpn_loss"] = values[-1]
    return total, tb_dict
