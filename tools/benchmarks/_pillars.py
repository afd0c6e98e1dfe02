"""What benchmarks of PointPillars share: a batch as the loader hands it over, and a data set's facts."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import torch

from pcdet.ops.voxel.voxel_utils import voxelize
from pcdet.testing import random_boxes, random_cloud

SLOTS, MAX_VOXELS, OBJECTS = 32, 16000, 16  # points a pillar, pillars a frame, objects a frame
SIZES = torch.tensor([[3.9, 1.6, 1.56], [0.8, 0.6, 1.73], [1.76, 0.6, 1.73]])


def pillar_batch(
    frames: int, points: int, limits: Sequence[float], voxel_size: Sequence[float], device: torch.device
) -> dict:
    """Pillars and ground-truth boxes of random clouds, as a training batch_dict.

    Args:
        frames: B.
        points: of each cloud.
        limits: [x, y, z, x, y, z] range, metres.
        voxel_size: [dx, dy, dz].
        device: where it goes.
    """
    parts = []
    for i in range(frames):
        voxels, coords, count = voxelize(random_cloud(points, seed=i), voxel_size, limits, SLOTS, MAX_VOXELS)
        parts.append((voxels, torch.nn.functional.pad(coords, (1, 0), value=i), count))
    middle, reach = (limits[0] + limits[3]) / 2, (limits[3] - limits[0]) * 0.44
    boxes = random_boxes(OBJECTS * frames, extent=reach, seed=9)
    label = torch.arange(len(boxes)) % 3
    boxes[:, 0] += middle
    boxes[:, 2], boxes[:, 3:6] = -0.9, SIZES[label]
    names = ("voxels", "voxel_coords", "voxel_num_points")
    batch = {name: torch.cat(p).float().to(device) for name, p in zip(names, zip(*parts, strict=True), strict=True)}
    boxes = torch.cat((boxes, label[:, None] + 1.0), dim=1)
    return {**batch, "gt_boxes": boxes.view(frames, OBJECTS, 8).to(device), "batch_size": frames}


def facts(class_names: Sequence[str], limits: Sequence[float], voxel_size: Sequence[float]) -> SimpleNamespace:
    """What a network's constructor reads of a data set."""
    cells = [round((limits[i + 3] - limits[i]) / voxel_size[i]) for i in range(3)]
    return SimpleNamespace(
        class_names=list(class_names),
        point_cloud_range=list(limits),
        voxel_size=list(voxel_size),
        grid_size=cells,
        point_feature_encoder=SimpleNamespace(num_point_features=4),
    )
