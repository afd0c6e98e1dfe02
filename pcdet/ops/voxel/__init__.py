from pcdet.ops.voxel.voxel_utils import voxelize

__all__ = ["voxelize"]
