"""Readable pure-PyTorch version of the op in this folder: the specification that tests compare to."""

from __future__ import annotations

import torch
from torch import Tensor

from pcdet.ops.roiaware_pool3d.reference import points_in_boxes_mask


def roipoint_pool3d(points: Tensor, features: Tensor, boxes: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Pooled (B, M, num, 3 + C) and empty flags (B, M) int32; see ``RoIPointPool3d``."""
    table = torch.cat([points, features], dim=2)
    pooled = table.new_zeros(*boxes.shape[:2], num, table.shape[2])
    empty = torch.ones(boxes.shape[:2], dtype=torch.int32, device=boxes.device)
    for frame in range(len(boxes)):
        for m, inside in enumerate(points_in_boxes_mask(points[frame], boxes[frame], margin=1e-5)):
            rows = inside.nonzero()[:num, 0]
            if len(rows):
                pooled[frame, m] = table[frame, rows[torch.arange(num, device=rows.device) % len(rows)]]
                empty[frame, m] = 0
    return pooled, empty
