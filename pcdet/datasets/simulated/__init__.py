"""A lidar simulator that writes KITTI folders: data for learning and testing the pipeline on a machine without any.

No result on simulated data is a KITTI result.
"""

from pcdet.datasets.simulated.writer import write_kitti

__all__ = ["write_kitti"]
