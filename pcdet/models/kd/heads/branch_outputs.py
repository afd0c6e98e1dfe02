"""BranchOutputs: the raw predictions of an anchor head with a branch for each group of classes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from pcdet.models.kd.heads.head_outputs import NOT_PREDICTED, HeadOutputs, Places
from pcdet.utils.transfer import constant


class BranchOutputs(HeadOutputs):
    """Raw predictions of an anchor head with branches; the places are its anchors.

    Anchors are numbered as the head orders them: branch, class, size, rotation, row, column. Each branch has cells of
    its own, whose scores are those of its own classes. All branches are one group, since the head's own loss, too, is a
    mean over the anchors of objects of all branches.

    Args:
        head: the dense head, after a forward.
        taps: what was tapped, by path in the detector; what is not there is read off the head's ``forward_ret_dict``.
    """

    def __init__(self, head: nn.Module, taps: Mapping[str, Any]):
        self._head = head
        self.labels = head.forward_ret_dict.get("box_cls_labels")
        self._cells = [math.prod(shape) for shape in head.branch_maps]  # of each branch
        tapped = [taps.get(f"dense_head.{layer}") for layer in head.score_taps]
        if None in tapped:
            self._classes, self._codes = (self._split(head.forward_ret_dict[key]) for key in ("cls_preds", "box_preds"))
        else:
            self._classes, self._codes = zip(*(branch[:2] for branch, _ in tapped), strict=True)
        self._first_place = _starts([classes.shape[1] for classes in self._classes])
        self._first_cell = _starts(self._cells)
        self.num_frames = len(self._classes[0])

    def _split(self, predictions: Sequence[Tensor] | Tensor) -> Sequence[Tensor]:
        """(B, anchors of the branch, columns) of each branch, of predictions that may stand in one tensor."""
        if not isinstance(predictions, Tensor):
            return predictions
        per_cell = [branch.num_anchors_per_location for branch in self._head.rpn_heads]
        return predictions.split([a * cells for a, cells in zip(per_cell, self._cells, strict=True)], dim=1)

    # ------------------------------------------------------------------------------------------------------- classes

    @cached_property
    def score_map(self) -> Tensor:
        """See the base class; where branches have maps of several sizes, on the cells of the largest."""
        best = [
            _largest(classes.detach()).unflatten(1, (-1, *shape)).amax(dim=1, keepdim=True).float()
            for classes, shape in zip(self._classes, self._head.branch_maps, strict=True)
        ]
        size = tuple(map(max, zip(*self._head.branch_maps, strict=True)))
        best = [each if each.shape[2:] == size else interpolate(each, size) for each in best]  # by the nearest cell
        return torch.cat(best, dim=1).amax(dim=1).sigmoid()

    @property
    def maps(self) -> tuple[Tensor, ...]:
        """See the base class."""
        return (*self._classes, *self._codes)

    @property
    def foreground(self) -> Tensor | None:
        """See the base class: True for anchors assigned to an object."""
        return None if self.labels is None else self.labels > 0

    def best_logits(self) -> Tensor:
        """See the base class."""
        return torch.cat([_largest(classes) for classes in self._classes], dim=1)

    def classes_at(self, where: Places) -> Tensor:
        """See the base class; of the classes of other branches ``NOT_PREDICTED``."""

        def read(branch: int, frame: Tensor, anchor: Tensor) -> Tensor:
            own = self._classes[branch][frame, anchor].float()
            columns = constant(self._head.class_ids[branch], own.device) - 1
            return own.new_full((len(own), self._head.num_class), NOT_PREDICTED).index_copy(1, columns, own)

        return _read(where, self._first_place, read)

    def cells_of(self, where: Places) -> tuple[Tensor, Tensor]:
        """See the base class; a cell of each branch's map is one of its own."""

        def read(branch: int, frame: Tensor, anchor: Tensor) -> Tensor:
            return frame * self._first_cell[-1] + self._first_cell[branch] + anchor % self._cells[branch]

        return torch.unique(_read(where, self._first_place, read), return_inverse=True)

    def classes_in(self, cells: Tensor) -> Tensor:
        """See the base class; behind the scores of a branch that has fewer than others, ``NOT_PREDICTED``."""
        by_cell = [c.unflatten(1, (-1, cells)) for c, cells in zip(self._classes, self._cells, strict=True)]
        most = max(c.shape[1] * c.shape[3] for c in by_cell)

        def read(branch: int, frame: Tensor, cell: Tensor) -> Tensor:
            own = by_cell[branch][frame, :, cell].flatten(1).float()
            return pad(own, (0, most - own.shape[1]), value=NOT_PREDICTED)

        return _read((cells // self._first_cell[-1], cells % self._first_cell[-1]), self._first_cell, read)

    # --------------------------------------------------------------------------------------------------------- boxes

    @property
    def code_weights(self) -> Tensor | None:
        """See the base class."""
        return constant(self._head.loss_weights.code_weights, self._codes[0].device, torch.float32)

    def codes_at(self, where: Places) -> Tensor:
        """See the base class."""
        return _read(where, self._first_place, lambda branch, *place: self._codes[branch][place].float())

    def boxes_at(self, where: Places) -> Tensor:
        """See the base class."""
        return self._head.box_coder.decode(self.codes_at(where), self._head.anchor_table[where[1]])


def _starts(sizes: Sequence[int]) -> list[int]:
    """The first number of each branch, and behind the last."""
    return [0, *itertools.accumulate(sizes)]


def _largest(classes: Tensor) -> Tensor:
    """(B, N) the largest of (B, N, columns); ``amax`` is slow over a last axis of a few entries."""
    best = classes[..., 0]
    for column in range(1, classes.shape[-1]):
        best = torch.maximum(best, classes[..., column])
    return best


def _read(where: Places, starts: Sequence[int], read: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
    """What ``read`` gives of the branch that each place or cell belongs to.

    Every branch is read for all of them, and what is another branch's is dropped: choosing rows would make the host
    wait for the GPU. Numbers of other branches wrap around, so that their gradients of zero do not meet in one value.

    Args:
        where: (n,) frame and (n,) number among those of all branches.
        starts: the first number of each branch, and behind the last.
        read: (branch, (n,) frame, (n,) number in the branch) -> (n, ...).

    Returns:
        (n, ...)
    """
    frame, number = where
    found: Tensor | None = None
    for branch, (first, behind) in enumerate(itertools.pairwise(starts)):
        values = read(branch, frame, (number - first) % (behind - first))
        own = (number >= first).view(-1, *[1] * (values.dim() - 1))  # of this branch or a later one
        found = values if found is None else torch.where(own, values, found)
    return found
