"""Seeded builders of inputs for tests and benchmarks."""

from __future__ import annotations

from pathlib import Path


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
