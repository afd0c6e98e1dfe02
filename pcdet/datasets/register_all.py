"""Every data set class of the project; importing this registers them.

Not done in the package itself, so that ``python -m pcdet.datasets.kitti.kitti_dataset`` finds the module unimported.
"""

from pcdet.datasets.kitti.kitti_dataset import KittiDataset

__all__ = ["KittiDataset"]
