"""3D backbones and, in ``vfe``, what turns points into voxel features."""
