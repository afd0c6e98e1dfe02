"""CenterOutputs: the raw predictions of a centre head, class by class and at the centres of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from pcdet.models.dense_heads.center_boxes import decode_boxes
from pcdet.models.kd.features.grid import Grid
from pcdet.models.kd.heads.head_outputs import NOT_PREDICTED, BoxPlaces, HeadOutputs, Places
from pcdet.utils.transfer import constant

ROUNDED = 5  # digits behind the metre: strides times voxels are the same cells whatever their product rounds to
LEAST_SCORE = 1e-6  # of what is interpolated, so that its logit is finite


class CenterOutputs(HeadOutputs):
    """Raw predictions of a centre head; a place is a cell in the map of a group of classes.

    Places are numbered group by group, row by row. A teacher's can be read in the groups and at the cells of the
    student's head (``like``): classes are the same by their numbers, and where the cells differ, its scores are
    interpolated at the centres of the student's.

    Args:
        head: the dense head, after a forward.
        taps: what was tapped, by path in the detector; what is not there is read off the head's ``forward_ret_dict``.
        like: a head whose groups and cells are taken; its own.
    """

    def __init__(self, head: nn.Module, taps: Mapping[str, Any], *, like: nn.Module | None = None):
        tapped = [taps.get(f"dense_head.{layer}") for layer in head.score_taps]
        self._predictions: Sequence[Mapping[str, Tensor]] = (
            head.forward_ret_dict["pred_dicts"] if None in tapped else tapped
        )
        self._head = head
        self._like = head if like is None else like
        self._targets: Mapping[str, list[Tensor]] | None = head.forward_ret_dict.get("target_dicts")
        self._groups = class_groups(self._like)
        self.num_frames = len(self._predictions[0]["hm"])
        self.num_groups = len(self._groups)

    # ------------------------------------------------------------------------------------------------------- classes

    @cached_property
    @torch.enable_grad()  # it is kept, though who asks first may need no gradient
    def classes(self) -> Tensor:
        """(B, classes, H, W) logits in the order of their numbers; ``NOT_PREDICTED`` outside of the head's range."""
        order = [i for group in class_groups(self._head) for i in group]
        logits = torch.cat([prediction["hm"] for prediction in self._predictions], dim=1)
        if order != sorted(order):
            logits = logits.index_select(1, constant(order, logits.device).argsort())
        own, cells = grid_of(self._head), grid_of(self._like)
        return logits if own == cells else _interpolated(logits, own, cells)

    @cached_property
    def score_map(self) -> Tensor:
        """See the base class."""
        return self.classes.detach().amax(dim=1).float().sigmoid()

    @property
    def maps(self) -> tuple[Tensor, ...]:
        """See the base class."""
        return tuple(part for prediction in self._predictions for part in prediction.values())

    def best_logits(self) -> Tensor:
        """See the base class."""
        return torch.stack([self.classes[:, group].amax(dim=1) for group in self._groups], dim=1).flatten(1)

    def classes_at(self, where: Places) -> Tensor:
        """See the base class; of the classes outside of a place's group ``NOT_PREDICTED``."""
        batch_idx, place = where
        cell, width = place % self._cells, self.classes.shape[3]
        logits = self.classes[batch_idx, :, cell // width, cell % width].float()
        return logits.masked_fill(~self._members[place // self._cells], NOT_PREDICTED)

    def cells_of(self, where: Places) -> tuple[Tensor, Tensor]:
        """See the base class; a cell of each group's map is one of its own."""
        batch_idx, place = where
        return torch.unique(batch_idx * (self.num_groups * self._cells) + place, return_inverse=True)

    def classes_in(self, cells: Tensor) -> Tensor:
        """See the base class."""
        places = self.num_groups * self._cells
        return self.classes_at((cells // places, cells % places))

    def groups_of(self, cells: Tensor) -> Tensor:
        """See the base class."""
        return cells % (self.num_groups * self._cells) // self._cells

    def groups_at(self, where: Places) -> Tensor:
        """See the base class."""
        return where[1] // self._cells

    # ------------------------------------------------------------------------------------------------------- objects

    @cached_property
    def foreground(self) -> Tensor | None:
        """See the base class: the height of the highest bell of a group's classes."""
        if self._targets is None:
            return None
        return torch.stack([bells.amax(dim=1) for bells in self._targets["heatmaps"]], dim=1).flatten(1)

    @cached_property
    def labels(self) -> Tensor | None:
        """See the base class: at the cells of centres, the class whose bell is at its top."""
        if self._targets is None:
            return None
        labels = self.foreground.new_zeros(self.foreground.shape, dtype=torch.int64)
        for i, group in enumerate(self._groups):
            inds, masks = self._targets["inds"][i].long(), self._targets["masks"][i].long()
            bells = self._targets["heatmaps"][i].flatten(2)
            column = bells.gather(2, inds[:, None].expand(-1, len(group), -1)).argmax(dim=1)
            ids = (constant(group, inds.device) + 1)[column] * masks
            labels.scatter_reduce_(1, i * self._cells + inds, ids, "amax")
        return labels

    def box_places(self, pivots: Places, weight: Tensor) -> BoxPlaces:
        """The cells of the objects' centres, each object once: only there does a head learn boxes."""
        inds, masks = (torch.stack([part.long() for part in self._targets[key]]) for key in ("inds", "masks"))
        group, batch_idx, slot = masks.nonzero(as_tuple=True)
        place = group * self._cells + inds[group, batch_idx, slot]
        return BoxPlaces((batch_idx, place), weight.new_ones(len(place)))

    # --------------------------------------------------------------------------------------------------------- boxes

    @cached_property
    @torch.enable_grad()
    def codes(self) -> Tensor:
        """(B, groups, codes, H, W) box codes, of the branch that has the group's classes."""
        branches = branches_of(self._head, self._like)
        order = self._head.code_names
        return torch.stack([torch.cat([self._predictions[b][name] for name in order], dim=1) for b in branches], dim=1)

    @property
    def code_weights(self) -> Tensor | None:
        """See the base class."""
        return constant(self._head.loss_weights.code_weights, self.classes.device, torch.float32)

    def codes_at(self, where: Places) -> Tensor:
        """See the base class."""
        batch_idx, place = where
        cell, width = place % self._cells, self.codes.shape[4]
        return self.codes[batch_idx, place // self._cells, :, cell // width, cell % width].float()

    def boxes_at(self, where: Places) -> Tensor:
        """See the base class."""
        return decode_boxes(self.codes_at(where), where[1] % self._cells, self._head.place)

    @property
    def _cells(self) -> int:
        """Of the map of a group."""
        return self.classes.shape[2] * self.classes.shape[3]

    @cached_property
    def _members(self) -> Tensor:
        """(groups, classes) which classes are in which group."""
        table = [[i in group for i in range(self.classes.shape[1])] for group in self._groups]
        return constant(table, self.classes.device, torch.bool)


def class_groups(head: nn.Module) -> list[list[int]]:
    """Numbers, from 0, of the classes of each branch of a centre head, in the order of its heat maps."""
    return [[i - 1 for i in ids] for ids in head.class_ids]


def branches_of(head: nn.Module, like: nn.Module) -> list[int] | None:
    """For each group of ``like``, the branch of ``head`` that has all its classes; None where one has not."""
    own = [set(group) for group in class_groups(head)]
    found = [next((i for i, one in enumerate(own) if one >= set(group)), None) for group in class_groups(like)]
    return None if None in found else found


def grid_of(head: nn.Module) -> Grid:
    """The cells of a centre head's maps, whose one layer has any height; to a hundredth of a millimetre."""
    place = head.place
    low = (*(round(corner, ROUNDED) for corner in place.origin), 0.0)
    size = (*(round(voxel * place.stride, ROUNDED) for voxel in place.voxel), 1.0)
    cells = (*place.shape[::-1], 1)
    high = tuple(a + n * step for a, n, step in zip(low, cells, size, strict=True))
    return Grid(low=low, high=high, size=size, shape=cells[::-1])


def _interpolated(logits: Tensor, own: Grid, cells: Grid) -> Tensor:
    """(B, C, h, w) logits of a map -> (B, C, H, W), those of its scores interpolated at the centres of other cells."""
    _, height, width = cells.shape
    index = torch.arange(height * width, device=logits.device)
    xyz = cells.centres(torch.stack([torch.zeros_like(index), index // width, index % width], dim=1))
    _, inside = own.cells_at(xyz)
    corners, weights = own.cells_around(torch.zeros_like(index), xyz)
    scores = logits.float().sigmoid().flatten(2)
    scores = sum(w * scores[:, :, corner] for corner, w in zip(corners.unbind(1), weights.unbind(1), strict=True))
    found = torch.logit(scores, eps=LEAST_SCORE).masked_fill(~inside, NOT_PREDICTED)
    return found.unflatten(2, (height, width))
