"""Random changes to training samples. Importing this registers every augmentor under its YAML name."""

from pcdet.datasets.augmentor import frustum_dropout, local, pyramid, world
from pcdet.datasets.augmentor.data_augmentor import DataAugmentor
from pcdet.datasets.augmentor.database_sampler import DataBaseSampler

__all__ = ["DataAugmentor", "DataBaseSampler", "frustum_dropout", "local", "pyramid", "world"]
