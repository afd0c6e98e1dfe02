"""Builds a data set with its loader."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed
from torch.utils.data import DataLoader

from pcdet.datasets.class_counts import report_class_counts
from pcdet.datasets.dataset import DatasetTemplate
from pcdet.datasets.seeding import EpochSampler, draw_seed, seed_worker
from pcdet.registry import DATASETS


def build_dataset(
    dataset_cfg: dict,
    class_names: Sequence[str],
    training: bool,
    root_path: str | Path | None = None,
    logger: logging.Logger | None = None,
) -> DatasetTemplate:
    """The data set that DATA_CONFIG.DATASET names."""
    cls = DATASETS.get(dataset_cfg["DATASET"], "DATA_CONFIG.DATASET")
    return cls(dataset_cfg=dataset_cfg, class_names=class_names, root_path=root_path, training=training, logger=logger)


def build_dataloader(
    dataset_cfg: dict,
    class_names: Sequence[str],
    batch_size: int,
    dist: bool,
    root_path: str | Path | None = None,
    workers: int = 4,
    seed: int | None = None,
    logger: logging.Logger | None = None,
    training: bool = True,
    merge_all_iters_to_one_epoch: bool = False,
    total_epochs: int = 0,
) -> tuple[DatasetTemplate, DataLoader, EpochSampler]:
    """A data set, its loader and its sampler.

    Call ``set_epoch`` of both the data set and the sampler before each epoch.

    Args:
        dataset_cfg: DATA_CONFIG.
        class_names: classes in the order of their numbers.
        batch_size: of this process.
        dist: whether torch.distributed runs; the samples are then divided among its processes.
        root_path: folder of the data; DATA_PATH by default.
        workers: loading processes; 0 loads in this one.
        seed: of order and augmentation; without one it is drawn and logged in training, and 0 in testing.
        logger: for what is found and missing.
        training: whether samples are augmented and shuffled, and which split is read.
        merge_all_iters_to_one_epoch: make one epoch of ``total_epochs``.
        total_epochs: how many.

    Raises:
        DataError: the data are missing or malformed, or no object of a training split belongs to ``class_names``.
    """
    logger = logger or logging.getLogger("pcdet")
    dataset = build_dataset(dataset_cfg, class_names, training, root_path, logger)
    report_class_counts(dataset, logger)
    if merge_all_iters_to_one_epoch:
        dataset.merge_all_iters_to_one_epoch(merge=True, epochs=total_epochs)
    rank, world_size = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if dist else (0, 1)
    seed = _common_seed(training, dist, logger) if seed is None else seed
    dataset.set_seed(seed, rank)
    sampler = EpochSampler(len(dataset), shuffle=training, seed=seed, rank=rank, world_size=world_size)
    return dataset, _loader_of(dataset, sampler, batch_size, workers), sampler


def _loader_of(dataset: DatasetTemplate, sampler: EpochSampler, batch_size: int, workers: int) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=dataset.collate_batch,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=seed_worker,
    )


def _common_seed(training: bool, dist: bool, logger: logging.Logger) -> int:
    """A seed that every process shares: drawn and logged in training, 0 in testing."""
    if not training:
        return 0
    seeds = [draw_seed()]
    if dist:
        torch.distributed.broadcast_object_list(seeds, src=0)
    logger.info(f"No seed was given; drew {seeds[0]} for order and augmentation")
    return seeds[0]
