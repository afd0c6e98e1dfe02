"""Helpers that every layer shares: angles, rotations, range masks, logging, seeds, and moving a batch to a device."""

from __future__ import annotations

import contextlib
import logging
import random
import sys
from pathlib import Path

import numpy as np
import torch

from pcdet.utils.transfer import upload

LOG_FORMAT = "%(asctime)s  %(levelname)5s  %(message)s"

# Entries of a batch that stay as numpy arrays or lists of Python objects.
HOST_ONLY_KEYS = frozenset({"frame_id", "metadata", "calib", "image_paths", "ori_shape", "img_process_infos"})


def check_numpy_to_torch(x):
    """Returns ``(tensor, was_numpy)``; numpy arrays become float32 tensors."""
    if isinstance(x, np.ndarray):
        return torch.from_numpy(x).float(), True
    return x, False


def limit_period(val, offset: float = 0.5, period: float = np.pi):
    """Wraps angles into ``[-offset * period, (1 - offset) * period)``; numpy or torch, same type out.

    Formula: v - floor(v / period + offset) * period.
    """
    if isinstance(val, torch.Tensor):
        return val - torch.floor(val / period + offset) * period
    return val - np.floor(val / period + offset) * period


def rotate_points_along_z(points, angle):
    """Points turned counter-clockwise (x towards y) about the z axis.

    Args:
        points: (B, N, 3 + C), metres; extra columns are kept as they are. Numpy or torch.
        angle: (B,) radians.

    Returns:
        (B, N, 3 + C), the type of ``points``.
    """
    if isinstance(points, np.ndarray):
        cos, sin = np.cos(angle), np.sin(angle)
        turned = points.copy()
    else:
        cos, sin = torch.cos(angle), torch.sin(angle)
        turned = points.clone()
    cos, sin = cos[:, None], sin[:, None]
    turned[..., 0] = points[..., 0] * cos - points[..., 1] * sin
    turned[..., 1] = points[..., 0] * sin + points[..., 1] * cos
    return turned


def mask_points_by_range(points, limit_range):
    """(N,) bool: which points lie in the range's x and y limits, both ends included. z is left to the voxeliser.

    Args:
        points: (N, 3 + C), metres; numpy or torch.
        limit_range: [x_min, y_min, z_min, x_max, y_max, z_max].
    """
    return (
        (points[:, 0] >= limit_range[0])
        & (points[:, 0] <= limit_range[3])
        & (points[:, 1] >= limit_range[1])
        & (points[:, 1] <= limit_range[4])
    )


def get_voxel_centers(voxel_coords, downsample_times, voxel_size, point_cloud_range):
    """Centres of voxels in metres.

    Args:
        voxel_coords: (N, 3) [z, y, x] indices.
        downsample_times: stride of the grid the indices belong to.
        voxel_size: (3,) [x, y, z] at stride one.
        point_cloud_range: (6,).

    Returns:
        (N, 3) [x, y, z] float32.
    """
    size = torch.as_tensor(voxel_size, device=voxel_coords.device).float() * downsample_times
    low = torch.as_tensor(point_cloud_range[0:3], device=voxel_coords.device).float()
    return (voxel_coords[:, [2, 1, 0]].float() + 0.5) * size + low


class _TellsOnce:
    """A handler that says once that it cannot write, as on a full disk, and tries again with the next line."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, D102 (logging's name)
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        if not self.failed:
            self.failed = True
            target = getattr(self, "baseFilename", "the terminal")
            text = f"log lines cannot be written to {target}: {error.strerror or error}; those lost are not told again"
            with contextlib.suppress(OSError):  # the terminal may be a file on the same disk
                print(f"WARNING: {text}", file=sys.stderr, flush=True)


class _Terminal(_TellsOnce, logging.StreamHandler):
    """Standard output."""


class _LogFile(_TellsOnce, logging.FileHandler):
    """The log file of a run."""


def create_logger(log_file: str | Path | None = None, rank: int = 0, log_level: int = logging.INFO) -> logging.Logger:
    """Logger of the tools: terminal on rank 0, plus ``log_file`` where one is given. Other ranks log errors only."""
    logger = logging.getLogger("pcdet")
    logger.setLevel(log_level if rank == 0 else logging.ERROR)
    logger.propagate = False
    for old in list(logger.handlers):
        logger.removeHandler(old)
        old.close()
    handlers: list[logging.Handler] = [_Terminal(sys.stdout)]
    if log_file is not None and rank == 0:
        handlers.append(_LogFile(log_file))
    for handler in handlers:
        handler.setFormatter(logging.Formatter(LOG_FORMAT))
        logger.addHandler(handler)
    return logger


def set_random_seed(seed: int) -> None:
    """Seeds Python, numpy and torch (every device) with one number and asks cuDNN for deterministic kernels."""
    seed_generators(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def seed_generators(seed: int) -> None:
    """Seeds Python, numpy and torch (every device) with one number."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def batch_to_device(batch_dict: dict, device: torch.device | str) -> dict:
    """Turns the numeric arrays of a collated batch into tensors on ``device``, in place, and returns the batch.

    As in OpenPCDet every array becomes float32, voxel coordinates and counts included; ``image_shape`` becomes int32;
    the entries in ``HOST_ONLY_KEYS`` and plain Python values stay as they are.
    """
    for key, value in batch_dict.items():
        if key in HOST_ONLY_KEYS or not isinstance(value, np.ndarray):
            continue
        dtype = torch.int32 if key == "image_shape" else torch.float32
        batch_dict[key] = upload(torch.from_numpy(value).to(dtype), device)
    return batch_dict
