from pcdet.ops.voxel.dynamic_voxels import DynamicVoxels, dynamic_voxelize
from pcdet.ops.voxel.voxel_utils import voxelize

__all__ = ["DynamicVoxels", "dynamic_voxelize", "voxelize"]
