"""Hard voxelisation equals spconv's Point2VoxelCPU3d, to the bit."""

import numpy as np
import pytest
import torch

from pcdet.ops.voxel import voxelize


@pytest.mark.parametrize("case", ["limits", "pillar", "nus5", "empty"])
def test_voxels_are_equal(goldens, device, case):
    with np.load(goldens / "reference" / "models" / "voxelise.npz", allow_pickle=False) as file:
        given = {key.split(".", 1)[1]: file[key] for key in file.files if key.startswith(f"{case}.")}
    points = torch.from_numpy(given["points"]).to(device)
    limits = int(given["max_points"]), int(given["max_voxels"])
    voxels, coords, num_points = voxelize(points, given["voxel_size"], given["range"], *limits)
    np.testing.assert_array_equal(voxels.cpu(), given["voxels"])
    np.testing.assert_array_equal(coords.cpu(), given["coords_zyx"])
    np.testing.assert_array_equal(num_points.cpu(), given["num_points"])
