"""A lidar simulator that writes KITTI and nuScenes folders: data for learning and testing without any.

No result on simulated data is a KITTI or a nuScenes result.
"""

from pcdet.datasets.simulated.nuscenes import write_nuscenes
from pcdet.datasets.simulated.writer import write_kitti

__all__ = ["write_kitti", "write_nuscenes"]
