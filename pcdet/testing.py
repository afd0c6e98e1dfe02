"""Seeded builders of inputs for tests and benchmarks."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor


def tiny_kitti(root: str | Path, frames: int = 6, seed: int = 0, *, images: bool = False) -> Path:
    """A KITTI-layout folder of a few simulated frames: velodyne, calib, label_2, planes and ImageSets, 15 ms a frame.

    Args:
        root: the folder to write.
        frames: how many; a third of them, at least one, form the val split.
        seed: another seed, other scenes.
        images: render image_2 too (40 ms a frame more).

    Returns:
        ``root`` as a path.
    """
    from pcdet.datasets.simulated import write_kitti  # tests of single ops need no data sets

    val_frames = max(1, frames // 3)
    return write_kitti(root, frames=frames, seed=seed, workers=1, images=images, val_frames=val_frames, progress=False)


def random_boxes(
    n: int,
    device: torch.device | str = "cpu",
    seed: int = 0,
    *,
    extent: float = 10.0,
    objects: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(n, 7) boxes [x, y, z, dx, dy, dz, heading] of the size of cars and people, with any heading.

    Args:
        n: how many.
        device: where the tensor goes; the numbers do not depend on it.
        seed: another seed, other boxes.
        extent: centres lie within +-extent metres in x and y, within 1 m in z.
        objects: None for independent boxes; otherwise the boxes scatter closely about so many objects, as a detector's
            do before suppression.
        dtype: float32 or float64.
    """
    generator = torch.Generator().manual_seed(seed)
    low = torch.tensor([-extent, -extent, -1, 0.5, 0.5, 0.5, -math.pi], dtype=torch.float64)
    high = torch.tensor([extent, extent, 1, 5, 3, 2, math.pi], dtype=torch.float64)
    boxes = low + (high - low) * torch.rand(objects or n, 7, generator=generator, dtype=torch.float64)
    if objects is not None:
        boxes = boxes[torch.randint(objects, (n,), generator=generator)]
        boxes = boxes + torch.randn(n, 7, generator=generator, dtype=torch.float64) * 0.1
        boxes[:, 3:6].clamp_(min=0.3)
    return boxes.to(device, dtype)


def random_cloud(
    n: int,
    device: torch.device | str = "cpu",
    seed: int = 0,
    *,
    channels: int = 4,
    azimuth: float = math.pi / 4,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(n, channels) points [x, y, z, features in [0, 1)...] in the order and with the density of a 64-beam scan.

    Flat ground 1.73 m below the sensor, half of the rays cut short by something nearer.

    Args:
        n: how many.
        device: where the tensor goes; the numbers do not depend on it.
        seed: another seed, other points.
        channels: at least 3.
        azimuth: half the horizontal opening, radians; pi for a full turn.
        dtype: float32 or float64.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    beam = torch.arange(n) * 64 // max(n, 1)
    step = torch.arange(n, dtype=torch.float64) * 64 / max(n, 1) - beam
    elevation, turn = torch.deg2rad(-24.8 + beam * 26.8 / 63), azimuth * (2 * step - 1)
    reach = (1.73 / (-elevation.sin()).clamp(min=0.02)).clamp(max=80)
    reach = reach * torch.where(uniform(n) < 0.5, 0.3 + 0.7 * uniform(n), 1.0) + 0.02 * uniform(n)
    flat = reach * elevation.cos()
    xyz = torch.stack([flat * turn.cos(), flat * turn.sin(), reach * elevation.sin()], dim=1)
    return torch.cat([xyz, uniform(n, channels - 3)], dim=1).to(device, dtype)
