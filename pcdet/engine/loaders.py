"""Loaders over a part of what another one gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch.utils.data import DataLoader


def remaining(loader: Iterable, skip: int) -> Iterable:
    """``loader`` without its first ``skip`` batches; a DataLoader does not load what is skipped."""
    if skip == 0:
        return loader
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None:
        return _drop(loader, skip)
    return like_loader(loader, list(loader.batch_sampler)[skip:])


def like_loader(loader: DataLoader, batches: Sequence[Sequence[int]]) -> DataLoader:
    """A loader of the same data set and settings over given batches of indices."""
    return DataLoader(
        loader.dataset,
        batch_sampler=batches,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
    )


def _drop(loader: Iterable, skip: int) -> Iterator:
    batches = iter(loader)
    for _ in range(skip):
        next(batches)
    yield from batches
