"""Which cells of a map lie on which object."""

from __future__ import annotations

import torch
from torch import Tensor

from pcdet.models.kd.features.feature import Feature
from pcdet.models.kd.graphs.sampling import on_boxes


@torch.no_grad()
def object_cells(feature: Feature, gt_boxes: Tensor) -> Tensor:
    """The cells on every object: those whose centre is on its ground area, and the one that its own centre lies in.

    So an object smaller than a cell has one.

    Args:
        feature: a map, B frames of H x W cells.
        gt_boxes: (B, T, 7 or more) [x, y, z, dx, dy, dz, heading, ...]; rows of zeros are padding.

    Returns:
        (B, T, H * W) bool; none for padding, and for objects outside the range.
    """
    frames, objects = gt_boxes.shape[:2]
    height, width = feature.source.shape[2:]
    boxes = gt_boxes.flatten(0, 1).float()
    centres = feature.xyz[: height * width]  # all frames have the same cells
    on = on_boxes(centres, boxes).T.contiguous()
    cells, _ = feature.grid.cells_at(boxes[:, :3])
    low, high = (boxes.new_tensor(limit[:2]) for limit in (feature.grid.low, feature.grid.high))
    inside = ((boxes[:, :2] >= low) & (boxes[:, :2] <= high)).all(dim=1)
    on[torch.arange(len(boxes), device=boxes.device), cells[:, 1] * width + cells[:, 2]] |= inside
    on &= (boxes[:, 3] > 0)[:, None]
    return on.view(frames, objects, height * width)
