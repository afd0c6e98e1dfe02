"""Every data set class of the project; importing this registers them.

Not done in the package itself, so that ``python -m pcdet.datasets.kitti.kitti_dataset`` finds the module unimported.
"""

from pcdet.datasets.kitti.kitti_dataset import KittiDataset
from pcdet.datasets.nuscenes.nuscenes_dataset import NuScenesDataset

__all__ = ["KittiDataset", "NuScenesDataset"]
