"""Data sets: load a frame, transform it, collate; and the loaders over them."""

from pcdet.datasets.dataset import DatasetTemplate
from pcdet.datasets.loader import build_dataloader, build_dataset

__all__ = ["DatasetTemplate", "build_dataloader", "build_dataset"]
