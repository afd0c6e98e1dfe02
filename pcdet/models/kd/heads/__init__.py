"""Raw predictions of dense heads, as losses and importance read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from pcdet.models.kd.features.taps import head_kind
from pcdet.models.kd.heads.anchor_outputs import AnchorOutputs
from pcdet.models.kd.heads.branch_outputs import BranchOutputs
from pcdet.models.kd.heads.center_outputs import CenterOutputs
from pcdet.models.kd.heads.head_outputs import NOT_PREDICTED, BoxPlaces, HeadOutputs, Places

__all__ = [
    "NOT_PREDICTED",
    "AnchorOutputs",
    "BoxPlaces",
    "BranchOutputs",
    "CenterOutputs",
    "HeadOutputs",
    "Places",
    "read_head",
]


def read_head(head: nn.Module, taps: Mapping[str, Any], *, recompute: bool = False) -> HeadOutputs:
    """A head after its forward -> its raw predictions, by what it says that they belong to.

    Args:
        head: the dense head of a detector.
        taps: what was tapped, by path in the detector; what is not there is read off the head's ``forward_ret_dict``.
        recompute: let ``codes_at`` predict its few places again, where the head can.
    """
    kind = head_kind(head)
    if kind == "centers":
        return CenterOutputs(head, taps)
    if kind == "branches":
        return BranchOutputs(head, taps)
    return AnchorOutputs(head, taps, recompute=recompute)
