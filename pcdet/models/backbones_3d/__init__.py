"""3D backbones and, in ``vfe``, what turns points into voxel features."""

from pcdet.models.backbones_3d.pointnet2_backbone import PointNet2MSG
from pcdet.models.backbones_3d.spconv_backbone import VoxelBackBone8x, VoxelResBackBone8x

__all__ = ["PointNet2MSG", "VoxelBackBone8x", "VoxelResBackBone8x"]
