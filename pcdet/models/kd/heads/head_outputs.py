"""HeadOutputs: the raw predictions of a dense head, read by place; what every kind of head answers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NOT_PREDICTED = -1e4  # logit of a class that a place does not predict: a probability of 0, and finite in differences
Places = tuple[Tensor, Tensor]  # (n,) frame and (n,) number of each place


class BoxPlaces(NamedTuple):
    """Where box codes are compared, and how much each place counts."""

    places: Places
    weight: Tensor


class HeadOutputs:
    """Raw predictions of a head, read by place or by cell without copying the maps.

    A place has box codes of its own: an anchor (``AnchorOutputs``, ``BranchOutputs``), or a cell in the map of a group
    of classes (``CenterOutputs``). Places have numbers within a frame; a cell holds the places that share one set of
    features.

    Attributes:
        num_frames: B.
        num_groups: groups of classes that have places of their own; 1 for anchors.
        code_weights: (codes,) by which the head's own loss weighs the columns of its codes; None: all alike.
        labels: (B, places) class, from 1, of the object that each place is to predict, 0 or less for none; None if the
            head has not assigned its targets.
    """

    num_frames: int
    num_groups: int = 1
    code_weights: Tensor | None = None
    labels: Tensor | None

    @property
    def score_map(self) -> Tensor:
        """(B, H, W) the best class score of a cell, in [0, 1]."""
        raise NotImplementedError

    @property
    def maps(self) -> tuple[Tensor, ...]:
        """The tensors that the head's layers put out, with their graph."""
        raise NotImplementedError

    @property
    def foreground(self) -> Tensor | None:
        """(B, places) in [0, 1] how much each place belongs to an object; None as for ``labels``."""
        raise NotImplementedError

    def best_logits(self) -> Tensor:
        """(B, places) the largest class logit of each place."""
        raise NotImplementedError

    def classes_at(self, where: Places) -> Tensor:
        """(n, classes) logits, float32; ``NOT_PREDICTED`` for classes that a place does not predict."""
        raise NotImplementedError

    def cells_of(self, where: Places) -> tuple[Tensor, Tensor]:
        """(m,) numbers of the cells of places in the batch, each once, and (n,) which of them each place is in."""
        raise NotImplementedError

    def classes_in(self, cells: Tensor) -> Tensor:
        """(m, classes of all places of a cell) logits of cells of ``cells_of``, float32."""
        raise NotImplementedError

    def groups_of(self, cells: Tensor) -> Tensor:
        """(m,) the group of each cell of ``cells_of``."""
        return torch.zeros_like(cells)

    def groups_at(self, where: Places) -> Tensor:
        """(n,) the group of each place."""
        return torch.zeros_like(where[1])

    def box_places(self, pivots: Places, weight: Tensor) -> BoxPlaces:
        """Where boxes are compared: these pivots with their weights, or others that the head has boxes for."""
        return BoxPlaces(pivots, weight)

    def codes_at(self, where: Places) -> Tensor:
        """(n, codes) box codes, float32."""
        raise NotImplementedError

    def boxes_at(self, where: Places) -> Tensor:
        """(n, 7 + C) boxes that the codes stand for, float32; headings as coded, before any direction classifier."""
        raise NotImplementedError
