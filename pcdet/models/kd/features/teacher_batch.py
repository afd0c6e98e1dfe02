"""The batches of a teacher whose grid differs from the student's: its voxels, made of the student's points."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcdet.models.kd.features.grid import Geometry
from pcdet.ops.voxel import voxelize
from pcdet.registry import PROCESSORS, ConfigError, build_from_cfg

GRIDS = ("transform_points_to_voxels", "transform_points_to_voxels_placeholder", "calculate_grid_size")
SAMPLING = "sample_points"
VOXEL_LIMIT = "MAX_NUMBER_OF_VOXELS"


@dataclass(frozen=True, kw_only=True)
class TeacherData:
    """What the teacher is built for in place of a data set, read from its file; see ``Detector3DTemplate``."""

    class_names: Sequence[str]
    point_cloud_range: np.ndarray
    voxel_size: Sequence[float] | None
    grid_size: np.ndarray | None
    point_feature_encoder: Any
    depth_downsample_factor: int | None = None


@dataclass(frozen=True)
class TeacherInput:
    """Turns the student's batches into the teacher's.

    Attributes:
        facts: what the teacher is built for.
        voxelizer: its step ``transform_points_to_voxels``, with the limits of training; None if it has no voxels.
    """

    facts: TeacherData
    voxelizer: Any

    @property
    def geometry(self) -> Geometry:
        """Where the teacher's voxels lie."""
        return Geometry.of(self.facts)

    def __call__(self, batch_dict: dict[str, Any]) -> dict[str, Any]:
        """A copy of the batch with the teacher's voxels.

        Reads: ``points`` (N, 1 + C) [batch_idx, x, y, z, ...], as they are after augmentation; ``batch_size``.
        Writes: ``voxels`` (V, P, C), ``voxel_coords`` (V, 4) [batch_idx, z, y, x], ``voxel_num_points`` (V,).
        """
        teacher_batch = {key: value for key, value in batch_dict.items() if not key.startswith("voxel")}
        if self.voxelizer is None:
            return teacher_batch
        points = teacher_batch.get("points")
        if points is None:
            raise ConfigError(
                "KD.TEACHER.CFG: the teacher's voxels differ from the student's and are made of the batch's points, "
                "but the batch has none; keep 'points' in it, or give the teacher the student's DATA_PROCESSOR"
            )
        frames = _frames_of(points, int(teacher_batch["batch_size"]))
        parts = [self._voxels(frame, batch_idx) for batch_idx, frame in enumerate(frames)]
        for key, values in zip(("voxels", "voxel_coords", "voxel_num_points"), zip(*parts, strict=True), strict=True):
            teacher_batch[key] = torch.cat(values)
        return teacher_batch

    def _voxels(self, points: Tensor, batch_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        step = self.voxelizer
        voxels, coords, count = voxelize(
            points.contiguous(), step.voxel_size, step.point_cloud_range, step.max_points, step.max_voxels
        )
        coords = torch.nn.functional.pad(coords.float(), (1, 0), value=batch_idx)
        return voxels, coords, count.float()


def teacher_input(
    cfg: Mapping, student_cfg: Mapping, dataset: Any, logger: logging.Logger | None = None
) -> TeacherInput | None:
    """How the student's batches become the teacher's, or None where they are the same.

    Args:
        cfg: the teacher's whole configuration.
        student_cfg: the student's.
        dataset: the student's.
        logger: is told where the teacher gets another number of points than it was made for.

    Raises:
        ConfigError: the teacher needs points that the student's batches do not have.
    """
    data, student_data = cfg.get("DATA_CONFIG"), student_cfg.get("DATA_CONFIG")
    if not data or not student_data:
        return None
    _check_points(data, student_data, logger or logging.getLogger("pcdet"))
    if _layout(data) == _layout(student_data):
        return None
    encoder = dataset.point_feature_encoder
    limits = np.array(data["POINT_CLOUD_RANGE"], dtype=np.float32)
    steps = [
        build_from_cfg(
            node,
            PROCESSORS,
            path=f"{cfg.get('TAG', 'teacher')}: DATA_CONFIG.DATA_PROCESSOR",
            point_cloud_range=limits,
            training=True,
            mode="train",
            num_point_features=encoder.num_point_features,
        )
        for node in _steps(data, GRIDS)
    ]
    facts = TeacherData(
        class_names=dataset.class_names,
        point_cloud_range=limits,
        voxel_size=steps[-1].voxel_size if steps else None,
        grid_size=steps[-1].grid_size if steps else None,
        point_feature_encoder=encoder,
        depth_downsample_factor=getattr(dataset, "depth_downsample_factor", None),
    )
    return TeacherInput(facts, next((step for step in steps if hasattr(step, "max_voxels")), None))


def _check_points(data: Mapping, student_data: Mapping, logger: logging.Logger) -> None:
    """ConfigError if the teacher cannot read the student's points; a warning if it was made for more or fewer."""
    columns = _columns(data), _columns(student_data)
    sampled = _num_points(data), _num_points(student_data)
    problems = []
    if columns[0] and columns[0] != columns[1]:
        problems.append(
            f"KD.TEACHER.CFG: the teacher's point columns {columns[0]} must be the student's, whose points it gets; "
            f"found {columns[1] or 'none'}"
        )
    if sampled[0] is not None and sampled[1] is None:
        problems.append(
            f"KD.TEACHER.CFG: the teacher takes {sampled[0]} sampled points a frame, and the student, whose points it "
            f"gets, has no step {SAMPLING}; give the student's DATA_PROCESSOR one"
        )
    if problems:
        raise ConfigError(problems)
    if sampled[0] is not None and sampled[0] != sampled[1]:
        logger.warning(
            "KD.TEACHER.CFG: the teacher was made for %d sampled points a frame (-1: all), but sees the student's %d; "
            "its features are those of another density. NUM_POINTS should be the same",
            *sampled,
        )


def _layout(data: Mapping) -> tuple[list[float], list[dict]]:
    """What decides a detector's voxels in training."""
    steps = _steps(data, GRIDS)
    for step in steps:
        if VOXEL_LIMIT in step:
            step[VOXEL_LIMIT] = step[VOXEL_LIMIT]["train"]
    return list(data["POINT_CLOUD_RANGE"]), steps


def _steps(data: Mapping, names: tuple[str, ...]) -> list[dict]:
    return [dict(node) for node in data["DATA_PROCESSOR"] if node["NAME"] in names]


def _columns(data: Mapping) -> list[str]:
    return list((data.get("POINT_FEATURE_ENCODING") or {}).get("used_feature_list") or [])


def _num_points(data: Mapping) -> int | None:
    """Points that are sampled of a frame in training, -1 for all; None without such a step."""
    return next((int(step["NUM_POINTS"]["train"]) for step in _steps(data, (SAMPLING,))), None)


def _frames_of(points: Tensor, num_frames: int) -> list[Tensor]:
    """(N, 1 + C) points, frame after frame -> the (n, C) points of each frame."""
    sizes = torch.bincount(points[:, 0].long(), minlength=num_frames).tolist()
    return list(points[:, 1:].split(sizes))
