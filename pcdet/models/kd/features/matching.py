"""Which row of the teacher stands where each row of the student does."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from pcdet.models.kd.features.feature import Feature, rows_of
from pcdet.ops.knn import knn


class MatchedFeatures(NamedTuple):
    """A student's and a teacher's rows, one of each at every common position.

    Attributes:
        student: its rows.
        teacher: as many rows, standing where the student's do.
        teacher_rows: (n,) which of the teacher's rows these are, or lie in on a map; None for all, in order.
        share: how many of the student's rows have a match, as a fraction; None where the sets are the same.
    """

    student: Feature
    teacher: Feature
    teacher_rows: Tensor | None = None
    share: Tensor | None = None

    @property
    def logs(self) -> dict[str, Tensor]:
        """What to log of it."""
        return {} if self.share is None else {"matched": self.share}


def check_kinds(student: str, teacher: str) -> None:
    """ValueError if rows of these kinds (``FeatureSpec.kind``) have no match, or only by chance."""
    maps = ("map", "stage")
    if student in maps and teacher not in maps:
        raise ValueError(
            f"the student's tap is a map and the teacher's a set of {teacher}s, which has no row for most cells; give "
            "TEACHER_FEATURE a map too (spatial_features, spatial_features_2d)"
        )
    if student == "pillar" and teacher == "voxel":
        raise ValueError(
            "the student's tap is a set of pillars and the teacher's of voxels; of their column, a pillar would meet "
            "the one at half its height; give TEACHER_FEATURE a map, which holds the column (spatial_features, "
            "spatial_features_2d)"
        )


@torch.no_grad()
def match_rows(student: Feature, teacher: Feature) -> MatchedFeatures:
    """Two features -> the same rows of both, paired by position.

    The same cells or points are paired in order. Otherwise each of the student's rows is paired with the teacher's
    voxel that its centre lies in, the nearest of the teacher's points, or the teacher's map interpolated there. Rows
    outside the teacher's range and rows in voxels that the teacher does not have are left out.

    Raises:
        ValueError: the frames differ in number, or the rows are of kinds that cannot be matched.
    """
    if student.num_frames != teacher.num_frames:
        raise ValueError(f"the student has {student.num_frames} frames and the teacher {teacher.num_frames}")
    if _same(student, teacher):
        return MatchedFeatures(student, teacher)
    check_kinds(student.kind, teacher.kind)
    teacher_rows = _rows_at(teacher, student)
    matched = teacher_rows >= 0
    share = matched.float().mean() if len(matched) else matched.new_ones((), dtype=torch.float32)
    student_rows, teacher_rows = matched.nonzero().squeeze(1), teacher_rows[matched]
    student = student.select(student_rows)
    # The student's positions, which are all different: several of its rows may have the same match.
    paired = replace(teacher.select(teacher_rows), xyz=student.xyz)
    if teacher.dense is not None:
        paired = replace(paired, around=teacher.grid.cells_around(student.batch_idx, student.xyz))
    return MatchedFeatures(student, paired, teacher_rows, share)


def _same(student: Feature, teacher: Feature) -> bool:
    """Whether both have the same rows in the same order."""
    if len(student) != len(teacher) or student.grid != teacher.grid:
        return False
    if student.grid is None:
        return torch.equal(student.xyz, teacher.xyz) and torch.equal(student.batch_idx, teacher.batch_idx)
    both_maps = student.dense is not None and teacher.dense is not None
    return both_maps or torch.equal(student.cells, teacher.cells)


def _rows_at(teacher: Feature, student: Feature) -> Tensor:
    """(M,) the teacher's row where each of the student's stands, -1 where there is none."""
    if teacher.grid is None:
        return knn(student.xyz, teacher.xyz, 1, student.batch_idx, teacher.batch_idx)[1][:, 0]
    cells, inside = teacher.grid.cells_at(student.xyz)
    rows = rows_of(teacher.cells, teacher.grid.flat(student.batch_idx, cells))
    return rows.masked_fill(~inside, -1)
