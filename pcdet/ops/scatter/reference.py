"""Readable versions of the reductions over groups of rows: the specification that tests compare to."""

from __future__ import annotations

import torch
from torch import Tensor


def group_rows(index: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Order (N,) int64: rows by group and then by number, those of no group last; offsets (G + 1,) int64."""
    order = torch.where(index < 0, num_groups, index).argsort(stable=True)
    counts = torch.bincount(index[index >= 0], minlength=num_groups)
    return order, torch.nn.functional.pad(counts.cumsum(0), (1, 0))


def scatter_sum(src: Tensor, order: Tensor | None, offsets: Tensor) -> Tensor:
    """(N, C) -> (G, C) sums."""
    rows, group = _members(order, offsets)
    return src.new_zeros(len(offsets) - 1, src.shape[1]).index_add(0, group, src[rows])


def scatter_mean(src: Tensor, order: Tensor | None, offsets: Tensor) -> Tensor:
    """(N, C) -> (G, C) means; 0 for an empty group."""
    return scatter_sum(src, order, offsets) / offsets.diff().clamp(min=1)[:, None].to(src.dtype)


def scatter_max(src: Tensor, order: Tensor | None, offsets: Tensor) -> Tensor:
    """(N, C) -> (G, C) maxima, of which the first row that attains one has the gradient; 0 for an empty group."""
    rows, group = _members(order, offsets)
    members, num_groups = src[rows], len(offsets) - 1
    group, shape = group[:, None].expand_as(members), (num_groups, src.shape[1])
    largest = members.detach().new_zeros(shape).scatter_reduce(0, group, members.detach(), "amax", include_self=False)
    attains = (members == largest.gather(0, group)) | members.isnan()
    place = torch.arange(len(rows), device=src.device)[:, None].expand_as(members)
    first = torch.full(shape, len(rows), device=src.device)
    first = first.scatter_reduce(0, group, torch.where(attains, place, len(rows)), "amin")
    none = members.new_zeros(1, src.shape[1])  # what an empty group finds behind the last row
    return torch.cat((members, none)).gather(0, first)


def expand_groups(values: Tensor, order: Tensor | None, offsets: Tensor, num_rows: int) -> Tensor:
    """(G, C) -> (N, C): every row gets its group's values, a row of no group zeros."""
    rows, group = _members(order, offsets)
    return values.new_zeros(num_rows, values.shape[1]).index_copy(0, rows, values[group])


def _members(order: Tensor | None, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """(M,) rows group by group, and the group of each."""
    group = torch.arange(len(offsets) - 1, device=offsets.device).repeat_interleave(offsets.diff())
    rows = torch.arange(len(group), device=group.device) if order is None else order[: len(group)]
    return rows, group
