"""3D backbones and, in ``vfe``, what turns points into voxel features."""

from pcdet.models.backbones_3d.spconv_backbone import VoxelBackBone8x, VoxelResBackBone8x

__all__ = ["VoxelBackBone8x", "VoxelResBackBone8x"]
