"""AnchorOutputs: the raw predictions of an anchor head with one map."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from pcdet.models.kd.heads.head_outputs import HeadOutputs, Places


class AnchorOutputs(HeadOutputs):
    """Raw predictions of an anchor head; the places are its anchors.

    Anchors are numbered as OpenPCDet flattens them: row, column, anchor of the cell.

    Args:
        head: the dense head, after a forward.
        taps: what was tapped, by path in the detector; what is not there is read off the head's ``forward_ret_dict``.
        recompute: let ``codes_at`` predict its few anchors again instead of reading the map.
    """

    def __init__(self, head: nn.Module, taps: Mapping[str, Any], *, recompute: bool = False):
        self._head = head
        self._taps = taps
        self._recompute = getattr(head, "predictions_at", None) if recompute else None
        self.labels = getattr(head, "forward_ret_dict", {}).get("box_cls_labels")

    @property
    def num_frames(self) -> int:
        """B."""
        return len(self._class_maps)

    @property
    def classes(self) -> Tensor:
        """(B, H, W, A, classes) logits."""
        return self._class_maps.unflatten(3, (-1, self._head.num_class))

    @property
    def codes(self) -> Tensor:
        """(B, H, W, A, codes) box codes."""
        return self._map("conv_box", "box_preds").unflatten(3, (self.classes.shape[3], -1))

    @cached_property
    def score_map(self) -> Tensor:
        """See the base class."""
        return self._class_maps.detach().amax(dim=3).float().sigmoid()

    @property
    def maps(self) -> tuple[Tensor, ...]:
        """See the base class."""
        return self.classes, self.codes

    @property
    def foreground(self) -> Tensor | None:
        """See the base class: True for anchors assigned to an object."""
        return None if self.labels is None else self.labels > 0

    def best_logits(self) -> Tensor:
        """See the base class; ``amax`` is slow over a last axis of a few entries."""
        best = self.classes[..., 0]
        for column in range(1, self.classes.shape[-1]):
            best = torch.maximum(best, self.classes[..., column])
        return best.flatten(1)

    def classes_at(self, where: Places) -> Tensor:
        """See the base class."""
        return self._at(self.classes, where)

    def cells_of(self, where: Places) -> tuple[Tensor, Tensor]:
        """See the base class."""
        batch_idx, anchor = where
        _, height, width, anchors, _ = self.classes.shape
        return torch.unique(batch_idx * (height * width) + anchor // anchors, return_inverse=True)

    def classes_in(self, cells: Tensor) -> Tensor:
        """See the base class."""
        _, height, width, _, _ = self.classes.shape
        batch_idx, cell = cells // (height * width), cells % (height * width)
        return self.classes[batch_idx, cell // width, cell % width].flatten(1).float()

    def codes_at(self, where: Places) -> Tensor:
        """See the base class."""
        if self._recompute is None:
            return self._at(self.codes, where)
        # A few anchors computed again spare the convolution's backward pass over the whole map.
        batch_idx, anchor = where
        return self._recompute(batch_idx * self.classes[0, ..., 0].numel() + anchor)[0].float()

    def boxes_at(self, where: Places) -> Tensor:
        """See the base class."""
        return self._head.box_coder.decode(self.codes_at(where), self._head.anchor_table[where[1]])

    @property
    def _class_maps(self) -> Tensor:
        """(B, H, W, A * classes) logits."""
        return self._map("conv_cls", "cls_preds")

    def _map(self, layer: str, key: str) -> Tensor:
        tapped = self._taps.get(f"dense_head.{layer}")
        if tapped is not None:
            return tapped.permute(0, 2, 3, 1)
        found = getattr(self._head, "forward_ret_dict", {}).get(key)
        if not isinstance(found, Tensor):
            raise ValueError(
                f"{type(self._head).__name__} leaves no single {key} map in its forward_ret_dict; predictions are "
                "distilled for heads that leave them as AnchorHeadSingle, AnchorHeadMulti or CenterHead do"
            )
        return found

    @staticmethod
    def _at(maps: Tensor, where: Places) -> Tensor:
        batch_idx, anchor = where
        _, _, width, anchors, _ = maps.shape
        cell, slot = anchor // anchors, anchor % anchors
        return maps[batch_idx, cell // width, cell % width, slot].float()
