"""Ranks and gathering between processes; every function also works where there is only one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist


def is_distributed() -> bool:
    """Whether several processes can talk to each other."""
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Number of processes, over all machines."""
    return dist.get_world_size() if is_distributed() else 1


def get_rank() -> int:
    """Number of this process among all, 0 first."""
    return dist.get_rank() if is_distributed() else 0


def is_main_process() -> bool:
    """Whether this process logs and writes files."""
    return get_rank() == 0


def synchronize() -> None:
    """Waits until every process is here."""
    if get_world_size() > 1:
        dist.barrier()


def all_gather(data: Any) -> list[Any]:
    """What each process holds, by rank, on every process. ``data`` is anything that can be pickled."""
    if get_world_size() == 1:
        return [data]
    gathered = [None] * get_world_size()
    dist.all_gather_object(gathered, data)
    return gathered


def gather_to_main(data: Any) -> list[Any] | None:
    """What each process holds, by rank, on rank 0; None elsewhere."""
    if get_world_size() == 1:
        return [data]
    gathered = [None] * get_world_size() if is_main_process() else None
    dist.gather_object(data, gathered, dst=0)
    return gathered


def broadcast_from_main(data: Any) -> Any:
    """Rank 0's ``data``, on every process."""
    if get_world_size() == 1:
        return data
    holder = [data]
    dist.broadcast_object_list(holder, src=0)
    return holder[0]


def call_on_main(function: Callable[[], Any]) -> Any:
    """What ``function()`` returns on rank 0, on every process; an error there is raised on every process.

    So no process waits for a rank 0 that has failed. Result and error must be such as can be pickled.
    """
    if get_world_size() == 1:
        return function()
    result = failure = None
    if is_main_process():
        try:
            result = function()
        except Exception as error:  # raised below, here and elsewhere
            failure = error
    result, failure = broadcast_from_main((result, failure))
    if failure is not None:
        raise failure
    return result


def average_reduce_value(value: float) -> float:
    """Mean of a number over all processes."""
    values = all_gather(float(value))
    return sum(values) / len(values)


def reduce_dict(values: dict[str, torch.Tensor], average: bool = True) -> dict[str, torch.Tensor]:
    """Sum or mean over all processes of tensors by name, on every process, with one exchange; no gradient."""
    if get_world_size() == 1 or not values:
        return values
    names = sorted(values)
    stacked = torch.stack([values[name].detach().float() for name in names])
    dist.all_reduce(stacked)
    if average:
        stacked /= get_world_size()
    return dict(zip(names, stacked, strict=True))
