"""Order and randomness of samples, derived from (seed, epoch, rank, index) alone.

The same seed gives the same batches whatever the number of workers, and another epoch or rank gives others.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler

from pcdet.utils.parent_death import die_with_parent

ORDER, SAMPLE, WORKER, RESAMPLING, SWEEPS = range(5)  # what a generator is for; keeps their streams apart


def draw_seed() -> int:
    """A seed from the machine's entropy."""
    return secrets.randbits(31)


def generator_for(purpose: int, seed: int, *key: int) -> np.random.Generator:
    """The generator of one purpose, seed and key (epoch, rank, index, ...)."""
    return np.random.default_rng([purpose, seed, *key])


class EpochSampler(Sampler[int]):
    """Indices of one process for one epoch; all processes together visit every sample once.

    Where the number of samples is no multiple of the number of processes, the first ones are visited again, so that all
    have equally many. Process r takes every ``world_size``-th index from the r-th.

    Args:
        length: number of samples.
        shuffle: a new order each epoch, the same in every process.
        seed: of the order.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(self, length: int, *, shuffle: bool, seed: int, rank: int = 0, world_size: int = 1):
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in [0, {world_size}), got {rank}")
        self.length, self.shuffle, self.seed = length, shuffle, seed
        self.rank, self.num_replicas, self.epoch = rank, world_size, 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.length // self.num_replicas)

    def __iter__(self) -> Iterator[int]:
        order = np.arange(self.length)
        if self.shuffle:
            order = generator_for(ORDER, self.seed, self.epoch).permutation(self.length)
        padded = np.resize(order, len(self) * self.num_replicas) if self.length else order
        return iter(padded[self.rank :: self.num_replicas].tolist())


def seed_worker(worker_id: int) -> None:
    """Seeds the global generators of a loader's worker by (seed, epoch, rank, worker); it ends with its parent.

    The project's own augmentors do not use these generators; modules of a user may.
    """
    die_with_parent()
    dataset = torch.utils.data.get_worker_info().dataset
    key = (getattr(dataset, name, 0) or 0 for name in ("seed", "epoch", "rank"))
    seed = int(generator_for(WORKER, *key, worker_id).integers(2**32))
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
