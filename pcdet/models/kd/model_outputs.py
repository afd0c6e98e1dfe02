"""ModelOutputs: what a detector leaves for the losses. ModelPair: both detectors, while a loss is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from pcdet.models.feature_spec import MAPS
from pcdet.models.kd.features.feature import Feature, Voxels
from pcdet.models.kd.features.grid import Geometry
from pcdet.models.kd.features.matching import check_kinds
from pcdet.models.kd.features.tap_specs import channels_of_tap, check_places, find_spec, kind_of_tap
from pcdet.models.kd.graphs.sampling import COUNTS
from pcdet.models.kd.heads import HeadOutputs, read_head
from pcdet.registry import ConfigError


@dataclass(frozen=True)
class ModelOutputs:
    """A detector's taps and batch after its forward -> features and predictions.

    Attributes:
        detector: the teacher or the student.
        batch: its own batch_dict after the forward.
        taps: what was tapped, by name.
        geometry: where the grid lies.
        boxes: the final boxes of each frame, where they were asked for.
    """

    detector: nn.Module
    batch: dict[str, Any]
    taps: dict[str, Any]
    geometry: Geometry
    boxes: Sequence[Mapping[str, Tensor]] = ()

    @property
    def num_frames(self) -> int:
        """B."""
        return int(self.batch["batch_size"])

    def feature(self, name: str) -> Feature:
        """A tap as a set of rows.

        A 4-d tensor is a map over the whole range where its layer makes maps, ``point_features`` stand
        at ``point_coords``, a sparse tensor brings its own cells, and every other (V, C) tensor stands at
        ``voxel_coords``.

        Raises:
            ConfigError: the tap is none of these, such as a layer of a point network.
        """
        value, batch, spec = self.taps[name], self.batch, find_spec(self.detector, name)
        if hasattr(value, "spatial_shape") and hasattr(value, "indices"):
            strides = None if spec is None else [int(stride) for stride in spec.stride]
            return Feature.from_sparse(value, self.geometry, self.num_frames, Voxels.of(batch), strides)
        tensor = _tensor_of(value, name)
        is_map = spec.kind in MAPS if spec is not None else "." not in name  # a user's own hook may write an entry
        if tensor.dim() == 4 and is_map:
            return Feature.from_bev(tensor, self.geometry, Voxels.of(batch))
        if name == "point_features":
            return Feature.from_points(tensor, batch["point_coords"], self.num_frames)
        if tensor.dim() != 2 or "voxel_coords" not in batch:
            raise ConfigError(
                f"KD.LOSSES: where the rows of tap {name!r} {list(tensor.shape)} stand is not known; tap "
                "point_features, a map (B, C, H, W) of backbone_2d, a sparse tensor, or a row for each voxel (M, C)"
            )
        count = batch.get("voxel_num_points")
        return Feature.from_voxels(tensor, batch["voxel_coords"], self.geometry, self.num_frames, count)

    @cached_property
    def head(self) -> HeadOutputs:
        """The raw predictions of the dense head."""
        return read_head(self.detector.dense_head, self.taps)

    def score_at(self, feature: Feature) -> Tensor:
        """(M,) the best class score of the cell in which each row stands."""
        scores = self.head.score_map
        height, width = scores.shape[1:]
        if feature.dense is not None and feature.dense.shape[2:] == scores.shape[1:]:
            return scores.flatten()
        grid = self.geometry.map_grid(height, width)
        cells, _ = grid.cells_at(feature.xyz)
        return scores.flatten()[grid.flat(feature.batch_idx, cells)]


def _tensor_of(value: Any, name: str) -> Tensor:
    """The tensor behind a tapped value; ConfigError with what was found where there is none."""
    if isinstance(value, torch.Tensor):
        return value
    raise ConfigError(f"KD.LOSSES: tap {name!r} gives {type(value).__name__}, not a tensor; tap a layer inside it")


@dataclass(frozen=True)
class ModelPair:
    """Both detectors before any forward: what the constructor of a loss asks.

    Attributes:
        student: the student.
        teacher: the frozen teacher.
    """

    student: nn.Module
    teacher: nn.Module

    def channels(self, student_tap: str, teacher_tap: str) -> tuple[int, int]:
        """Channels of a tap of the student's and of one of the teacher's."""
        return channels_of_tap(self.student, student_tap), channels_of_tap(self.teacher, teacher_tap)

    def check_rows(self, student_tap: str, teacher_tap: str, *measures: str) -> None:
        """ValueError if it is known before the first step that the rows of two taps cannot be matched.

        Args:
            student_tap: read as rows.
            teacher_tap: read as rows.
            measures: of importance, taken of the teacher's rows.
        """
        check_places(self.student, student_tap)
        check_places(self.teacher, teacher_tap)
        check_kinds(kind_of_tap(self.student, student_tap), kind_of_tap(self.teacher, teacher_tap))
        counted = [by for by in measures if by in COUNTS]
        if counted and kind_of_tap(self.teacher, teacher_tap) == "point":
            raise ValueError(
                f"BY: {counted[0]} needs the number of points behind each row, but each row of the teacher's "
                f"{teacher_tap} is one point; use channel_max or channel_l2"
            )
